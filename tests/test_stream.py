"""Truncated back-propagation: order of chunks, the carried state against one pass and against a plain loop."""

import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from suite.errors import CheckpointError, DataError, UsageError
from suite.module import StepOutput
from suite.optim import OptimConfig
from suite.recurrent import RecurrentEncoder, RecurrentOptions
from suite.sequence import length_mask, pad_sequences
from suite.stream import STATE_KEY, CarriedModule, Chunk, ChunkKey, Chunks, State, StreamDataModule, TrackSampler

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
STEPS, LENGTH, TRACKS = 47, 4, 3


class Batch(NamedTuple):
    values: Tensor
    lengths: Tensor
    indices: list[int]
    begins: bool


class Series:
    def __init__(self, seed: int | None) -> None:
        self.values = torch.sin(torch.arange(STEPS + 1) * 0.7) + torch.arange(STEPS + 1) / STEPS
        self.chunks = Chunks(STEPS, chunk_length=LENGTH, seed=seed)
        self.lengths = self.chunks.lengths

    def fetch(self, index: int, seed: int) -> Any:
        return self.fetch_chunk(self.chunks.at(ChunkKey(0, index, True)))

    def fetch_chunk(self, chunk: Chunk) -> Any:
        return chunk, self.values[chunk.start : chunk.stop + 1 if chunk.stop > chunk.start else chunk.stop]


class Data(StreamDataModule):
    def make_assets(self) -> dict[str, Any]:
        return {}

    def load(self, split: str) -> Series:
        return Series(self.seed if split == "train" else None)

    def collate(self, examples: list[Any]) -> Batch:
        values, lengths = pad_sequences([row for _, row in examples])
        chunks = [chunk for chunk, _ in examples]
        return Batch(values, (lengths - 1).clamp_min(0), [each.number for each in chunks], chunks[0].begins)


class Module(CarriedModule):
    def __init__(self) -> None:
        super().__init__({}, optim=OptimConfig(name="sgd", lr=0.1))
        self.encoder = RecurrentEncoder(1, 3, cell="lstm")
        self.output = nn.Linear(3, 1)
        self.seen: list[tuple[list[int], bool]] = []

    def compute_chunk(
        self, batch: Batch, state: State | None, begins: torch.Tensor | None = None
    ) -> tuple[StepOutput, State]:
        self.seen.append((batch.indices, state is None))
        steps = max(batch.values.size(1) - 1, 1)
        inputs = batch.values[:, :steps].unsqueeze(2).to(self.output.weight)
        encoded = self.encoder(inputs, batch.lengths, state, begins=begins)
        mask = length_mask(batch.lengths, steps)
        error = self.output(encoded.outputs).squeeze(2)[mask] - batch.values[:, 1:][mask[:, : batch.values.size(1) - 1]]
        return StepOutput(error.square().sum(), batch.lengths.sum()), encoded.state


def data(**settings: Any) -> Data:
    return Data(**{"batch_size": TRACKS, "eval_tracks": TRACKS, **settings})


