"""The notice that settings made for the embedded sample apply to a user's own data."""

from pathlib import Path

import pytest

from tests.commands import QUIET, ROOT, run

SIZES = ("--model.embedding_size", 8, "--model.encoder.hidden_size", 8, "--trainer.max_steps", 1)
OWN = ("--domain", "text", *QUIET, *SIZES, "--data.dataset", "files")
NOTICE = "configs/text/default.yaml (tuned for the embedded sample) also applies to data.dataset files"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{word} film number{index},{label}" for index in range(15) for word, label in (("good", 1), ("bad", 0))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


def test_own_data_with_the_defaults(table: Path, tmp_path: Path) -> None:
    ran = run("fit", *OWN, "--data.train", table, "--runs", tmp_path, "--name", "run")
    assert ran.status == 0, ran.err
    assert ran.err.count(NOTICE) == 1
    again = run("fit", "--domain", "text", "--resume", tmp_path / "text" / "run", "--trainer.max_steps", 2)
    assert again.status == 0, again.err
    assert NOTICE not in again.err


def test_own_data_with_a_recipe(table: Path, tmp_path: Path) -> None:
    recipe = ("-c", ROOT / "configs" / "text" / "default.yaml")
    ran = run("fit", *recipe, *OWN, "--data.train", table, "--runs", tmp_path, "--name", "run")
    assert ran.status == 0, ran.err
    assert NOTICE not in ran.err
