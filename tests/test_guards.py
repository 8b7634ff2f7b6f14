"""What a run does when a loss is not finite, when checkpoints cannot be written, and which of them it keeps."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback

import suite.fitting
from suite.checkpoint import weights_of
from suite.ema import WeightAverage
from suite.module import TrainingStep
from tests.commands import assert_one_line, fit_toy, run, with_callback
from tests.test_callbacks import column, rows
from tests.toy.model import SineModule


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt"))


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the loss of these training batches NaN, and leave NaN in a buffer of the model as well."""
    compute = SineModule.compute

    def poisoned(self: SineModule, batch: Any) -> Any:
        output = compute(self, batch)
        if not hasattr(self, "statistic"):
            return output
        if self.training and self.trainer.global_step in steps:
            cast(torch.Tensor, self.statistic).add_(float("nan"))
            return output._replace(loss_sum=output.loss_sum * float("nan"))
        return output

    def built(*args: Any, **kwargs: Any) -> Any:
        module = original(*args, **kwargs)
        module.register_buffer("statistic", torch.zeros(2))
        return module

    original = suite.fitting.build_module
    monkeypatch.setattr(suite.fitting, "build_module", built)
    monkeypatch.setattr(SineModule, "compute", poisoned)


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {2, 5})
    seen: dict[int, dict[str, Any]] = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            optimizer = trainer.optimizers[0].state_dict()["state"]
            seen[trainer.global_step] = {"weights": {k: v.clone() for k, v in module.state_dict().items()},
                                         "steps": [float(each["step"]) for each in optimizer.values()]}  # fmt: skip

    with_callback(monkeypatch, Watch())
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.log_every_n_steps=1", "--ema_decay=0.5")
    assert ran.status == 0, ran.err
    assert "step 3: loss or gradient not finite, nothing was updated (1 in a row)" in ran.err
    for before, after in ((2, 3), (5, 6)):
        for name, weights in seen[before]["weights"].items():
            assert torch.equal(weights, seen[after]["weights"][name]), name
        assert seen[before]["steps"] == seen[after]["steps"]
    changed = [not torch.equal(a, seen[2]["weights"][n]) for n, a in seen[4]["weights"].items()]
    assert any(changed)
    assert column(tmp_path / "toy" / "a", "train/skipped_steps") == [0, 0, 1, 1, 1, 2, 2, 2]
    losses = [row["train/loss"] for row in rows(tmp_path / "toy" / "a") if row["train/loss"]]
    assert [position for position, loss in enumerate(losses) if loss == "nan"] == [2, 5]
    last = torch.load(tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.isfinite(each).all() for each in last["state_dict"].values())
    assert all(torch.isfinite(each).all() for each in weights_of(last).values())


def test_too_many_in_a_row_end_the_run_with_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {3, 4, 5, 6})
    ran = fit_toy("--runs", tmp_path, "--name=a", "--max_skipped=3", "--checkpoint_every=3")
    assert ran.status == 1
    message = ran.err.strip().split("\n")[-1]
    assert "step 6: 3 steps in a row had a loss or gradient that is not finite" in message
    assert "rank 0: " in message
    indices = [int(word) for word in message.split("rank 0: ")[1].split(".")[0].split(", ")]
    assert len(indices) == len(set(indices)) > 0
    assert all(0 <= index < 61 for index in indices)
    folder = tmp_path / "toy" / "a" / "checkpoints"
    last = torch.load(folder / "last.ckpt", weights_only=True)
    before = torch.load(folder / "step-0000003.ckpt", weights_only=True)
    assert last["global_step"] == 6
    for name, weights in before["state_dict"].items():
        assert torch.equal(weights, last["state_dict"][name]), name
    resumed = run_on(tmp_path)  # the examples of step 7 are poisoned too, the rest are not
    assert resumed.status == 0, resumed.err


def run_on(tmp_path: Path, *flags: Any) -> Any:
    return fit_toy(
        "--runs", tmp_path, "--max_skipped=3", "--checkpoint_every=3", "--resume", tmp_path / "toy/a", *flags
    )


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    flags = ("--keep_last=3", "--keep_best=2", "--checkpoint_every=3", "--optim.lr=0.3", "--trainer.max_epochs=4")
    ran = fit_toy("--runs", tmp_path, "--name=a", *flags)
    assert ran.status == 0, ran.err
    folder = tmp_path / "toy" / "a"
    losses = column(folder, "val/loss")
    ranked = sorted(range(4), key=losses.__getitem__)[:2]
    best = [f"best-{8 * (epoch + 1):07d}.ckpt" for epoch in sorted(ranked)]
    assert checkpoints(folder) == [*best, "best.ckpt", "last.ckpt", *(f"step-{n:07d}.ckpt" for n in (27, 30, 32))]
    for name, epoch in zip(best, sorted(ranked), strict=True):
        record = torch.load(folder / "checkpoints" / name, weights_only=True)["suite"]
        assert record["monitored"] == {"name": "val/loss", "mode": "min", "value": pytest.approx(losses[epoch])}
    same = (folder / "checkpoints" / "best.ckpt").stat().st_ino
    assert same == (folder / "checkpoints" / f"best-{8 * (ranked[0] + 1):07d}.ckpt").stat().st_ino