def trainer(**settings: Any) -> Trainer:
    quiet: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    common: Any = {**quiet, "enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    return Trainer(**{**common, "max_epochs": 1, "limit_val_batches": 0, **settings})


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("count", [4, 12, 13, 14, 15])
def test_every_chunk_once_and_in_order_within_its_track(count: int, world_size: int) -> None:
    samplers = [TrackSampler(count, tracks=4, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(sampler) for sampler in samplers}) == 1
    seen: list[int] = []
    for sampler in samplers:
        steps = list(sampler)
        assert len(steps) == len(sampler)
        assert [keys[0].begins for keys in steps] == [number == 0 for number in range(len(steps))]
        for column in zip(*steps, strict=True):
            numbers = [key.number for key in column if key.number >= 0]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert all(key.number == -1 for key in column[len(numbers) :])
            seen += numbers
    assert sorted(seen) == list(range(count))


def test_two_processes_read_the_tracks_of_one() -> None:
    whole = list(TrackSampler(14, tracks=4))
    halves = [list(TrackSampler(14, tracks=4, rank=rank, world_size=2)) for rank in (0, 1)]
    for step, keys in enumerate(whole):
        assert keys[0::2] == halves[0][step]
        assert keys[1::2] == halves[1][step]


def test_a_later_start_is_the_rest() -> None:
    sampler = TrackSampler(14, tracks=4, epoch=2, start_batch=3)
    assert list(sampler) == list(TrackSampler(14, tracks=4, epoch=2))[3:]
    sampler.set_epoch(3)
    assert list(sampler) == list(TrackSampler(14, tracks=4, epoch=3))


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("steps", [1, 3, 4, 5, 6, 7, 8, 46, 47])
def test_chunks_cover_the_sequence_once(steps: int, seed: int | None) -> None:
    chunks = Chunks(steps, chunk_length=4, seed=seed)
    for epoch in range(20):
        cuts = [chunks.at(ChunkKey(epoch, number, False)) for number in range(chunks.count)]
        assert [step for each in cuts for step in range(each.start, each.stop)] == list(range(steps))
        assert all(1 <= each.stop - each.start <= 4 for each in cuts)
    assert chunks.lengths.sum() == steps


def test_chunks_are_cut_elsewhere_in_each_epoch() -> None:
    chunks = Chunks(1000, chunk_length=50, seed=3)
    assert len({chunks.at(ChunkKey(epoch, 0, True)).stop for epoch in range(10)}) > 3
    fixed = Chunks(1000, chunk_length=50, seed=None)
    assert {fixed.at(ChunkKey(epoch, 0, True)).stop for epoch in range(10)} == {50}


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_keep_the_order(workers: int) -> None:
    batches = list(data(num_workers=workers).loader("train", shuffle=True, epoch=1))
    sampler = TrackSampler(data().examples("train").chunks.count, tracks=TRACKS)  # type: ignore[attr-defined]
    assert [batch.indices for batch in batches] == [[key.number for key in keys] for keys in sampler]


def test_evaluation_in_chunks_equals_one_pass_over_each_track() -> None:
    module, given = Module().double(), data()
    run = trainer()
    run.test(module, given, verbose=False)
    series = Series(None)
    cuts = [min(cut * LENGTH, STEPS) for cut in TrackSampler(series.chunks.count, tracks=TRACKS).cuts]
    total = 0.0
    for start, stop in itertools.pairwise(cuts):
        row = series.values[start : stop + 1].double().unsqueeze(0)
        output, _ = module.compute_chunk(Batch(row, torch.tensor([stop - start]), [0], True), None)
        total += float(output.loss_sum.detach())
    assert float(run.callback_metrics["test/loss"]) == pytest.approx(total / STEPS, rel=1e-9)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_equals_a_plain_loop(accumulate: int) -> None:
    torch.manual_seed(1)
    module, other = Module(), Module()
    other.load_state_dict(module.state_dict())
    trainer(max_epochs=2, accumulate_grad_batches=accumulate).fit(module, data())
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for epoch in range(2):
        state, weight = None, 0
        batches = list(data().loader("train", shuffle=True, epoch=epoch))
        for number, batch in enumerate(batches, start=1):
            output, state = other.compute_chunk(batch, state)
            state = tuple(part.detach() for part in state)
            output.loss_sum.backward()
            weight += int(output.weight)
            if number % accumulate == 0 or number == len(batches):
                for parameter in other.parameters():
                    assert parameter.grad is not None
                    parameter.grad.div_(weight)
                optimizer.step()
                optimizer.zero_grad()
                weight = 0
    for first, second in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    begins = len(data().loader("train", shuffle=True))
    assert [start for _, start in module.seen] == [number % begins == 0 for number in range(2 * begins)]


def test_validation_inside_an_epoch_leaves_the_training_state_alone() -> None:
    plain, watched = Module(), Module()
    watched.load_state_dict(plain.state_dict())
    trainer().fit(plain, data())
    trainer(limit_val_batches=1.0, val_check_interval=2).fit(watched, data())
    for first, second in zip(plain.parameters(), watched.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_state_travels_with_a_checkpoint_as_plain_tensors() -> None:
    module = Module()
    run = trainer(max_steps=2)
    run.fit(module, data())
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    assert len(checkpoint[STATE_KEY]) == 1
    assert [tuple(part.shape) for part in checkpoint[STATE_KEY][0]] == [(TRACKS, 1, 3)] * 2
    assert not any(part.requires_grad for part in checkpoint[STATE_KEY][0])
    other = Module()
    other.trainer = run
    other.on_load_checkpoint(checkpoint)
    for first, second in zip(module._carried["train"], other._carried["train"], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="is of 2 process"):
        other.on_load_checkpoint({STATE_KEY: checkpoint[STATE_KEY] * 2})
    empty: dict[str, Any] = {}
    Module().on_save_checkpoint(empty)
    assert not empty


def test_rows_begin_anew_in_training_alone() -> None:
    module = Module()
    module.state_reset = 0.5
    rows = 400
    state = tuple(torch.randn(rows, 1, 3) for _ in range(2))
    found: list[tuple[State, torch.Tensor | None]] = []

    def keep(batch: Batch, state: State | None, begins: torch.Tensor | None) -> tuple[StepOutput, State]:
        assert state is not None
        found.append((state, begins))
        return StepOutput(torch.zeros(()), torch.ones(())), state

    module.compute_chunk = keep  # type: ignore[method-assign, assignment]
    batch = Batch(torch.zeros(rows, 2), torch.ones(rows), list(range(rows)), False)
    for split in ("train", "val"):
        module._carried[split] = state
        module.compute_in(split, batch)
    assert found[0][1] is not None
    assert 150 < int(found[0][1].sum()) < 250
    assert found[1][1] is None
    for given, _ in found:
        assert all(torch.equal(before, after) for before, after in zip(state, given, strict=True))
    with pytest.raises(UsageError, match=r"model\.state_reset is 1"):
        CarriedModule({}, state_reset=1.0)


def test_a_batch_with_an_empty_row_keeps_its_state() -> None:
    module = Module()
    state = tuple(torch.randn(2, 1, 3) for _ in range(2))
    batch = Batch(torch.tensor([[0.1, 0.2], [0.0, 0.0]]), torch.tensor([1, 0]), [5, -1], False)
    _, final = module.compute_chunk(batch, state)
    for before, after in zip(state, final, strict=True):
        torch.testing.assert_close(before[1], after[1], rtol=0, atol=0)
        assert not torch.equal(before[0], after[0])


def test_errors() -> None:
    with pytest.raises(UsageError, match="tracks is 0"):
        TrackSampler(4, tracks=0)
    with pytest.raises(DataError, match=r"1 track\(s\) of 1 chunk\(s\) are fewer than 2 processes"):
        TrackSampler(1, tracks=4, world_size=2)
    with pytest.raises(UsageError, match="chunk_length is 0"):
        Chunks(4, chunk_length=0, seed=None)
    with pytest.raises(DataError, match="nothing to predict"):
        Chunks(0, chunk_length=4, seed=None)
    with pytest.raises(UsageError, match=r"data\.eval_tracks is 0"):
        data(eval_tracks=0)
    assert numpy.array_equal(Chunks(3, chunk_length=100, seed=None).lengths, [3])


def test_a_state_that_is_not_finite_is_emptied_and_others_go_on() -> None:
    """Otherwise one bad batch would make every later step of its track one that has to be skipped."""
    seen: list[Any] = []

    class Breaking(CarriedModule):
        def compute_chunk(self, batch: Any, state: Any, begins: Any = None) -> Any:
            seen.append(state)
            final = (torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]]), torch.ones(3, 1, 2))
            final[0][1, 0, 0] = float("nan")
            final[1][2, 0, 1] = float("inf")
            return StepOutput(torch.zeros(()), torch.ones(())), final

    module = Breaking({})
    module.compute_in("train", SimpleNamespace(begins=True))
    module.compute_in("train", SimpleNamespace(begins=False))
    kept = seen[1]
    assert torch.equal(kept[0], torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.0]]]))
    assert torch.equal(kept[1], torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]]))


