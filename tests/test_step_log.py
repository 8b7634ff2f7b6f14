"""Training figures of an interval that a run ends in, and what becomes of them when it goes on."""

from pathlib import Path

import pytest

from tests.commands import fit_toy
from tests.test_callbacks import column, rows

FLAGS = ("--optim.schedule=constant", "--samples=0", "--trainer.max_epochs=9")


def fit(folder: Path, *flags: str) -> list[dict[str, str]]:
    """The rows of the run that the flags make, or go on with, without times, which differ each time."""
    ran = fit_toy("--runs", folder, *FLAGS, *flags)
    assert ran.status == 0, ran.err
    found = rows(folder / "toy" / "a")
    return [{key: value for key, value in row.items() if "per_second" not in key} for row in found]


def test_a_run_shorter_than_an_interval_has_its_training_figures(tmp_path: Path) -> None:
    fit(tmp_path, "--name=a", "--trainer.max_steps=5", "--trainer.log_every_n_steps=50")
    folder = tmp_path / "toy" / "a"
    (last,) = [row for row in rows(folder) if row["train/loss"]]
    assert last["step"] == "5"
    assert last["test/loss"], "beside the figures of the test"
    assert float(last["train/values_per_second"]) > 0
    fit(tmp_path / "each", "--name=a", "--trainer.max_steps=5", "--trainer.log_every_n_steps=1")
    losses = column(tmp_path / "each" / "toy" / "a", "train/loss")
    assert min(losses) < float(last["train/loss"]) < max(losses)


@pytest.mark.parametrize("steps", [6, 7])
def test_complete_intervals_are_as_they_were_and_the_rest_is_a_row_of_its_own(steps: int, tmp_path: Path) -> None:
    found = fit(tmp_path, "--name=a", f"--trainer.max_steps={steps}", "--trainer.log_every_n_steps=3")
    longer = fit(tmp_path / "longer", "--name=a", "--trainer.max_steps=9", "--trainer.log_every_n_steps=3")
    logged = [(row["step"], row["train/loss"]) for row in found if row["train/loss"]]
    assert logged[:2] == [(row["step"], row["train/loss"]) for row in longer if row["train/loss"]][:2]
    assert [step for step, _ in logged] == ["3", "6", "7"][: steps - 4]


def test_a_run_that_goes_on_has_the_whole_interval_instead(tmp_path: Path) -> None:
    common = "--trainer.log_every_n_steps=3"
    whole = fit(tmp_path / "whole", "--name=a", "--trainer.max_steps=10", common)
    first = fit(tmp_path, "--name=a", "--trainer.max_steps=4", common)
    assert [row["step"] for row in first if row["train/loss"]] == ["3", "4"]
    resume = f"--resume={tmp_path / 'toy' / 'a'}"
    again = fit(tmp_path, resume, "--trainer.max_steps=4", common)
    assert [row["train/loss"] for row in again] == [row["train/loss"] for row in first], "with nothing left to train"
    assert fit(tmp_path, resume, "--trainer.max_steps=10", common) == whole