def test_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Clock(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            now[0] += 20.0

    build = suite.fitting.build_trainer

    def timed(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.callbacks.append(Clock())  # type: ignore[attr-defined]
        return trainer

    monkeypatch.setattr(suite.fitting, "build_trainer", timed)
    ran = fit_toy("--runs", tmp_path, "--name=a", "--checkpoint_minutes=1", "--keep_last=9")
    assert ran.status == 0, ran.err
    names = [f"step-{step:07d}.ckpt" for step in (3, 6, 8)]
    assert checkpoints(tmp_path / "toy" / "a") == ["best.ckpt", "last.ckpt", *names]


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--checkpoint_every=0", ("checkpoint_every is 0", "1 or more")),
        ("--checkpoint_minutes=0", ("checkpoint_minutes is 0", "more than 0")),
        ("--keep_last=0", ("keep_last",)),
        ("--ema_decay=1", ("ema_decay is 1", "0 up to but not including 1")),
        ("--max_skipped=0", ("max_skipped",)),
    ],
)
def test_policies_that_make_no_sense_are_refused(flag: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    assert_one_line(fit_toy("--runs", tmp_path, "--name=a", flag), 2, *parts)
    assert not (tmp_path / "toy" / "a").exists()


def test_the_average_is_what_is_tested_and_used(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--ema_decay=0.9", "--trainer.max_epochs=2", "--model.dropout=0")
    assert ran.status == 0, ran.err
    folder = tmp_path / "toy" / "a"
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    average, training = weights_of(last), last["state_dict"]
    assert any(not torch.equal(average[name], training[name]) for name in training)
    tested = [row["test/loss"] for row in rows(folder) if row["test/loss"]]
    evaluated = run_toy("evaluate", "--checkpoint", folder / "checkpoints" / "best.ckpt")
    assert f"{float(tested[0]):.4f}" in evaluated.out


def run_toy(verb: str, *arguments: Any) -> Any:
    from tests import toy
    from tests.commands import TOY_CONFIGS

    return run(verb, *arguments, application=toy, configs=TOY_CONFIGS)


def test_the_average_follows_its_equation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop in float64 over the weights after each step."""
    history: list[dict[str, torch.Tensor]] = []

    class Watch(Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            history.append({name: each.detach().double().clone() for name, each in module.named_parameters()})

        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            self.on_train_start(trainer, module)

    with_callback(monkeypatch, Watch())
    assert fit_toy("--runs", tmp_path, "--name=a", "--ema_decay=0.4").status == 0
    expected = dict(history[0])
    for update, weights in enumerate(history[1:], start=1):
        decay = min(0.4, (1 + update) / (10 + update))
        expected = {name: decay * each + (1 - decay) * weights[name] for name, each in expected.items()}
    found = weights_of(torch.load(tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt", weights_only=True))
    for name, each in expected.items():
        torch.testing.assert_close(found[name].double(), each, rtol=1e-6, atol=1e-7)


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A folder in the place of a file refuses to be written, to the superuser too."""
    assert fit_toy("--runs", tmp_path, "--name=a").status == 0
    folder = tmp_path / "toy" / "a"
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    ran = fit_toy("--runs", tmp_path, "--resume", folder)
    assert_one_line(ran, 1, str(folder / "config.yaml"), "cannot be written", "change its permissions")
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_run_that_goes_on_does_not_save_before_its_first_step(tmp_path: Path) -> None:
    flags = ("--trainer.accumulate_grad_batches=2", "--checkpoint_every=2", "--keep_last=9", "--trainer.max_epochs=2")
    assert fit_toy("--runs", tmp_path, "--name=a", *flags, "--trainer.max_steps=2").status == 0
    kept = tmp_path / "toy" / "a" / "checkpoints"
    before = (kept / "step-0000002.ckpt").read_bytes()
    assert not (kept / "step-0000000.ckpt").exists()
    assert fit_toy("--runs", tmp_path, *flags, "--trainer.max_steps=5", "--resume", tmp_path / "toy" / "a").status == 0
    assert (kept / "step-0000002.ckpt").read_bytes() == before


def test_the_average_of_bfloat16_weights_moves() -> None:
    module = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    module.last_step = TrainingStep(1.0, 1.0, 1.0, skipped=False)  # type: ignore[assignment]
    average, trainer = WeightAverage(0.999), SimpleNamespace(global_step=0)
    with torch.no_grad():
        module.weight.fill_(1.0)
        average.on_train_start(trainer, module)  # type: ignore[arg-type]
        module.weight.fill_(1.1)
    average.updates = 100_000  # past the smaller decays of the beginning
    for step in range(1, 5001):
        trainer.global_step = step
        average.on_train_batch_end(trainer, module, None, None, 0)  # type: ignore[arg-type]
    assert average.average["weight"].dtype == torch.float32
    assert float(average.average["weight"]) == pytest.approx(1.1, abs=5e-3)
