"""Figures of ``diagnose`` against what the same recipe gives in a plain loop; every domain; errors in one line."""

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import suite.diagnosis
from suite.domain import Domain, Task
from suite.module import StepOutput
from suite.optim import OptimConfig
from suite.probe import Padding
from suite.recurrent.gradient_watch import Watch
from suite.sections import SECTIONS, Column, Observed, Section, epoch_padding
from suite.seeding import seed_everything
from suite.step_profile import PARTS
from suite.vocabulary import PAD
from tests import cases, toy
from tests.cases import Case
from tests.commands import PINNED, QUIET, TOY_CONFIGS, Ran, assert_one_line, run
from tests.toy.data import SineBatch, SineData
from tests.toy.model import SineModule


def diagnose_toy(*argv: Any, module: type[SineModule] = SineModule) -> Ran:
    domain = Domain(name="toy", tasks={"next_value": Task(module=module, data=SineData)}, default="next_value")
    application = SimpleNamespace(available=toy.available, load=lambda name: domain)
    return run("diagnose", "--domain", "toy", *QUIET, *argv, application=application, configs=TOY_CONFIGS)


def figures(ran: Ran, path: Path) -> dict[str, Any]:
    assert ran.status == 0, ran
    return dict(json.loads(path.read_text(encoding="utf-8")))


def by_layer(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["layer"]: row for row in found["layers"]}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradient_norms_are_those_of_a_plain_loop(accumulate: int, tmp_path: Path) -> None:
    steps = 9
    flags = ["--model.dropout", 0, "--optim.schedule", "constant", "--optim.name", "sgd", "--optim.lr", 0.1]
    flags += ["--trainer.accumulate_grad_batches", accumulate, "--data.noise", 0]
    ran = diagnose_toy(*flags, "--steps", steps - suite.diagnosis.WARM_UP, "--output", tmp_path / "a.json")
    found = by_layer(figures(ran, tmp_path / "a.json"))

    seed_everything(0, "weights")
    data = SineData(noise=0.0)
    module = SineModule({}, dropout=0.0, optim=OptimConfig(name="sgd", lr=0.1))
    batches = [batch for epoch in range(2) for batch in data.loader("train", shuffle=True, epoch=epoch)]
    norms: dict[str, list[float]] = {"encoder.layers.0.rnn": [], "output": [], "all": []}
    # An accumulation ends with an epoch, of 8 batches here.
    groups = [batches[:3], batches[3:6], batches[6:8], batches[8:9]] if accumulate == 3 else [[b] for b in batches[:9]]
    for group in groups if accumulate == 1 else groups[:3]:
        outputs = [module.compute(batch) for batch in group]
        loss = sum(output.loss_sum for output in outputs) / sum(output.weight for output in outputs)
        module.zero_grad()
        assert isinstance(loss, Tensor)
        loss.backward()
        for layer, values in norms.items():
            squares = 0.0
            for name, parameter in module.named_parameters():
                if layer == "all" or name.startswith(layer):
                    assert parameter.grad is not None
                    squares += math.fsum(value * value for value in parameter.grad.double().flatten().tolist())
            values.append(math.sqrt(squares))
        clip = min(1.0, 1.0 / norms["all"][-1])
        with torch.no_grad():
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.1 * clip * parameter.grad)
    assert found.keys() == norms.keys()
    for layer, values in norms.items():
        assert found[layer]["gradient"] == pytest.approx(sum(values) / len(values), rel=1e-4)
        assert found[layer]["largest"] == pytest.approx(max(values), rel=1e-4)
        assert found[layer]["note"] == ""
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in module.named_modules()}
    assert found["output"]["parameters"] == counts["output"] == 9
    assert found["all"]["parameters"] == counts[""]


def test_the_norm_of_all_layers_is_the_one_that_training_logs(tmp_path: Path) -> None:
    seen: list[float] = []

    class Noted(SineModule):
        def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
            super().configure_gradient_clipping(*args, **kwargs)
            assert self.last_step is not None
            seen.append(float(self.last_step.norm))

    ran = diagnose_toy("--steps", 4, "--output", tmp_path / "a.json", module=Noted)
    whole = by_layer(figures(ran, tmp_path / "a.json"))["all"]
    assert len(seen) == 4 + suite.diagnosis.WARM_UP
    assert whole["gradient"] == pytest.approx(sum(seen) / len(seen), rel=1e-5)
    assert whole["largest"] == pytest.approx(max(seen), rel=1e-5)


