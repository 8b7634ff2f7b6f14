"""A run a fold, their figures put together, and going on after a stop."""

import json
import math
import statistics
from pathlib import Path

import pytest

from domains.text import sample
from suite.crossvalidation import summarise, table
from tests.commands import QUIET, assert_one_line, fit_toy, run

SMALL = (
    *("--domain", "text", "--tracking.mode", "disabled", "--data.sample_size", 90, "--trainer.max_epochs", 1),
    *("--model.embedding_size", 8, "--model.encoder.hidden_size", 8, "--data.batch_size", 16),
)


def test_three_folds(tmp_path: Path) -> None:
    ran = run("crossvalidate", *SMALL, "--folds", 3, "--name", "cv", "--runs", tmp_path)
    assert ran.status == 0, ran.err
    content = json.loads((tmp_path / "text" / "cv.folds.json").read_text())
    assert [each["run"] for each in content["folds"]] == ["cv-fold0", "cv-fold1", "cv-fold2"]
    accuracies = [each["figures"]["accuracy"] for each in content["folds"]]
    assert content["summary"]["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
    assert content["summary"]["accuracy"]["deviation"] == pytest.approx(statistics.stdev(accuracies))
    mean = next(line for line in ran.lines if line.startswith("| mean |"))
    assert f"{statistics.fmean(accuracies):.4f}" in mean
    # Every example is tested once, and a fold is a run like any other.
    texts = []
    for fold in range(3):
        output = tmp_path / f"{fold}.jsonl"
        evaluated = run("evaluate", "--checkpoint", tmp_path / "text" / f"cv-fold{fold}", "--output", output)
        assert evaluated.status == 0, evaluated.err
        results = [json.loads(line) for line in output.read_text().splitlines()]
        texts += [each["input"] for each in results]
        right = sum(each["label"] == each["target"] for each in results) / len(results)
        assert right == pytest.approx(accuracies[fold], abs=1e-6)
    assert len(texts) == len(set(texts)) == 90


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = run("crossvalidate", *SMALL, "--folds", 2, "--name", "whole", "--runs", tmp_path)
    first = run("crossvalidate", *SMALL, "--folds", 2, "--name", "cut", "--runs", tmp_path)
    assert whole.status == first.status == 0, (whole.err, first.err)
    path = tmp_path / "text" / "cut.folds.json"
    content = json.loads(path.read_text())
    done = content["folds"].pop()  # as if stopped after the second fold's last checkpoint
    path.write_text(json.dumps(content))
    again = run("crossvalidate", *SMALL, "--folds", 2, "--name", "cut", "--runs", tmp_path)
    assert again.status == 0, again.err
    assert "1 fold(s) are done" in again.err
    assert json.loads(path.read_text())["folds"][1]["figures"] == done["figures"]
    other = run("crossvalidate", *SMALL, "--folds", 2, "--name", "cut", "--runs", tmp_path, "--optim.lr", 0.1)
    assert_one_line(other, 2, "has results of", "choose another --name")


def test_summary_and_table() -> None:
    rows = [{"a": 1.0, "b": 4.0}, {"a": 3.0}, {"a": 5.0, "b": 0.0}]
    assert summarise(rows) == {"a": (3.0, 2.0)}
    assert summarise(rows[:1]) == {"a": (1.0, 0.0), "b": (4.0, 0.0)}
    assert table(rows)[-2:] == ["| mean | 3.0000 |", "| deviation | 2.0000 |"]


def test_a_figure_that_is_no_number_ends_nothing() -> None:
    rows = [{"a": 1.0, "b": 1.0}, {"a": math.nan, "b": math.inf}, {"a": 2.0, "b": 1.0}]
    summary = summarise(rows)
    assert all(map(math.isnan, (*summary["a"], summary["b"][1])))
    assert summary["b"][0] == math.inf
    assert table(rows)[-2:] == ["| mean | nan | inf |", "| deviation | nan | nan |"]


def test_a_model_of_a_fold_is_evaluated_on_other_data_as_it_stands(tmp_path: Path) -> None:
    """A fold is one of the data that it was cut from, and no other."""
    rows = "".join(f"good word{number},positive\nbad word{number},negative\n" for number in range(10))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    (tmp_path / "new.csv").write_text("text,label\nword1 good,positive\nword2 bad,negative\nbad,negative\n")
    own = ("--data.dataset", "files", "--data.train", tmp_path / "rows.csv", "--data.folds", 2, "--data.fold", 1)
    sizes = ("--model.embedding_size", 8, "--model.encoder.hidden_size", 8, "--trainer.max_epochs", 1)
    ran = run("fit", "--domain", "text", *QUIET, *sizes, *own, "--runs", tmp_path, "--name", "fold")
    assert ran.status == 0, ran.err
    checkpoint = ("--checkpoint", tmp_path / "text" / "fold")
    assert "test: 10 examples" in run("evaluate", *checkpoint).out
    given = ("--data.test", tmp_path / "new.csv")
    assert "test: 3 examples" in run("evaluate", *checkpoint, *given).out
    refused = run("evaluate", *checkpoint, *given, "--data.split", "val")
    assert_one_line(refused, 2)
    assert "data.test is given, and val was part of a fold" in refused.err
    other = run("evaluate", *checkpoint, "--data.dataset", "sample", "--data.train", "null")
    assert f"test: {len(sample.generate('test')):,} examples" in other.out, other


def test_errors(tmp_path: Path) -> None:
    common = ("--domain", "text", "--runs", tmp_path)
    assert_one_line(run("crossvalidate", *common, "--folds", 1), 2, "--folds is 1", "2 or more")
    assert_one_line(run("crossvalidate", *common, "--folds", "x"), 2, "--folds")
    assert_one_line(run("crossvalidate", *common, "--data.fold", 2), 2, "--data.fold", "leave it out")
    assert_one_line(run("crossvalidate", *common, "--resume=auto"), 2, "--resume", "leave it out")
    assert_one_line(run("crossvalidate", *common, "--trainer.devices", 2), 2, "one process")
    assert_one_line(run("crossvalidate", "--domain", "translation", "--runs", tmp_path), 2, "has no folds")
    assert_one_line(run("crossvalidate", *common, "--model.hidden", 2), 2, "model.hidden")
    few = run("crossvalidate", *common, "--data.sample_size", 2, "--folds", 9)
    assert few.status == 1
    assert few.err.endswith("2 examples cannot be dealt out to 9 folds: use fewer folds\n")
    assert run("crossvalidate", *common, "--help").status == 0


def test_a_run_without_a_checkpoint_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "text" / "x-fold0").mkdir(parents=True)
    ran = run("crossvalidate", *SMALL, "--name", "x", "--runs", tmp_path)
    assert ran.status == 2
    assert "x-fold0: this run exists without a checkpoint" in ran.err


def test_fit_gives_its_figures_and_prints_them(tmp_path: Path) -> None:
    assert fit_toy("--runs", tmp_path).status == 0
