"""The standing callbacks, as their figures and files show them after a run of the toy domain."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from suite.callbacks import LearningRate
from suite.early_stopping import EarlyStopping
from suite.optim import OptimConfig, schedule_factor
from suite.run_checkpoints import CheckpointPolicy, RunCheckpoints
from suite.scores import has_not_begun
from tests.commands import assert_one_line, fit_toy


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder) if row[name]]


def test_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    flags = ("--optim.schedule=linear", "--optim.warmup_steps=3", "--trainer.log_every_n_steps=1")
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.max_epochs=2", *flags)
    assert ran.status == 0, ran.err
    config = OptimConfig(lr=1e-2, schedule="linear", warmup_steps=3)
    expected = [1e-2 * schedule_factor(config, step, 16) for step in range(16)]
    assert column(tmp_path / "toy" / "a", "train/lr") == pytest.approx(expected)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_accumulated_steps_are_logged_once_each(accumulate: int, tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.log_every_n_steps=1",
                  f"--trainer.accumulate_grad_batches={accumulate}")  # fmt: skip
    assert ran.status == 0, ran.err
    steps = -(-8 // accumulate)
    assert len(column(tmp_path / "toy" / "a", "train/loss")) == steps


def test_best_is_the_best_and_last_the_last(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.max_epochs=4", "--optim.lr=0.3")
    assert ran.status == 0, ran.err
    folder = tmp_path / "toy" / "a" / "checkpoints"
    losses = column(tmp_path / "toy" / "a", "val/loss")
    best = torch.load(folder / "best.ckpt", weights_only=True)
    last = torch.load(folder / "last.ckpt", weights_only=True)
    kept = next(state for name, state in last["callbacks"].items() if name.startswith("RunCheckpoints"))
    assert kept["best"] == [[pytest.approx(min(losses)), best["global_step"]]]
    assert best["global_step"] == 8 * (losses.index(min(losses)) + 1)
    assert last["global_step"] == 32


def test_patience_stops_a_run_that_does_not_improve(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.max_epochs=30", "--optim.lr=1e-9", "--patience=2",
                  "--optim.name=sgd", "--optim.schedule=constant")  # fmt: skip
    assert ran.status == 0, ran.err
    assert len(column(tmp_path / "toy" / "a", "val/loss")) < 30


def test_plateau_cuts_after_its_patience_and_keeps_its_state() -> None:
    config = OptimConfig(schedule="plateau", plateau_patience=1, plateau_factor=0.5)
    module: Any = SimpleNamespace(optim=config, monitor="val/loss", monitor_mode="min")
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, callback_metrics={})
    rate, cuts = LearningRate(), []
    for score in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 1.0, float("nan"), 1.5):
        trainer.callback_metrics["val/loss"] = torch.tensor(score)
        rate.on_validation_end(trainer, module)
        again = LearningRate()
        again.load_state_dict(rate.state_dict())
        rate = again
        cuts.append(rate.cut)
    assert cuts == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


@pytest.mark.parametrize(
    ("mode", "scores", "cuts"),
    [
        ("max", [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        ("max", [0, 0, 0, 2, 1, 1, 3, 0, 0], [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ("max", [0, math.nan, 0, math.nan], [1, 1, 1, 0.5]),
        ("min", [0, 0, 0], [1, 1, 0.5]),
    ],
)
def test_plateau_begins_to_count_above_zero_where_higher_is_better(
    mode: str, scores: list[float], cuts: list[float]
) -> None:
    config = OptimConfig(schedule="plateau", plateau_patience=1, plateau_factor=0.5)
    module: Any = SimpleNamespace(optim=config, monitor="score", monitor_mode=mode)
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, callback_metrics={})
    rate, found = LearningRate(), []
    for score in scores:
        trainer.callback_metrics["score"] = torch.tensor(float(score))
        rate.on_validation_end(trainer, module)
        again = LearningRate()  # a run may go on from each of them
        again.load_state_dict(rate.state_dict())
        rate = again
        found.append(rate.cut)
    assert found == cuts


BY_NORM = ["--trainer.gradient_clip_val=0.001"]


@pytest.mark.parametrize("flags", [BY_NORM, [*BY_NORM, "--trainer.gradient_clip_algorithm=value"]])
def test_clipping_by_norm_and_by_value_limits_the_step(flags: list[str], tmp_path: Path) -> None:
    common = ("--optim.name=sgd", "--optim.lr=1", "--optim.schedule=constant", "--trainer.max_steps=1",
              "--trainer.limit_val_batches=0")  # fmt: skip
    states = []
    for name, lr in (("start", "1e-12"), ("moved", "1")):
        ran = fit_toy("--runs", tmp_path, f"--name={name}", *common, f"--optim.lr={lr}", *flags)
        assert ran.status == 0, ran.err
        states.append(
            torch.load(tmp_path / "toy" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        )
    moves = torch.cat([(states[1][key] - states[0][key]).flatten() for key in states[0] if "evaluation" not in key])
    if len(flags) == 1:
        assert float(moves.norm()) == pytest.approx(0.001, rel=1e-2)
    else:
        assert float(moves.abs().max()) == pytest.approx(0.001, rel=1e-2)
        assert float(moves.norm()) > 0.001


def test_plateau_forgets_a_first_score_that_is_no_number() -> None:
    schedule = LearningRate()
    module = SimpleNamespace(
        optim=OptimConfig(schedule="plateau", plateau_patience=0), monitor="val/loss", monitor_mode="min"
    )
    for score in (math.nan, 3.0, 2.0, 1.0):
        trainer: Any = SimpleNamespace(
            state=SimpleNamespace(fn="fit"), sanity_checking=False, callback_metrics={"val/loss": torch.tensor(score)}
        )
        schedule.on_validation_end(trainer, module)  # type: ignore[arg-type]
    assert schedule.best == 1.0
    assert schedule.cut == 0.5, "the first score was no improvement, the others were"


def test_a_warm_up_of_the_whole_run_is_said(tmp_path: Path) -> None:
    for warmup, said in ((2, False), (3, True), (9, True)):
        flags = ("--trainer.max_steps=3", "--optim.schedule=constant", f"--optim.warmup_steps={warmup}")
        ran = fit_toy("--runs", tmp_path, f"--name={warmup}", *flags)
        assert ran.status == 0, ran
        assert (f"optim.warmup_steps is {warmup}, the whole run has 3 step(s)" in ran.err) == said, ran.err


def test_patience_before_a_validation_loses_nothing(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--patience=2", "--trainer.max_steps=3")
    assert ran.status == 0, ran.err
    assert (tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt").is_file()


def test_patience_without_validations_is_refused(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--patience=2", "--trainer.limit_val_batches=0")
    assert_one_line(ran, 2, "patience is 2, which has no effect", "trainer.limit_val_batches")


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_equal_scores_the_newer_checkpoint_is_the_best(mode: str, tmp_path: Path) -> None:
    """A metric may stay at its worst for long, and the first checkpoint is no better than the last."""
    sign = 1.0 if mode == "max" else -1.0
    checkpoints = RunCheckpoints(tmp_path, record={}, policy=CheckpointPolicy(keep_best=2))
    scores = [0.0, 0.0, 1.0, 0.0, math.nan, 1.0, 0.5]
    found = [checkpoints._judge(sign * score, step, mode) for step, score in enumerate(scores)]
    assert [top for top, _ in found] == [True, True, True, False, False, True, False]
    assert [step for _, step in checkpoints.best] == [5, 2]


@pytest.mark.parametrize(
    ("mode", "scores", "stops"),
    [
        ("max", [0, 0, 0, 0], None),
        ("max", [0, 0, 0, 1, 0, 0], 5),
        ("max", [0, 0, 2, 1, 3, 1, 1], 6),
        ("max", [1, 1, 1], 2),
        ("max", [0, math.nan], 1),
        ("min", [0, 0, 0], 2),
    ],
)
def test_patience_begins_to_count_above_zero_where_higher_is_better(
    mode: str, scores: list[float], stops: int | None
) -> None:
    stopping = EarlyStopping("score", mode=mode, patience=2)
    found = []
    for score in scores:
        found.append(stopping._evaluate_stopping_criteria(torch.tensor(float(score)))[0])
        again = EarlyStopping("score", mode=mode, patience=2)  # a run may go on from each of them
        again.load_state_dict(stopping.state_dict())
        stopping = again
    assert found == [place == stops for place in range(len(scores))]


def test_patience_has_the_state_of_checkpoints_from_before() -> None:
    key = "EarlyStopping{'monitor': 'val/loss', 'mode': 'min'}"
    assert EarlyStopping("val/loss", mode="min").state_key == key


@pytest.mark.parametrize(
    ("score", "best", "mode", "waits"),
    [
        (0.0, None, "max", True),
        (0.0, -math.inf, "max", True),
        (0.0, 0.0, "max", True),
        (0.0, 0.3, "max", False),
        (0.0, -0.5, "max", False),  # of a figure that can be negative 0 is a score like any other
        (0.1, None, "max", False),
        (0.0, None, "min", False),
        (math.nan, None, "max", False),
    ],
)
def test_a_model_that_has_not_begun_to_score(score: float, best: float | None, mode: str, waits: bool) -> None:
    assert has_not_begun(score, best, mode) == waits