def test_gradients_by_lag_are_those_of_the_mean_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd through a loop over steps, on the batch seen last and the weights of then."""
    kept: list[Observed] = []
    monkeypatch.setattr(suite.diagnosis, "SECTIONS", (*SECTIONS, lambda seen: kept.append(seen)))
    ran = diagnose_toy("--model.dropout", 0, "--steps", 2, "--output", tmp_path / "a.json")
    rows = figures(ran, tmp_path / "a.json")["lags"]
    (seen,) = kept
    module: Any = seen.module
    batch, layer = seen.batch, module.encoder.layers[0]
    assert all(parameter.grad is None for parameter in module.parameters()), "it leaves no gradient behind"
    norms: dict[int, list[float]] = {}
    for row, length in enumerate(batch.lengths.tolist()):
        state, states, loss = None, [], torch.zeros(())
        for step in range(length):
            _, (hidden,) = layer(batch.values[row, step].view(1, 1, 1), torch.tensor([1]), state)
            state = (hidden.requires_grad_(),)
            states.append(hidden)
        error = (module.output(states[-1]).squeeze() - batch.values[row, length]).square()
        loss = error / batch.lengths.sum()
        for place, slope in enumerate(torch.autograd.grad(loss, states)):
            norms.setdefault(length - 1 - place, []).append(float(slope.norm()))
    last = max(norms)
    assert [row["lag"] for row in rows] == sorted({*(lag for lag in (0, 1, 2, 5, 10, 20, 50) if lag < last), last})
    for row in rows:
        assert row["encoder"] == "encoder"
        expected = norms[row["lag"]]
        assert row["gradient"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
        assert row["of lag 0"] == pytest.approx(row["gradient"] / rows[0]["gradient"], rel=1e-6)


def test_padding_is_that_of_counted_tokens(tmp_path: Path) -> None:
    flags = [*PINNED, "--model.embedding_size", 16, "--model.encoder.hidden_size", 16]
    flags += ["--model.decoder.hidden_size", 16, "--data.sample_size", 300, "--data.vocabulary.size", 200]
    argv = ["--domain", "translation", *flags, *QUIET, "--steps", 2, "--output", tmp_path / "a.json"]
    found = {row["padding"]: row for row in figures(run("diagnose", *argv), tmp_path / "a.json")["padding"]}

    from domains.translation.data import TranslationData, VocabularyConfig

    vocabulary = VocabularyConfig(level="bpe", size=200, joint=True)
    data = TranslationData(sample_size=300, vocabulary=vocabulary, batch_size=None, max_tokens=1000)
    counts = {"source": [0, 0], "target": [0, 0], "first epoch": [0, 0]}
    for number, batch in enumerate(data.loader("train", shuffle=True)):
        # What the model reads and what it is to predict: the target without the BOS ahead.
        for name, tokens in (("source", batch.source), ("target", batch.target[:, 1:])):
            for total in (counts[name], counts["first epoch"]):
                if total is counts["first epoch"] or number < 2 + suite.diagnosis.WARM_UP:
                    total[0] += int((tokens != PAD).sum())
                    total[1] += tokens.numel()
    assert found.keys() == counts.keys()
    for name, (valid, padded) in counts.items():
        assert 0 < valid < padded
        assert (found[name]["steps"], found[name]["with padding"]) == (valid, padded)
        assert found[name]["share"] == pytest.approx(1 - valid / padded, abs=1e-12)


def test_rows_without_an_example_are_padding() -> None:
    """A stream's last batches may have rows that go on no further: their index is below zero."""
    examples = SimpleNamespace(lengths=torch.tensor([5, 3, 4]).numpy())
    sampler = [[(0, 0, True), (0, 2, True)], [(0, 1, False), (0, -1, False)]]
    data: Any = SimpleNamespace(
        examples=lambda split: examples, loader=lambda split, shuffle: SimpleNamespace(batch_sampler=sampler)
    )
    assert epoch_padding(data) == (Padding(5 + 4 + 3, 2 * 5 + 2 * 3), 2)


