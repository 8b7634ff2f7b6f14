"""Checkpoints of the first format, kept as files: every later version has to load them, go on from them and use them.

``toy-format1.ckpt`` is step 6 of ``fit --domain toy --trainer.max_epochs 2 --checkpoint_every 3 --ema_decay 0.9``,
``translation-format1.ckpt`` the end of an epoch on 300 sentences with 8 features everywhere.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from suite.checkpoint import verify
from tests import toy
from tests.commands import TOY_CONFIGS, fit_toy, run
from tests.test_callbacks import column

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("name", ["toy-format1", "translation-format1"])
def test_is_what_was_written(name: str) -> None:
    verify(FIXTURES / f"{name}.ckpt")
    assert torch.load(FIXTURES / f"{name}.ckpt", weights_only=True)["suite"]["format"] == 1


def test_toy_is_evaluated_with_its_moving_average() -> None:
    ran = run("evaluate", "--checkpoint", FIXTURES / "toy-format1.ckpt", application=toy, configs=TOY_CONFIGS)
    assert ran.status == 0, ran.err
    figures = dict(line.split() for line in ran.lines if line.startswith("  "))
    assert float(figures["loss"]) == pytest.approx(0.4793, abs=2e-4)
    assert float(figures["error"]) == pytest.approx(0.6180, abs=2e-4)


def test_toy_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "old"
    (folder / "checkpoints").mkdir(parents=True)
    for suffix in (".ckpt", ".ckpt.sha256"):
        shutil.copyfile(FIXTURES / f"toy-format1{suffix}", folder / "checkpoints" / f"last{suffix}")
    common = ("--resume", folder, "--runs", tmp_path, "--trainer.max_epochs", 2)
    ran = fit_toy(*common)
    assert ran.status == 0, ran.err
    assert "from step 6" in ran.err
    assert column(folder, "val/loss") == pytest.approx([0.46064303, 0.43629588], rel=1e-3)
    assert column(folder, "test/loss") == pytest.approx([0.43774715], rel=1e-3)


def test_translation_predicts() -> None:
    lines = "A dog is sleeping.\nTwo old men see the red car.\n"
    checkpoint = FIXTURES / "translation-format1.ckpt"
    ran = run("predict", "--checkpoint", checkpoint, "--format", "jsonl", stdin=lines.encode())
    assert ran.status == 0, ran.err
    results = [json.loads(line) for line in ran.lines]
    assert [each["source"] for each in results] == lines.split("\n")[:-1]
    assert [each["score"] for each in results] == pytest.approx([-28.4267, -29.2843], abs=0.01)
