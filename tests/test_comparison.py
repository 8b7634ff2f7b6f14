"""``compare``: a run for each value, all else alike, and a table of their figures."""

from pathlib import Path

import torch
import yaml

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
    rows = ran.lines[-4:]
    assert rows[0] == "| model.hidden_size | loss | error |"
    printed = [line.split()[-1] for line in ran.lines if line.startswith("  loss")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 3", "| 5"]
    assert [row.split(" | ")[1] for row in rows[2:]] == printed


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
    assert compare("--help").out.startswith("usage: compare.py")
