"""Recipes that ask for bfloat16 run where there is none, in float32, and say so; a run in it does not go on there."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from lightning.fabric.connector import _PRECISION_INPUT

from suite import precision
from suite.process import has_bfloat16
from suite.recurrent import RecurrentEncoder, fused
from tests import toy
from tests.commands import TOY_CONFIGS, assert_one_line, fit_toy, run


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose CPU has no kernels for bfloat16."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)


@pytest.fixture
def with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose CPU has them (the toy model itself runs with any)."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)


def recorded(folder: Path) -> str:
    return str(yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["precision"])


def test_the_answer_is_that_of_the_kernels() -> None:
    """Where the answer is no, torch's own LSTM raises under autocast; where it is yes, it runs."""
    lstm = torch.nn.LSTM(4, 4, batch_first=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if has_bfloat16("cpu"):
            assert lstm(torch.randn(2, 3, 4))[0].dtype == torch.bfloat16
        else:
            with pytest.raises(RuntimeError, match="primitive"):
                lstm(torch.randn(2, 3, 4))
    units = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    assert has_bfloat16("cuda") == units


@pytest.mark.usefixtures("without")
def test_a_recipe_in_bfloat16_runs_in_float32_and_says_so(tmp_path: Path) -> None:
    mixed = ("--trainer.precision", "bf16-mixed", "--runs", tmp_path)
    ran = fit_toy(*mixed, "--name", "mixed")
    assert ran.status == 0, ran.err
    assert "no kernels for bfloat16, computing in 32-true instead of bf16-mixed" in ran.err
    assert recorded(tmp_path / "toy" / "mixed") == "32-true"
    full = fit_toy("--trainer.precision", "32-true", "--runs", tmp_path, "--name", "full")
    assert "no kernels" not in full.err
    weights = [
        torch.load(tmp_path / "toy" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("mixed", "full")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    # The same words go on with it, although the recipe still asks for bfloat16.
    again = fit_toy(*mixed, "--resume", tmp_path / "toy" / "mixed", "--trainer.max_epochs", "2")
    assert again.status == 0, again.err


@pytest.mark.usefixtures("without")
def test_weights_in_bfloat16_are_refused(tmp_path: Path) -> None:
    ran = fit_toy("--trainer.precision", "bf16-true", "--runs", tmp_path)
    assert_one_line(ran, 2, "trainer.precision is bf16-true", "use 32-true")


def test_a_run_in_bfloat16_does_not_go_on_without(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("with_kernels")
    ran = fit_toy("--trainer.precision", "bf16-mixed", "--runs", tmp_path, "--name", "mixed")
    assert ran.status == 0, ran.err
    assert recorded(tmp_path / "toy" / "mixed") == "bf16-mixed"
    request.getfixturevalue("without")
    again = fit_toy("--resume", tmp_path / "toy" / "mixed", "--trainer.max_epochs", "2", "--runs", tmp_path)
    assert_one_line(again, 2, "was trained in bf16-mixed", "finetune.py --source")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_fused_cells_under_autocast_without_kernels(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit what float32 gives, gradients too."""
    monkeypatch.setattr(fused, "has_bfloat16", lambda device: False)
    encoder = RecurrentEncoder(5, 7, cell=cell, bidirectional=True)  # type: ignore[arg-type]
    inputs, lengths = torch.randn(3, 6, 5, requires_grad=True), torch.tensor([6, 2, 4])
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            encoded = encoder(inputs, lengths)
        gradient = torch.autograd.grad(encoded.outputs.square().sum(), [inputs, *encoder.parameters()])
        found.append([encoded.outputs, *encoded.state, *gradient])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["16-mixed", "16-true"])
def test_float16_is_refused(name: str, tmp_path: Path) -> None:
    assert_one_line(fit_toy("--trainer.precision", name, "--runs", tmp_path), 2, name, "overflow", "bf16-mixed")


@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_the_help_says_which_kinds_are_refused(verb: str, tmp_path: Path) -> None:
    where: tuple[Any, ...] = ()
    if verb == "predict":
        assert fit_toy("--runs", tmp_path, "--name=a").status == 0
        where = ("--checkpoint", tmp_path / "toy" / "a")
    given = where or ("--domain", "toy")
    shown = " ".join(run(verb, *given, "--help", application=toy, configs=TOY_CONFIGS).out.split())
    text = shown[shown.index("--trainer.precision ") :].partition("(type:")[0]
    assert "16-mixed, 16-true and 16 are refused, as sums of losses overflow in float16" in text
    accepted, refused = text.split("Of the types listed here")
    kinds = {"64", "32", "bf16", "64-true", "32-true", "bf16-true", "bf16-mixed"}
    assert kinds <= set(re.findall(r"[\w-]+", accepted))
    assert "16-mixed" not in accepted.replace("bf16-mixed", "")
    known = {str(kind) for group in get_args(_PRECISION_INPUT) for kind in get_args(group)}
    assert known - kinds <= set(re.findall(r"[\w-]+", refused)) | {"transformer-engine-float16"}
