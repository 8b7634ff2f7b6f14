"""``benchmark.py --suite recurrent``: a table for every precision, and one line for what is wrong."""

import re
from typing import Any

import pytest
import torch

from suite.benchmarks import recurrent as speed
from suite.benchmarks.recurrent import Shape
from suite.process import has_bfloat16
from tests.commands import assert_one_line, run

SMALL = ("--suite", "recurrent", "--threads", "1", "--batch", "2", "--size", "4", "--rounds", "1", "--device", "cpu")


def test_surveys_cells_and_lengths() -> None:
    ran = run("benchmark", *SMALL, "--cells", "mingru", "layernorm_lstm", "--lengths", "6", "3", "--bars", "false")
    assert ran.status == 0, ran
    tables = 2 if has_bfloat16("cpu") else 1
    for name in ("fp32", "bf16")[:tables]:
        assert f"{name}: milliseconds a pass" in ran.out
    heads = [line for line in ran.lines if line.startswith("| cell |")]
    assert heads == ["| cell | T 3 forward | T 3 training | T 6 forward | T 6 training | memory at T 6 |"] * tables
    for cell in ("nn.LSTM", "mingru", "layernorm_lstm"):
        rows = [line for line in ran.lines if line.startswith(f"| {cell} |")]
        assert len(rows) == tables
        assert all(len(re.findall(r"\d+\.\d \(\d+\.\d\d\)", row)) == 4 for row in rows)
    assert all("(1.00)" in line for line in ran.lines if line.startswith("| nn.LSTM"))


def test_bfloat16_without_kernels_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "has_bfloat16", lambda device: False)
    ran = run("benchmark", *SMALL, "--cells", "mingru", "--lengths", "3", "--bars", "false", "--precision", "bf16")
    assert ran.status == 0, ran
    assert ran.lines[-1] == "bf16: not measured: this cpu has no kernels for it"
    assert "milliseconds" not in ran.out


def test_bars_have_a_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Shape(3, 4, 5)
    monkeypatch.setattr(speed, "SENTENCES", small)
    monkeypatch.setattr(speed, "_BARS", (("peephole_lstm", small, 1.7), ("mingru", Shape(2, 9, 5), 0.4)))
    rows = speed.bars(rounds=1)
    assert [row.bar for row in rows] == ["<= 1.05"] * 3 + ["<= 1.3"] * 2 + ["<= 1.7", "<= 0.4"]
    assert all(row.ratio == pytest.approx(row.ours / row.reference) for row in rows)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cells", "nope"), ("cells", "nope", "mingru")),
        (("--batch", 0), ("batch", "0")),
        (("--lengths", 8, 0), ("lengths", "0")),
        (("--speed",), ("unknown flag --speed",)),
        (("--checkpoint", "x"), ("unknown flag --checkpoint x",)),
        (("--steps", 3), ("unknown flag --steps 3",)),
    ],
)
def test_refusals(flags: tuple[Any, ...], words: tuple[str, ...]) -> None:
    assert_one_line(run("benchmark", *SMALL, *flags), 2, "--suite recurrent", *words)


def test_its_flags_are_for_it_alone() -> None:
    ran = run("benchmark", "--suite", "bookkeeping", "--cells", "mingru")
    assert_one_line(ran, 2, "--suite bookkeeping", "unknown flag --cells mingru")


def test_help_lists_it_with_the_others_and_its_flags_with_it() -> None:
    ran = run("benchmark", "--suite", "recurrent", "--help")
    assert ran.status == 0, ran
    for word in ("recurrent", "processes", "--cells", "--lengths", "--precision", "--device", "--rounds"):
        assert word in ran.out, word
    assert "--checkpoint" not in ran.out.partition("options")[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_refuses_a_device_that_is_not_there() -> None:
    ran = run("benchmark", *SMALL, "--device", "cuda")
    assert (ran.status, ran.err) == (2, "benchmark: --device cuda: there is no such device here\n")
