"""Truncated back-propagation through time: a long sequence read in parallel tracks, its state carried between chunks.

The sequence is cut into chunks, and the chunks into as many tracks as the batches of all processes have rows. Batch
``s`` of an epoch holds chunk ``s`` of every track, so that each row goes on where the same row of the batch before
ended. The state after a batch is detached and becomes the state before the next: values go on, gradients do not
(Williams and Peng 1990). Under gradient accumulation the batches of a step are chunks that follow each other.

Where a run is stays a pure function of (seed, epoch, batch, rank): an offset drawn anew each epoch decides where the
chunks are cut. The carried state is not one; it is saved with a checkpoint as plain tensors, those of every process.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import numpy
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from suite.data import SuiteDataModule
from suite.errors import CheckpointError, DataError, UsageError
from suite.module import StepOutput, SuiteModule
from suite.optim import OptimConfig
from suite.seeding import mix

State = tuple[Tensor, ...]
STATE_KEY = "carried_state"


class ChunkKey(NamedTuple):
    """Which chunk: ``number`` counts through the sequence (-1: none is left for this row), ``begins`` a track."""

    epoch: int
    number: int
    begins: bool


class Chunk(NamedTuple):
    """Steps ``start`` to ``stop`` of the sequence, whose targets are one step later."""

    number: int
    start: int
    stop: int
    begins: bool


class StreamBatch(Protocol):
    """What a batch of ``CarriedModule`` has to say: whether its rows begin their tracks."""

    @property
    def begins(self) -> bool: ...


class TrackSampler:
    """Keys of chunks, a row a track, for one process.

    Track ``g`` of G has the chunks from ``g * N // G`` on; where one is shorter than others its last row is empty. Rank
    ``r`` reads tracks ``r``, ``r + world_size``, ...

    Args:
        count: chunks of the sequence (N).
        tracks: rows of all processes together (G); no more than there are chunks.
        rank: this process.
        world_size: processes.
        epoch: the epoch to begin with.
        start_batch: batches of that epoch that are already done.

    Raises:
        UsageError: fewer tracks than one.
        DataError: fewer chunks or tracks than processes.
    """

    def __init__(
        self, count: int, *, tracks: int, rank: int = 0, world_size: int = 1, epoch: int = 0, start_batch: int = 0
    ) -> None:
        if tracks < 1:
            raise UsageError(f"the number of tracks is {tracks}, allowed is 1 or more")
        tracks = min(tracks, count)
        if tracks < world_size:
            raise DataError(f"{tracks} track(s) of {count} chunk(s) are fewer than {world_size} processes: use fewer")
        self.cuts = [track * count // tracks for track in range(tracks + 1)]
        self.tracks = range(rank, tracks, world_size)
        self.epoch, self.start_batch = epoch, start_batch
        self.sampler = self  # Lightning calls set_epoch on `batch_sampler.sampler`

    def __len__(self) -> int:
        """Batches of an epoch, the same in each and on each rank."""
        return max(stop - start for start, stop in itertools.pairwise(self.cuts))

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch, from its beginning."""
        if epoch != self.epoch:
            self.epoch, self.start_batch = epoch, 0

    def __iter__(self) -> Iterator[list[ChunkKey]]:
        for step in range(self.start_batch, len(self)):
            yield [self._key(track, step) for track in self.tracks]

    def _key(self, track: int, step: int) -> ChunkKey:
        index = self.cuts[track] + step
        return ChunkKey(self.epoch, index if index < self.cuts[track + 1] else -1, step == 0)