class _Slow(SineModule):
    """Known times: 20 ms in the forward pass, 10 ms in the backward pass."""

    def compute(self, batch: SineBatch) -> StepOutput:
        time.sleep(0.02)
        output = super().compute(batch)
        return output._replace(loss_sum=_SlowBackward.apply(output.loss_sum))


class _SlowBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        time.sleep(0.01)
        return grads[0]


def test_times_are_where_they_were_spent_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = SineData.collate

    def slowly(self: SineData, examples: Any) -> SineBatch:
        time.sleep(0.005)
        return fetch(self, examples)

    monkeypatch.setattr(SineData, "collate", slowly)
    ran = diagnose_toy("--steps", 8, "--output", tmp_path / "a.json", module=_Slow)
    found = figures(ran, tmp_path / "a.json")
    seconds = {row["time"]: row["ms a batch"] / 1000 for row in found["time"]}
    assert seconds["data"] >= 0.005
    assert seconds["forward"] >= 0.02
    assert seconds["backward"] >= 0.01
    total = seconds.pop("total")
    assert set(seconds) == set(PARTS)
    assert sum(seconds.values()) == pytest.approx(total, rel=1e-9)
    assert 0.035 <= total < found["seconds"]["measuring"] / 8
    assert sum(row["share"] for row in found["time"][:-1]) == pytest.approx(1.0, rel=1e-9)


def test_memory_is_that_of_the_tensors(tmp_path: Path) -> None:
    found = figures(diagnose_toy("--steps", 2, "--output", tmp_path / "a.json"), tmp_path / "a.json")
    held = {row["memory"]: round(row["MB"] * 1e6) for row in found["memory"]}
    count = found["parameters"]
    assert held["parameters"] == held["gradients"] == 4 * count
    matrices = 6  # parameter tensors: two weights and two biases of the GRU, weight and bias of the layer after it
    assert held["optimiser state"] == 2 * 4 * count + 4 * matrices  # two moments, and a step counter a tensor
    assert held["a checkpoint on disk"] > 3 * 4 * count
    assert held["process at most"] >= held["process before training"] > 50e6


class _Odd(SineModule):
    """Layers that nothing goes through, that are frozen, that get zero, and that get no number."""

    def __init__(
        self, assets: dict[str, Any], *, hidden_size: int = 8, dropout: float = 0.1, optim: Any = None
    ) -> None:
        super().__init__(assets, hidden_size=hidden_size, dropout=dropout, optim=optim)
        self.forgotten, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
        self.zeroed, self.broken = nn.Linear(2, 2), nn.Linear(2, 2)

    def compute(self, batch: SineBatch) -> StepOutput:
        output = super().compute(batch)
        dead = (self.zeroed.weight.sum() + self.zeroed.bias.sum()) * 0.0
        wrong = (self.broken.weight.sum() + self.broken.bias.sum()) * torch.inf * 0.0
        return output._replace(loss_sum=output.loss_sum + dead + torch.where(torch.tensor(True), 0.0, wrong))


def test_what_is_odd_about_a_layer_is_said(tmp_path: Path) -> None:
    flags = ["--trainer.gradient_clip_val", "null", "--steps", 1, "--trainer.max_epochs", 1]
    found = by_layer(figures(diagnose_toy(*flags, "--output", tmp_path / "a.json", module=_Odd), tmp_path / "a.json"))
    assert found["forgotten"]["note"] == "no gradient"
    assert found["forgotten"]["gradient"] is None
    assert found["frozen"]["note"] == "frozen"
    assert found["zeroed"]["note"] == "zero"
    assert found["broken"]["note"] == found["all"]["note"] == "not finite"


def flags_of(case: Case) -> list[str]:
    return ["--domain", case.domain.name, "--task", case.task, *cases.flags(case), *QUIET]


