"""``compare``: a run for each value, all else alike, and a table of their figures."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from suite.closing import Outcome
from suite.comparison import table
from tests import toy
from tests.commands import QUIET, TOY_CONFIGS, Ran, assert_one_line, run


def compare(*argv: object) -> Ran:
    common = ("--domain", "toy", *QUIET, "--trainer.max_epochs", 1)
    return run("compare", *common, *argv, application=toy, configs=TOY_CONFIGS)


def test_a_run_for_each_value_and_one_table(tmp_path: Path) -> None:
    values = ("--setting", "model.hidden_size", "--values", 3, 5)
    ran = compare(*values, "--runs", tmp_path, "--name", "x", "--model.dropout", "0")
    assert ran.status == 0, ran.err
    sizes = {}
    for value in (3, 5):
        settings = yaml.safe_load((tmp_path / "toy" / f"x-{value}" / "config.yaml").read_text())
        sizes[settings["model"].pop("hidden_size")] = settings
    assert set(sizes) == {3, 5}
    assert sizes[3] == sizes[5]
    assert sizes[3]["model"]["dropout"] == 0
    *rows, empty, how = ran.lines[-6:]
    assert rows[0] == "| model.hidden_size | val/loss | val/error | test/loss | test/error |"
    assert (empty, how) == ("", "Ranked by validation: val/loss, lower is better.")
    printed = dict(zip("35", [line.split()[-1] for line in ran.lines if line.startswith("  loss")], strict=True))
    for row in rows[2:]:
        size, *numbers = row.strip("| ").split(" | ")
        best = torch.load(tmp_path / "toy" / f"x-{size}" / "checkpoints" / "best.ckpt", weights_only=True)
        validation = best["suite"]["validation"]
        assert numbers[:2] == [f"{validation[name]:.4f}" for name in ("val/loss", "val/error")]
        assert best["suite"]["monitored"]["value"] == validation["val/loss"]
        assert numbers[2] == printed[size]
    losses = [float(row.split(" | ")[1]) for row in rows[2:]]
    assert losses == sorted(losses)


def outcome(
    score: float, mode: str, *, name: str = "val/score", test: float = 0.5, partial: str | None = None
) -> Outcome:
    found = Outcome({"score": test}, [], None)
    found.take_validation({"monitored": {"name": name, "mode": mode, "value": score}, "validation": {name: score}})
    found.partial = partial
    return found


@pytest.mark.parametrize(("mode", "order"), [("min", "bca"), ("max", "cba")])
def test_rows_are_ranked_by_validation_and_not_by_test(mode: str, order: str) -> None:
    found = {"a": outcome(math.nan, mode, test=1), "b": outcome(1.0, mode, test=0), "c": outcome(2.0, mode, test=0)}
    lines = table("x", found)
    assert lines[0] == "| x | val/score | test/score |"
    assert "".join(line[2] for line in lines[2:5]) == order
    direction = "lower" if mode == "min" else "higher"
    assert lines[-1] == f"Ranked by validation: val/score, {direction} is better. Without a score, so last: a."


def test_a_run_without_validation_is_last_and_different_metrics_are_not_ranked() -> None:
    none = Outcome({"score": 1.0}, [], None)
    lines = table("x", {"a": none, "b": outcome(1.0, "max")})
    assert lines[2:4] == ["| b | 1.0000 | 0.5000 |", "| a | none | 1.0000 |"]
    assert table("x", {"a": none, "b": none})[-1] == "Not ranked: the runs have no validation."
    mixed = table("x", {"a": outcome(1.0, "min", name="val/loss"), "b": outcome(1.0, "max")})
    assert mixed[2][:3] == "| a"
    assert mixed[-1] == "Not ranked: the runs are judged by different metrics: val/loss, val/score."


def test_a_partial_test_is_labelled_in_its_row() -> None:
    label = "partial: 3 of 40 test batches (--trainer.limit_test_batches 3)"
    lines = table("x", {"a": outcome(1.0, "min", partial=label), "b": outcome(2.0, "min")})
    assert lines[0] == "| x | val/score | test/score | test data |"
    assert lines[2] == f"| a | 1.0000 | 0.5000 | {label} |"
    assert lines[3] == "| b | 2.0000 | 0.5000 | all |"


def test_a_checkpoint_of_an_earlier_version_has_its_monitored_metric() -> None:
    found = Outcome({}, [], None)
    found.take_validation({"monitored": {"name": "val/loss", "mode": "min", "value": 0.5}})
    assert (found.validation, found.score) == ({"val/loss": 0.5}, 0.5)
    without = Outcome({}, [], None)
    without.take_validation({"monitored": {"name": "val/loss", "mode": "min", "value": None}})
    assert without.validation == {}
    assert math.isnan(without.score)


def test_the_number_of_threads_can_be_what_differs(tmp_path: Path) -> None:
    ran = compare("--setting", "threads", "--values", 1, 2, "--runs", tmp_path, "--name", "x")
    torch.set_num_threads(1)
    assert ran.status == 0, ran.err
    paths = [tmp_path / "toy" / f"x-{value}" / "config.yaml" for value in (1, 2)]
    assert [yaml.safe_load(path.read_text())["threads"] for path in paths] == [1, 2]


def test_wrong_words_are_one_line(tmp_path: Path) -> None:
    assert_one_line(compare("--setting", "model.hidden_size", "--values", 3), 2, "two or more values")
    assert_one_line(compare("--values", 3, 4), 2, "needs a setting")
    both = ("--setting", "model.hidden_size", "--values", 3, 4, "--model.hidden_size=7")
    assert_one_line(compare(*both), 2, "--model.hidden_size", "leave it out")
    several = ("--setting", "model.hidden_size", "--values", 3, 4, "--trainer.devices", 2)
    assert_one_line(compare(*several), 2, "trainer.devices is 2", "one process", "use 1")
    ran = compare("--setting", "model.hiden", "--values", 3, 4, "--runs", tmp_path)
    assert ran.status == 2
    assert "did you mean --model.hidden_size" in ran.err
    (tmp_path / "toy" / "x-4").mkdir(parents=True)
    there = compare("--setting", "model.hidden_size", "--values", 3, 4, "--runs", tmp_path, "--name", "x")
    assert_one_line(there, 2, "x-4")
    assert not (tmp_path / "toy" / "x-3").exists(), "nothing was trained before it was said"
    for values in ((3, 3, 4), ("a/b", "a-b")):
        same = compare("--setting", "model.hidden_size", "--values", *values, "--runs", tmp_path, "--name", "y")
        assert_one_line(same, 2, "two of them are the same or would name the same run")
    assert compare("--help").out.startswith("usage: compare.py")