class Chunks:
    """Where a sequence of ``steps`` predicted steps is cut into chunks of ``chunk_length``.

    The first chunk is as long as an offset says. Offsets are drawn among those that give the same number of chunks,
    none of them empty: at least half of all.

    Args:
        steps: steps that are predicted: one less than the sequence is long.
        chunk_length: steps of a chunk.
        seed: decides the offset of each epoch; ``None`` cuts every epoch alike, from the beginning.

    Raises:
        UsageError: a chunk length below one.
        DataError: nothing to predict.
    """

    def __init__(self, steps: int, *, chunk_length: int, seed: int | None) -> None:
        if chunk_length < 1:
            raise UsageError(f"chunk_length is {chunk_length}, allowed is 1 or more")
        if steps < 1:
            raise DataError("the sequence has nothing to predict: at least two steps are needed")
        self.steps, self.chunk_length, self.seed = steps, min(chunk_length, steps), seed
        self.count = -(-steps // self.chunk_length)
        self.offsets = range(self.chunk_length, self.chunk_length + 1)
        if seed is not None:
            rest = steps - (self.count - 1) * self.chunk_length  # of the last chunk, cut from the beginning
            fewer, more = range(rest, self.chunk_length + 1), range(1, rest)
            self.offsets = max(fewer, more, key=len)
            self.count += self.offsets is more

    def at(self, key: ChunkKey) -> Chunk:
        """The chunk of a key, empty where there is none."""
        if key.number < 0:
            return Chunk(-1, 0, 0, key.begins)
        draw = 0 if self.seed is None else mix(self.seed, key.epoch, "offset")
        offset = self.offsets[draw % len(self.offsets)]
        stop = min(offset + key.number * self.chunk_length, self.steps)
        start = max(offset + (key.number - 1) * self.chunk_length, 0)
        return Chunk(key.number, start, stop, key.begins)

    @property
    def lengths(self) -> NDArray[numpy.int64]:
        """``(N,)`` steps of each chunk in the first epoch."""
        chunks = [self.at(ChunkKey(0, number, True)) for number in range(self.count)]
        return numpy.array([chunk.stop - chunk.start for chunk in chunks], dtype=numpy.int64)


class StreamExamples(Protocol):
    """A split that is one sequence; as ``suite.data.Examples``, and by chunk."""

    chunks: Chunks
    lengths: NDArray[numpy.int64]

    def fetch(self, index: int, seed: int) -> Any:
        """Chunk ``index`` by itself."""

    def fetch_chunk(self, chunk: Chunk) -> Any:
        """What stands at a chunk; ``collate`` makes a batch of such."""


class _ChunkDataset(Dataset[Any]):
    """Examples by ``ChunkKey``."""

    def __init__(self, examples: StreamExamples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return self.examples.chunks.count

    def __getitem__(self, key: ChunkKey) -> Any:
        return self.examples.fetch_chunk(self.examples.chunks.at(key))


class StreamDataModule(SuiteDataModule):
    """A data module whose splits are ``StreamExamples``; inputs to predict are examples like any other.

    Args:
        batch_size: tracks of one process in training.
        eval_tracks: tracks of all processes together in evaluation: few lose little context where tracks begin, and
            figures do not depend on the number of processes.
        num_workers: processes that load data.
        seed: decides where chunks are cut.
        assets: what a checkpoint brought along.
    """

    order_matters: ClassVar[bool] = True

    def __init__(
        self,
        *,
        batch_size: int,
        eval_tracks: int,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, max_tokens=None, num_workers=num_workers, seed=seed, assets=assets)
        for name, value in (("batch_size", batch_size), ("eval_tracks", eval_tracks)):
            if value < 1:
                raise UsageError(f"data.{name} is {value}, allowed is 1 or more")
        self.eval_tracks = eval_tracks

    def loader(self, split: str, *, shuffle: bool, epoch: int = 0, start_batch: int = 0) -> DataLoader[Any]:
        """Chunks of a split in the order of their tracks; ``shuffle`` (training) makes batch_size rows a process."""
        if split == "predict":
            return super().loader(split, shuffle=shuffle, epoch=epoch, start_batch=start_batch)
        examples = cast(StreamExamples, self.examples(split))
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        assert self.batch_size is not None
        sampler = TrackSampler(
            examples.chunks.count,
            tracks=self.batch_size * world_size if shuffle else self.eval_tracks,
            rank=rank,
            world_size=world_size,
            epoch=epoch,
            start_batch=start_batch,
        )
        return self.make_loader(_ChunkDataset(examples), sampler)


class CarriedModule(SuiteModule):
    """A module that carries a state from batch to batch.

    A domain writes ``compute_chunk(batch, state, begins) -> (StepOutput, state)``; its batches say whether they begin
    tracks.
    A state is a tuple of tensors with a row for each track, as recurrent encoders take and give it.

    Args:
        assets: plain data that travels with the weights.
        state_reset: probability that a track begins anew with a chunk in training. An epoch has few
            beginnings: without more of them a model may never learn to begin, and go wrong for good where it does.
        optim: the optimiser and its schedule.

    Raises:
        UsageError: a probability outside [0, 1).
    """

    def __init__(self, assets: dict[str, Any], *, state_reset: float = 0.0, optim: OptimConfig | None = None) -> None:
        super().__init__(assets, optim=optim)
        if not 0.0 <= state_reset < 1.0:
            raise UsageError(f"model.state_reset is {state_reset}, allowed is 0 up to but not including 1")
        self.state_reset = state_reset
        self._carried: dict[str, State] = {}

    def compute_chunk(self, batch: Any, state: State | None, begins: Tensor | None = None) -> tuple[StepOutput, State]:
        """Loss of a batch that goes on from ``state`` (``None``: from the beginning), and the state after it.

        ``begins (B,)`` is True for rows that begin all the same; encoders take it as it is. In training it is there
        with every state, so that a learned first state has a part in every step (processes that share gradients wait
        for it).
        """
        raise NotImplementedError

    def compute(self, batch: Any) -> StepOutput:
        """A batch by itself, from the beginning."""
        return self.compute_chunk(batch, None)[0]

    def compute_in(self, split: str, batch: Any) -> StepOutput:
        state, begins = None, None
        if not batch.begins:
            assert split in self._carried, f"a chunk of {split} goes on from a state that is not there"
            state = tuple(part.to(self.device) for part in self._carried[split])
            if split == "train":
                begins = self._resets(state[0].size(0))
        output, final = self.compute_chunk(batch, state, begins)
        self._carried[split] = _finite_rows(tuple(part.detach() for part in final))
        return output

    def _resets(self, rows: int) -> Tensor:
        if not self.state_reset:
            return torch.zeros(rows, dtype=torch.bool, device=self.device)
        return torch.rand(rows, device=self.device) < self.state_reset

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the training state of every process; called on all of them."""
        if "train" in self._carried:
            checkpoint[STATE_KEY] = [list(state) for state in _gather(self._carried["train"])]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's state back.

        Raises:
            CheckpointError: a checkpoint of another number of processes.
        """
        states = checkpoint.get(STATE_KEY)
        if states is None:
            return
        if len(states) != self.trainer.world_size:
            raise CheckpointError(
                f"the carried state is of {len(states)} process(es), this run has {self.trainer.world_size}: "
                "use as many devices as before, or begin a new run"
            )
        self._carried["train"] = tuple(states[self.trainer.global_rank])


def _finite_rows(state: State) -> State:
    """Rows that are not finite are emptied: a batch whose step is skipped must not spoil all that follow it."""
    rows = state[0].size(0)
    broken = torch.stack([~torch.isfinite(part).view(rows, -1).all(dim=1) for part in state]).any(dim=0)
    return tuple(part.masked_fill(broken.view(-1, *[1] * (part.dim() - 1)), 0.0) for part in state)


def _gather(state: State) -> Sequence[State]:
    """The state of every process, on the CPU."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [tuple(part.cpu() for part in state)]
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, tuple(part.cpu() for part in state))
    return shares