@pytest.mark.parametrize("case", cases.tasks(), ids=str)
def test_every_domain_has_its_table_and_leaves_nothing(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin = time.perf_counter()
    ran = run("diagnose", *flags_of(case), "--steps", 2, application=case.application, configs=case.configs)
    assert ran.status == 0, ran
    assert time.perf_counter() - begin < 60
    assert not list(tmp_path.iterdir())
    for word in ("forward", "padding", "layer", "optimiser state", "means of 2 batches"):
        assert word in ran.out, word
    module = cases.module_of(case)
    recurrent = Watch(module).encoders
    assert ("of lag 0" in ran.out) == bool(recurrent), "a section where there is a recurrent encoder"
    for name, encoder in recurrent.items():
        for way in (".forward", ".backward") if encoder.num_directions == 2 else ("",):
            assert f"\n{name}{way} " in ran.out
    for name, _ in module.named_parameters():
        assert (name.rpartition(".")[0] or "(module)") in ran.out


def test_tracking_is_measured_offline_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "online")
    argv = ("--domain", "toy", "--steps", 3, "--runs", tmp_path / "runs")
    ran = run("diagnose", *argv, application=toy, configs=TOY_CONFIGS)
    assert ran.status == 0, ran
    assert "nothing is sent" in ran.err
    assert not list(tmp_path.iterdir())


def test_it_stops_in_time(tmp_path: Path) -> None:
    flags = ["--steps", 100000, "--seconds", 0.5, "--trainer.max_epochs", 100000]
    begin = time.perf_counter()
    ran = diagnose_toy(*flags, "--output", tmp_path / "a.json")
    assert time.perf_counter() - begin < 30
    assert 0.1 < figures(ran, tmp_path / "a.json")["seconds"]["measuring"] < 20


def test_a_run_shorter_than_its_warm_up_says_so() -> None:
    ran = diagnose_toy("--trainer.max_steps", 2)
    assert ran.status == 0, ran
    assert "means of 2 batches, the run's first, which are slower" in ran.out


def test_settings_of_many_processes_are_not_used_and_said() -> None:
    ran = diagnose_toy("--trainer.devices", 2, "--trainer.strategy", "ddp", "--steps", 1)
    assert ran.status == 0, ran
    assert "not used: trainer.devices, trainer.strategy" in ran.err


def test_another_section_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def flow(seen: Observed) -> Section:
        with torch.no_grad():
            loss = seen.module.compute(seen.batch).loss_sum
        return Section("flow", (Column("lag"), Column("loss", "{:.1f}".format)), [("0", float(loss)), ("1", None)])

    monkeypatch.setattr(suite.diagnosis, "SECTIONS", (*SECTIONS, lambda seen: None, flow))
    lines = diagnose_toy("--steps", 1).out.splitlines()
    assert lines[-3].split() == ["lag", "loss"]
    assert float(lines[-2].split()[1]) > 0
    assert lines[-1].split() == ["1", "-"]


def test_what_cannot_be_meant_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_one_line(run("diagnose", application=toy), 2, "--domain is missing")
    assert_one_line(diagnose_toy("--resume", "auto"), 2, "--resume", "leave it out")
    assert_one_line(diagnose_toy("--output", tmp_path / "no" / "a.json"), 1, "no such folder")
    assert_one_line(diagnose_toy("--step", 3), 2, "did you mean --steps?")
    assert_one_line(diagnose_toy("--steps", 0), 2, "steps")
    assert_one_line(diagnose_toy("--seconds", 0), 2, "seconds")
    assert_one_line(diagnose_toy("--model.hiden_size", 3), 2, "did you mean --model.hidden_size?")
    assert_one_line(diagnose_toy("-c", tmp_path / "none.yaml"), 2, "none.yaml")
    assert_one_line(diagnose_toy("--trainer.max_epochs", 0), 2, "trainer.max_epochs is 0")
    assert_one_line(diagnose_toy("--trainer.limit_train_batches", 0), 2, "trainer.limit_train_batches is 0")
    ran = diagnose_toy("--trainer.max_time", "00:00:00:00")
    assert ran.status == 2
    assert "no training step was made: trainer.max_time" in ran.err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_one_line(diagnose_toy(), 2, "without a launcher")
