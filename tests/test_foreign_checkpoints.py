"""A checkpoint alone is enough, wherever it is; a damaged, dangerous or foreign one is refused in one line."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import ROOT, assert_one_line, run, trained


class Trap:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A checkpoint with its digest, to be damaged."""
    for name in ("best.ckpt", "best.ckpt.sha256"):
        shutil.copyfile(trained() / "checkpoints" / name, tmp_path / name)
    return tmp_path / "best.ckpt"


def test_the_file_alone_is_enough(tmp_path: Path) -> None:
    for name in ("empty", "elsewhere"):
        (tmp_path / name).mkdir()
    alone = tmp_path / "empty" / "model.ckpt"
    shutil.copyfile(trained() / "checkpoints" / "best.ckpt", alone)
    text = "A forest is white.\n\nThe windows are modern."
    expected = run("predict", "--checkpoint", trained(), stdin=text.encode()).out
    environment = {key: value for key, value in os.environ.items() if key not in ("SUITE_DATA_DIR", "WANDB_MODE")}
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "predict.py"), "--checkpoint", str(alone)],
        input=text,
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path / "elsewhere",
        env={**environment, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, expected, "")
    assert not list((tmp_path / "elsewhere").iterdir()), "prediction writes nothing"
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["model.ckpt"]


def test_a_checkpoint_is_plain_data_with_all_that_prediction_needs() -> None:
    checkpoint = torch.load(trained() / "checkpoints" / "best.ckpt", weights_only=True)
    record = checkpoint["suite"]
    assert record["settings"]["domain"] == "translation"
    assert {"source", "target", "languages"} <= record["assets"].keys()
    assert {"torch", "lightning", "tokenizers"} <= record["versions"].keys()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_digest(path: Path) -> None:
    path.with_name(path.name + ".sha256").write_text("nothing\n")


@pytest.mark.parametrize("damage", [cut_short, flip_one_bit, empty, damage_digest])
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_damaged_checkpoint_is_refused(verb: str, damage: Callable[[Path], None], copied: Path) -> None:
    damage(copied)
    assert_one_line(run(verb, "--checkpoint", copied, stdin=b"A\n"), 1, copied.name, "damaged")


@pytest.mark.parametrize("damage", [cut_short, empty])
def test_a_checkpoint_without_digest_cut_short_is_refused(damage: Callable[[Path], None], copied: Path) -> None:
    copied.with_name(copied.name + ".sha256").unlink()
    damage(copied)
    assert_one_line(run("predict", "--checkpoint", copied, stdin=b"A\n"), 1, str(copied), "cannot be read")


@pytest.mark.parametrize("form", ["torch", "old", "pickle", "inside"])
def test_a_checkpoint_cannot_run_code(form: str, copied: Path, tmp_path: Path) -> None:
    path, mark = tmp_path / "trap.ckpt", tmp_path / "ran"
    if form == "torch":
        torch.save(Trap(mark), path)
    elif form == "old":
        torch.save({"state_dict": Trap(mark)}, path, _use_new_zipfile_serialization=False)
    elif form == "pickle":
        path.write_bytes(pickle.dumps(Trap(mark), protocol=2))
    else:
        checkpoint = torch.load(copied, weights_only=True)
        torch.save({**checkpoint, "callbacks": {"extra": Trap(mark)}}, path)
    for verb in ("predict", "evaluate"):
        assert_one_line(run(verb, "--checkpoint", path, stdin=b"A\n"), 1, str(path))
    ran = run("fit", "--domain", "translation", "--resume", path, "--runs", tmp_path / "runs")
    assert_one_line(ran, 1, str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        *({"weight": torch.zeros(2)}, {}, [1, 2], torch.zeros(3), {"suite": 1}, {"suite": {"format": 1}}),
        {"suite": {"format": "x", "settings": {}, "assets": {}}},
        {"suite": {"format": 1, "settings": [], "assets": {}}},
    ],
)
def test_a_foreign_checkpoint_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save(content, path)
    assert_one_line(run("predict", "--checkpoint", path, stdin=b"A\n"), 1, str(path), "not a checkpoint of this suite")


def test_of_two_checkpoints_the_last_is_meant(tmp_path: Path) -> None:
    ran = run("predict", "--checkpoint", tmp_path / "none.ckpt", "--checkpoint", trained(), stdin=b"A\n")
    assert ran.status == 0, ran.err


@pytest.mark.parametrize("content", [b"just text\n", b"\x80\x02}", b"PK\x03\x04 nothing", bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.ckpt"
    path.write_bytes(content)
    assert_one_line(run("predict", "--checkpoint", path, stdin=b"A\n"), 1, str(path))


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ckpt", tmp_path):
        assert_one_line(run("predict", "--checkpoint", path, stdin=b"A\n"), 1, str(path))


def change(checkpoint: dict[str, Any], kind: str) -> None:
    settings = checkpoint["suite"]["settings"]
    if kind == "domain":
        settings["domain"] = "painting"
    elif kind == "task":
        settings["task"] = "drawing"
    elif kind == "format":
        checkpoint["suite"]["format"] = 99
    elif kind == "setting":
        settings["model"]["colour"] = "red"
    elif kind == "type":
        settings["model"]["dropout"] = "high"
    elif kind.startswith("a setting of "):
        settings[kind.removeprefix("a setting of ")]["colour"] = "red"
    elif kind == "weights":
        checkpoint["state_dict"].popitem()
    elif kind == "size":
        settings["model"]["encoder"]["hidden_size"] += 1
    elif kind == "vocabulary":
        checkpoint["suite"]["assets"]["source"]["pieces"].append(3)
    elif kind == "assets":
        checkpoint["suite"]["assets"] = {}
    elif kind == "no settings":
        checkpoint["suite"]["settings"] = {}
    else:
        del settings[kind]


KINDS = ["domain", "task", "format", "setting", "type", "weights", "size", "vocabulary", "assets", "no settings"]
KINDS += ["data", "decoding", "optim", "seed", *(f"a setting of {group}" for group in ("data", "decoding", "optim"))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_does_not_fit_is_refused(kind: str, copied: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(copied, weights_only=True)
    change(checkpoint, kind)
    path = tmp_path / "changed.ckpt"
    torch.save(checkpoint, path)
    parts = (str(path), "do not fit this version", "colour") if "setting of" in kind else (str(path),)
    assert_one_line(run("predict", "--checkpoint", path, stdin=b"A\n"), 1, *parts)
