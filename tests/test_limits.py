"""A test or a validation of part of its split is labelled wherever its metrics appear."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from suite.limits import partial_label
from tests.commands import QUIET, fit_toy, run

LABEL = "partial: 1 of 2 test batches (--trainer.limit_test_batches {})"


class _Data:
    def test_dataloader(self) -> list[int]:
        return [0] * 40

    val_dataloader = test_dataloader


class _Trainer:
    def __init__(self, limit: float, world_size: int = 1) -> None:
        self.limit_test_batches = self.limit_val_batches = limit
        self.world_size = world_size


@pytest.mark.parametrize(
    ("limit", "used"), [(1.0, None), (1, 1), (3, 3), (40, None), (41, None), (0.5, 20), (0.99, 39), (0, 0), (0.0, 0)]
)
def test_what_is_partial(limit: float, used: int | None) -> None:
    found = partial_label(_Trainer(limit), _Data(), "test")  # type: ignore[arg-type]
    expected = f"partial: {used} of 40 test batches (--trainer.limit_test_batches {limit:g})"
    assert found == (None if used is None else expected)


def test_of_several_processes_the_label_says_so_and_validation_is_named() -> None:
    found = partial_label(_Trainer(3, world_size=2), _Data(), "val")  # type: ignore[arg-type]
    assert found == "partial: 3 of 40 validation batches in each process (--trainer.limit_val_batches 3)"


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("limit", ["1", "0.5"])
def test_fit_labels_a_partial_test(limit: str, tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", f"--trainer.limit_test_batches={limit}")
    assert ran.status == 0, ran.err
    assert f"Test ({LABEL.format(limit)})" in ran.lines
    shares = [row["test/share_of_batches"] for row in metrics(tmp_path / "toy" / "a") if row["test/loss"]]
    assert shares == ["0.5"]


def test_fit_labels_nothing_that_is_whole(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.limit_test_batches=2", "--trainer.limit_val_batches=1.0")
    assert ran.status == 0, ran.err
    assert "Test" in ran.lines
    assert "partial:" not in ran.out + ran.err
    assert "test/share_of_batches" not in metrics(tmp_path / "toy" / "a")[0]


def test_a_partial_validation_is_reported(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name=a", "--trainer.limit_val_batches=1")
    assert "validation is partial: 1 of 2 validation batches (--trainer.limit_val_batches 1)" in ran.err
    assert "partial:" not in ran.out


def test_crossvalidate_labels_each_fold(tmp_path: Path) -> None:
    flags: tuple[Any, ...] = (
        *("--domain", "text", "--runs", tmp_path, "--name", "cv", "--folds", 2, *QUIET, "--data.dataset", "sample"),
        *("--trainer.max_steps", 1, "--trainer.limit_test_batches", 1, "--trainer.limit_val_batches", 1),
        *("--data.batch_size", 8, "--samples", 0, "--threads", 1),
    )
    ran = run("crossvalidate", *flags)
    assert ran.status == 0, ran.err
    folds = json.loads((tmp_path / "text" / "cv.folds.json").read_text())["folds"]
    for number, fold in enumerate(folds):
        assert fold["partial"].startswith("partial: 1 of ")
        assert f"fold {number} is {fold['partial']}" in ran.lines
