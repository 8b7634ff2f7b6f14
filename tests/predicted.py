"""What the tests of ``predict`` share: small trained models of text, and a command that predicts with one of them."""

from pathlib import Path
from typing import Any

import pytest

from tests.commands import QUIET, Ran, run, shared

SMALL = ("--model.embedding_size", 8, "--model.encoder.hidden_size", 8, "--threads", 1)
GOOD, BAD = "a good, fine film", "a bad, poor film"


def _train(folder: Path) -> None:
    rows = [
        f'r{number},"{BAD if number % 2 else GOOD}",{number % 7},{"neg" if number % 2 else "pos"}'
        for number in range(60)
    ]
    (folder / "train.csv").write_text("\n".join(["key,review,stars,label", *rows]) + "\n", encoding="utf-8")
    common = (*QUIET, *SMALL, "--runs", folder, "--data.vocabulary.size", 100)
    table = ("--data.dataset", "files", "--data.train", folder / "train.csv")
    for ran in (
        run(
            "fit", "--domain", "text", *common, *table, "--name", "classifier", "--trainer.max_epochs", 15,
            *("--data.text_columns", "[review]", "--optim.lr", 0.05, "--optim.warmup_steps", 1),
        ),
        run(
            "fit", "--domain", "text", "--task", "language_model", *common, *table, "--name", "language",
            *("--data.text_column", "review", "--data.vocabulary.level", "char", "--trainer.max_steps", 5),
        ),
    ):  # fmt: skip
        if ran.status:
            pytest.fail(f"a small run on texts failed: {ran.err}")


def texts_run(name: str) -> Path:
    """The run folder of a small ``classifier``, or ``language`` model, of texts."""
    return shared("predicted-texts", _train) / "text" / name


def predict(*argv: Any, name: str = "classifier", stdin: bytes | None = None) -> Ran:
    """``predict`` with one of them."""
    return run("predict", "--checkpoint", texts_run(name), *argv, stdin=stdin)
