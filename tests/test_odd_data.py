"""Data that changed after training: what evaluate, --resume and crossvalidate refuse, accept and report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.checkpoint import RECORD_KEY, read, write
from suite.trained_data import DATA_KEY
from tests import toy
from tests.commands import QUIET, TOY_CONFIGS, Ran, assert_one_line, fit_toy, run
from tests.toy.data import Sines

GREW = Path(__file__).parent / "odd_inputs" / "data-grew"
SIZES = ("--model.embedding_size", 8, "--model.encoder.hidden_size", 8, "--trainer.max_epochs", 1, "--threads", 1)
FILES = ("--domain", "text", *QUIET, *SIZES, "--data.dataset", "files")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table, and the runs of a model that was trained on it."""
    folder = tmp_path_factory.mktemp("grew")
    shutil.copyfile(GREW / "noise1.csv", folder / "table.csv")
    own = ("--data.train", folder / "table.csv", "--data.held_out", 0.2, "--runs", folder / "runs", "--name", "run")
    ran = run("fit", *FILES, *own)
    assert ran.status == 0, ran.err
    return folder


def rows_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def put(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def evaluate(folder: Path, *flags: Any) -> Ran:
    return run("evaluate", "--checkpoint", folder / "runs" / "text" / "run", *flags)


def negated(rows: list[str]) -> list[str]:
    return [rows[0], *(f"{row[:-1]}{1 - int(row[-1])}" for row in rows[1:])]


def test_a_checkpoint_holds_the_rows_of_each_split(trained: Path) -> None:
    record = read(trained / "runs" / "text" / "run" / "checkpoints" / "last.ckpt")[RECORD_KEY]
    splits = record[DATA_KEY]["splits"]
    assert {name: split["count"] for name, split in splits.items()} == {"train": 120, "val": 40, "test": 40}
    assert all(split["rows"].dtype == torch.int64 for split in splits.values())
    assert len(torch.cat([split["rows"] for split in splits.values()]).unique()) == 200


def test_a_grown_table_is_refused_for_a_held_out_split(trained: Path) -> None:
    ran = evaluate(trained, "--data.train", GREW / "noise2.csv")
    assert_one_line(ran, 1, "5 rows added, 0 rows removed", "26 of its 41 examples were training", "--data.test FILE")


def test_another_file_is_evaluated_and_its_training_rows_are_counted(trained: Path) -> None:
    ran = evaluate(trained, "--data.test", GREW / "noise2.csv")
    assert ran.status == 0, ran.err
    assert "test: 205 examples\n120 of 205 test examples were training examples of this checkpoint\n" in ran.out
    new = put(trained / "new.csv", [rows_of(GREW / "noise2.csv")[0], *rows_of(GREW / "noise2.csv")[-5:]])
    ran = evaluate(trained, "--data.test", new)
    assert "0 of 5 test examples were training examples of this checkpoint" in ran.out, ran


@pytest.mark.parametrize(
    ("split", "count"), [("test", None), ("val", None), ("train", "120 of 120 train"), ("all", "120 of 200")]
)
def test_the_same_data_are_accepted(split: str, count: str | None, trained: Path) -> None:
    ran = evaluate(trained, "--data.split", split)
    assert ran.status == 0, ran.err
    assert (f"{count} examples were training examples of this checkpoint" in ran.out) if count else True
    assert ("were training" in ran.out) == (count is not None)


def test_a_moved_table_is_accepted(trained: Path, tmp_path: Path) -> None:
    ran = evaluate(trained, "--data.train", shutil.copyfile(trained / "table.csv", tmp_path / "moved.csv"))
    assert ran.status == 0, ran.err
    assert "test: 40 examples" in ran.out


@pytest.mark.parametrize("split", ["test", "val", "train", "all"])
@pytest.mark.parametrize("change", ["grown", "labels", "shorter", "reordered"])
def test_a_table_that_was_overwritten_is_refused(change: str, split: str, trained: Path) -> None:
    before = rows_of(trained / "table.csv")
    changed, said = {
        "grown": (rows_of(GREW / "noise2.csv"), "5 rows added, 0 rows removed"),
        "labels": (negated(before), "200 rows added, 200 rows removed"),
        "shorter": (before[:-3], "0 rows added, 3 rows removed"),
        "reordered": ([before[0], *before[:0:-1]], "the same rows in another order"),
    }[change]
    try:
        ran = evaluate(trained, "--data.split", split) if put(trained / "table.csv", changed) else None
        assert ran is not None
        if (change, split) == ("reordered", "all"):  # nothing is drawn, and no metric depends on the order
            assert ran.status == 0, ran.err
            return
        assert_one_line(ran, 1, f"the {split} data changed since training", said, "--data.test FILE")
    finally:
        put(trained / "table.csv", before)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_source_that_changed_elsewhere_is_refused(split: str, trained: Path) -> None:
    """The held-out rows are the same; the file that they are drawn from is not."""
    before = rows_of(trained / "table.csv")
    assert evaluate(trained).status == 0
    held = run("evaluate", "--checkpoint", trained / "runs" / "text" / "run", "--output", trained / "held.jsonl")
    assert held.status == 0, held.err
    tested = {json.loads(line)["input"] for line in (trained / "held.jsonl").read_text().splitlines()}
    place = next(index for index, row in enumerate(before) if index and row.rsplit(",", 1)[0] not in tested)
    text, label = before[place].rsplit(",", 1)
    try:
        put(trained / "table.csv", [*before[:place], f"{text} again,{label}", *before[place + 1 :]])
        ran = evaluate(trained, "--data.split", split)
        assert_one_line(
            ran, 1, f"{split} data changed since training", "1 row added, 1 row removed", "--data.test FILE"
        )
    finally:
        put(trained / "table.csv", before)


def test_a_given_test_file(trained: Path, tmp_path: Path) -> None:
    """Its order does not matter; its content does, unless the command line names it again."""
    rows = rows_of(GREW / "noise1.csv")
    table, test = put(tmp_path / "train.csv", rows[:150]), put(tmp_path / "test.csv", [rows[0], *rows[150:]])
    own = ("--data.train", table, "--data.test", test, "--runs", tmp_path / "runs", "--name", "run")
    assert run("fit", *FILES, *own).status == 0
    put(test, [rows[0], *rows[:149:-1]])
    ran = evaluate(tmp_path)
    assert ran.status == 0
    assert "test has the rows of training in another order, which changes no metric" in ran.err
    put(test, [rows[0], rows[1], *rows[151:]])
    assert_one_line(evaluate(tmp_path), 1, "1 row added, 1 row removed", "1 of its 51 examples were training")
    ran = evaluate(tmp_path, "--data.test", test)
    assert "1 of 51 test examples were training examples of this checkpoint" in ran.out, ran
    resume = run("fit", *FILES, *own[:4], "--resume", tmp_path / "runs" / "text" / "run", "--trainer.max_epochs", 2)
    assert_one_line(resume, 1, "the data are not what this run began with (test: 1 row added, 1 row removed)")
    test.unlink()
    resume = run("fit", *FILES, *own[:4], "--resume", tmp_path / "runs" / "text" / "run", "--trainer.max_epochs", 2)
    assert_one_line(resume, 1, str(test), "no such file")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_resume_refuses_a_split_that_was_replaced(split: str, tmp_path: Path) -> None:
    rows = rows_of(GREW / "noise1.csv")
    parts = {"train": rows[1:121], "val": rows[121:161], "test": rows[161:]}
    files = {name: put(tmp_path / f"{name}.csv", [rows[0], *part]) for name, part in parts.items()}
    own = [part for name, file in files.items() for part in (f"--data.{name}", file)]
    assert run("fit", *FILES, *own, "--runs", tmp_path / "runs", "--name", "run").status == 0
    put(files[split], [rows[0], *negated([rows[0], *parts[split]])[1:]])
    again = ("--domain", "text", "--resume", tmp_path / "runs" / "text" / "run", "--trainer.max_epochs", 2)
    count = len(parts[split])
    said = f"({split}: {count} rows added, {count} rows removed)"
    refused = run("fit", *again)
    assert refused.status == 1
    assert f"the data are not what this run began with {said}" in refused.err.splitlines()[-1]
    put(files[split], [rows[0], *parts[split]])
    assert run("fit", *again).status == 0


def test_other_columns_are_named(trained: Path) -> None:
    rows = [row.partition(",") for row in rows_of(trained / "table.csv")]
    wide = put(trained / "wide.csv", [f"{text},{text[:4]},{label}" for text, _, label in rows][1:])
    put(wide, ["text,short,label", *rows_of(wide)])
    ran = evaluate(trained, "--data.train", wide)
    assert ran.status == 0, ran.err
    ran = evaluate(trained, "--data.train", wide, "--data.text_columns", '["short"]')
    assert_one_line(ran, 1, "data.text_columns (was ['text'], now ['short'])")


def test_a_checkpoint_without_fingerprints_is_evaluated(trained: Path, tmp_path: Path) -> None:
    checkpoint = read(trained / "runs" / "text" / "run" / "checkpoints" / "last.ckpt")
    del checkpoint[RECORD_KEY][DATA_KEY]
    write(checkpoint, tmp_path / "old.ckpt")
    ran = run("evaluate", "--checkpoint", tmp_path / "old.ckpt")
    assert ran.status == 0
    assert "an earlier version wrote this checkpoint without a fingerprint of its data" in ran.err


def test_a_domain_without_fingerprints_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that change under the same lengths are noticed in every split, by evaluate and by --resume."""
    assert fit_toy("--runs", tmp_path, "--name", "run").status == 0
    checkpoint = ("evaluate", "--checkpoint", tmp_path / "toy" / "run")
    assert run(*checkpoint, application=toy, configs=TOY_CONFIGS).status == 0
    make = Sines.__init__

    def negative(self: Sines, size: int, *, seed: int, noise: float) -> None:
        make(self, size, seed=seed, noise=noise)
        self.curves = [-3 * curve for curve in self.curves]

    monkeypatch.setattr(Sines, "__init__", negative)
    ran = run(*checkpoint, application=toy, configs=TOY_CONFIGS)
    assert_one_line(ran, 1, "the test data changed since training", "91 examples added, 91 examples removed")
    ran = fit_toy("--runs", tmp_path, "--resume", tmp_path / "toy" / "run", "--trainer.max_epochs", 2)
    assert_one_line(ran, 1, *(f"{name}: {count} examples added" for name, count in (("train", 61), ("val", 15))))


def test_crossvalidate_refuses_a_table_that_changed(tmp_path: Path) -> None:
    rows = rows_of(GREW / "noise1.csv")
    table = put(tmp_path / "table.csv", rows)
    flags = [*FILES, "--data.train", table, "--runs", tmp_path, "--folds", 2, "--name", "cv"]
    assert run("crossvalidate", *flags).status == 0
    path = tmp_path / "text" / "cv.folds.json"
    content = json.loads(path.read_text())
    figures = content["folds"].pop()["figures"]
    path.write_text(json.dumps(content))
    for changed, said in ((rows_of(GREW / "noise2.csv"), "5 rows added"), ([rows[0], *rows[:0:-1]], "another order")):
        put(table, changed)
        ran = run("crossvalidate", *flags)
        assert ran.status == 1
        assert f"the data changed since fold 0 was trained ({said}" in ran.err or said in ran.err
    put(table, rows)
    other_order = [*flags[:2], *flags[-2:], "--data.num_workers", 0, *flags[2:-2]]
    ran = run("crossvalidate", *other_order)
    assert ran.status == 0, ran.err
    assert json.loads(path.read_text())["folds"][1]["figures"] == figures


def test_an_average_and_a_fine_tuned_model_know_their_data(trained: Path, tmp_path: Path) -> None:
    def lines(first: int, last: int) -> str:
        return "".join(f"line {number} of some text\n" for number in range(first, last))

    task = ("--domain", "text", "--task", "language_model", *QUIET, "--data.dataset", "files", "--runs", tmp_path)
    sizes = (*SIZES, "--data.vocabulary.size", 100)
    (tmp_path / "a.txt").write_text(lines(0, 100))
    (tmp_path / "b.txt").write_text(lines(95, 200))
    own = ("--data.train", tmp_path / "a.txt", "--name", "a", "--keep_last", 2, "--trainer.max_epochs", 2)
    assert run("fit", *task, *sizes, *own).status == 0
    assert run("average", tmp_path / "text" / "a", "--last", 2, "--output", tmp_path / "mean.ckpt").status == 0
    given = ("--data.test", tmp_path / "a.txt")
    ran = run("evaluate", "--checkpoint", tmp_path / "mean.ckpt", *given)
    assert "90 of 100 test passages were training passages of this checkpoint" in ran.out, ran
    tuned = ("--source", tmp_path / "text" / "a", "--data.train", tmp_path / "b.txt", "--name", "b")
    assert run("finetune", *task, *sizes, *tuned).status == 0
    ran = run("evaluate", "--checkpoint", tmp_path / "text" / "b", *given)
    assert "90 of 100 test passages were training passages of the source that it was fine-tuned from" in ran.out, ran
    (tmp_path / "a.txt").write_text(lines(1, 100))
    ran = run("evaluate", "--checkpoint", tmp_path / "mean.ckpt")
    assert ran.status == 1
    assert "0 passages added, 1 passage removed" in ran.err
