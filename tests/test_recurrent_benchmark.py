"""``benchmark.py --suite recurrent``: a table for every precision, and one line for what is wrong."""

import re

import pytest
import torch

from suite.errors import UsageError
from suite.recurrent import benchmark as speed
from suite.recurrent.benchmark import Shape, benchmark
from tests.commands import run

SMALL = ("--suite", "recurrent", "--threads", "1", "--batch", "2", "--size", "4", "--rounds", "1", "--device", "cpu")


def test_surveys_cells_and_lengths() -> None:
    ran = run("benchmark", *SMALL, "--cells", "mingru", "layernorm_lstm", "--lengths", "6", "3", "--no-bars")
    assert ran.status == 0, ran
    text = "\n".join(ran.lines)
    for name in ("fp32", "bf16"):
        assert f"{name}: milliseconds a pass" in text
    heads = [line for line in ran.lines if line.startswith("| cell |")]
    assert heads == ["| cell | T 3 forward | T 3 training | T 6 forward | T 6 training | memory at T 6 |"] * 2
    for cell in ("nn.LSTM", "mingru", "layernorm_lstm"):
        rows = [line for line in ran.lines if line.startswith(f"| {cell} |")]
        assert len(rows) == 2
        assert all(len(re.findall(r"\d+\.\d \(\d+\.\d\d\)", row)) == 4 for row in rows)
    assert all("(1.00)" in line for line in ran.lines if line.startswith("| nn.LSTM"))


def test_bars_have_a_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Shape(3, 4, 5)
    monkeypatch.setattr(speed, "SENTENCES", small)
    monkeypatch.setattr(speed, "_BARS", (("peephole_lstm", small, 1.7), ("mingru", Shape(2, 9, 5), 0.4)))
    rows = speed.bars(rounds=1)
    assert [row.bar for row in rows] == ["<= 1.05"] * 3 + ["<= 1.3"] * 2 + ["<= 1.7", "<= 0.4"]
    assert all(row.ratio == pytest.approx(row.ours / row.reference) for row in rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--cells", "nope"), "argument --cells: invalid choice: 'nope'"),
        (("--batch", "0"), "--batch is 0, allowed is 1 or more"),
        (("--lengths", "0"), "--lengths is 0, allowed is 1 or more"),
        (("--speed",), "unrecognized arguments: --speed"),
    ],
)
def test_refusals(flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        benchmark([*SMALL, *flags])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_refuses_a_device_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="--device cuda: there is no such device here"):
        benchmark([*SMALL, "--device", "cuda"])
