"""A run that began before a setting was there goes on: what came later has its default, which is no difference."""

import json
from pathlib import Path

import pytest
import torch

from suite.checkpoint import RECORD_KEY, write
from suite.fitting import _limited
from suite.resume import changes
from tests.commands import assert_one_line, fit_toy, run, trained


def test_a_run_without_a_later_setting_goes_on(tmp_path: Path) -> None:
    place = ("--runs", tmp_path, "--name", "run")
    assert fit_toy(*place).status == 0
    path = tmp_path / "toy" / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint[RECORD_KEY]["settings"]["optim"].pop("recurrent_l1") == 0.0
    write(checkpoint, path)
    resume = ("--runs", tmp_path, "--resume", path, "--trainer.max_epochs", 2)
    assert_one_line(fit_toy(*resume, "--optim.recurrent_l1", 0.5), 2, "optim.recurrent_l1 (was 0.0, now 0.5)")
    assert_one_line(fit_toy(*resume, "--optim.lr", 0.5), 2, "optim.lr (was ")
    settings = checkpoint[RECORD_KEY]["settings"]
    settings["model"]["colour"] = "red"
    write(checkpoint, path)
    assert_one_line(fit_toy(*resume), 1, str(path), "do not fit this version", "colour")
    del settings["model"]["colour"]
    write(checkpoint, path)
    ran = fit_toy(*resume)
    assert ran.status == 0, ran
    assert "Going on with" in ran.err


def test_a_decoding_flag_newer_than_the_checkpoint_works(tmp_path: Path) -> None:
    path = tmp_path / "older.ckpt"
    checkpoint = torch.load(trained() / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint[RECORD_KEY]["settings"]["decoding"].pop("max_length") == 40
    write(checkpoint, path)
    words = ("predict", "--checkpoint", path, "--format", "jsonl", "--beam_size", 1)
    text = b"A dog is sleeping.\n"
    short, usual = run(*words, "--max_length", 1, stdin=text), run(*words, stdin=text)
    assert (short.status, usual.status) == (0, 0), short
    assert json.loads(short.out)["cut"] is True
    assert json.loads(short.out)["translation"] != json.loads(usual.out)["translation"]


@pytest.mark.parametrize("key", ["limit_val_batches", "limit_train_batches", "val_check_interval"])
def test_one_batch_is_not_all_batches(key: str) -> None:
    assert changes({"trainer": {key: 1}}, {"trainer": {key: 1.0}}) == [f"trainer.{key} (was 1, now 1.0)"]
    assert not changes({"trainer": {key: 1}}, {"trainer": {key: 1}})


def test_a_limit_of_one_batch_is_a_limit() -> None:
    assert _limited({"limit_val_batches": 1, "limit_test_batches": 1.0}) == ["val"]
    assert _limited({"limit_val_batches": None, "limit_test_batches": 0.5}) == ["test"]