@pytest.mark.parametrize("kind", ["learned", "input"])
def test_a_first_state_of_its_own_is_trained_in_every_step(kind: Any) -> None:
    """It has a part in each chunk, as processes that share gradients ask for, and is what emptied rows begin with."""

    class Learning(Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = RecurrentEncoder(1, 3, cell="lstm", options=RecurrentOptions(initial_state=kind))

    module = Learning()
    for begins_tracks in (True, False):
        module.zero_grad()
        module.compute_in(
            "train", Batch(torch.randn(2, 4), torch.tensor([3, 3]), [0, 1], begins_tracks)
        ).loss_sum.backward()
        assert all(weight.grad is not None for weight in module.encoder.initial.parameters())
    state = tuple(torch.randn(4, 1, 3) for _ in range(2))
    inputs, lengths = torch.randn(4, 5, 1), torch.tensor([5, 3, 5, 0])
    begins = torch.tensor([True, False, False, True])
    mixed = module.encoder(inputs, lengths, state, begins=begins)
    anew, on = module.encoder(inputs, lengths), module.encoder(inputs, lengths, state)
    for name in ("outputs", "state"):
        for part, new, old in zip(*(_parts(getattr(each, name)) for each in (mixed, anew, on)), strict=True):
            torch.testing.assert_close(part[begins], new[begins], rtol=0, atol=0)
            torch.testing.assert_close(part[~begins], old[~begins], rtol=0, atol=0)


def _parts(value: Any) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
