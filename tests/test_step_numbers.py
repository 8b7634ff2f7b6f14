"""One count everywhere: a step's number is that of optimiser steps done, in metrics, W&B, samples and checkpoints."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from suite import checkpoint, run_lock
from suite.wandb_logger import STEP, WandbTracker
from tests.commands import fit_toy, with_callback
from tests.forked import in_processes
from tests.toy.model import SineModule


class FakeRun:
    """What a W&B run is sent."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def log(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def finish(self, **how: Any) -> None:
        pass

    def steps_of(self, key: str) -> list[int]:
        return [line[STEP] for line in self.lines if key in line]


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()
    monkeypatch.setattr(WandbTracker, "_start", lambda self: run)
    monkeypatch.setattr(SineModule, "sample_table", lambda self, batch: (["number"], [[1]]))
    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(folder: Path, key: str) -> list[int]:
    return [int(row["step"]) for row in rows(folder) if row.get(key)]


@pytest.mark.parametrize(
    ("flags", "steps", "validated"),
    [
        ((), 16, [8, 16]),
        (("--trainer.val_check_interval=0.5",), 16, [4, 8, 12, 16]),
        # Eight batches are three steps; half of an epoch is inside the second.
        (("--trainer.accumulate_grad_batches=3", "--trainer.val_check_interval=0.5"), 6, [1, 3, 4, 6]),
        (("--trainer.accumulate_grad_batches=3", "--trainer.max_steps=5"), 5, [3]),
    ],
)
def test_all_count_optimiser_steps(
    flags: tuple[str, ...], steps: int, validated: list[int], tracked: FakeRun, tmp_path: Path
) -> None:
    common = ("--runs", tmp_path, "--name=a", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1")
    ran = fit_toy(*common, "--tracking.mode=offline", "--checkpoint_every=1", "--keep_last=99", *flags)
    assert ran.status == 0, ran.err
    folder = tmp_path / "toy" / "a"
    assert steps_of(folder, "train/loss") == tracked.steps_of("train/loss") == list(range(1, steps + 1))
    assert steps_of(folder, "val/loss") == tracked.steps_of("val/loss") == validated
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [f"step-{n:07d}.jsonl" for n in validated]
    assert tracked.steps_of("samples/table") == validated
    named = sorted((folder / "checkpoints").glob("step-*.ckpt"))
    assert [path.name for path in named] == [f"step-{n:07d}.ckpt" for n in range(1, steps + 1)]
    assert [checkpoint.place_of(path).step for path in named] == list(range(1, steps + 1))
    assert steps_of(folder, "test/loss") == tracked.steps_of("test/loss") == [steps]
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    score = {int(row["step"]): float(row["val/loss"]) for row in rows(folder) if row["val/loss"]}
    assert score[best["global_step"]] == pytest.approx(min(score.values()))


def test_a_partial_test_is_labelled_in_the_tracker(tracked: FakeRun, tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--tracking.mode=offline", "--trainer.limit_test_batches=1")
    assert ran.status == 0, ran.err
    assert tracked.summary["test/partial"] == "partial: 1 of 2 test batches (--trainer.limit_test_batches 1)"
    assert [line["test/share_of_batches"] for line in tracked.lines if "test/share_of_batches" in line] == [0.5]


def test_what_a_callback_logs_by_lightning_has_the_same_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Logs(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            module.log("mine", float(trainer.global_step), on_step=True, on_epoch=False, batch_size=1)

    with_callback(monkeypatch, Logs())
    assert fit_toy("--runs", tmp_path, "--name=a", "--trainer.log_every_n_steps=1").status == 0
    found = [(float(row["step"]), float(row["mine"])) for row in rows(tmp_path / "toy" / "a") if row["mine"]]
    assert found == [(step, step) for step in range(1, 9)]


def as_of_earlier_version(folder: Path) -> None:
    """Turn a killed run into one of the earlier version: no mark in its checkpoints, rows numbered one lower."""
    for path in (folder / "checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        for name in (checkpoint.STEPS_DONE_KEY, checkpoint.SAVED_AT_KEY, "validation"):
            content["suite"].pop(name, None)
        checkpoint.write(content, path)
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    (folder / "metrics.csv").write_text(
        "\n".join([header, *(",".join([str(int(row[0]) - 1), *row[1:]]) for row in cells)]) + "\n"
    )


def values(folder: Path, key: str) -> list[str]:
    return [row[key] for row in rows(folder) if row.get(key)]


def test_a_run_of_an_earlier_version_keeps_each_row_once(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--trainer.log_every_n_steps=1"]
    flags += ["--checkpoint_every=4", "--trainer.max_epochs=3", "--samples=0"]
    assert in_processes("never", [*flags, "--name=whole"])[0].status == 0
    assert in_processes("on_train_batch_end:15:SIGKILL", [*flags, "--name=old"])[0].status == -9
    whole, old = tmp_path / "toy" / "whole", tmp_path / "toy" / "old"
    as_of_earlier_version(old)
    (old / run_lock.LOCK).unlink()
    assert steps_of(old, "train/loss") == list(range(14))
    # Killed twice before its first checkpoint, then left alone.
    for moment in ("on_train_batch_end:3:SIGKILL", "on_train_batch_end:2:SIGKILL", "never"):
        ended = in_processes(moment, [*flags, f"--resume={old}"])[0]
        assert ended.status == (0 if moment == "never" else -9), ended.err
        assert "from step 12" in ended.err
        assert "an earlier version numbered the rows up to here one lower" in ended.err
    for key in ("train/loss", "val/loss", "test/loss"):
        assert values(old, key) == values(whole, key), key
    assert steps_of(old, "train/loss") == [*range(12), *range(13, 25)]
    again = in_processes("never", [*flags, f"--resume={old}"])[0]
    assert "earlier version" not in again.err
    assert values(old, "train/loss") == values(whole, "train/loss")
    assert values(old, "test/loss") == values(whole, "test/loss")
