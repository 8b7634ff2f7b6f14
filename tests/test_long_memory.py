"""The long-memory tasks are what they say; slow: which cells solve them in a fixed number of steps."""

import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.errors import UsageError
from suite.recurrent import RecurrentOptions
from suite.recurrent.long_memory import (
    COPIED,
    SYMBOLS,
    LongMemoryConfig,
    adding,
    copy_memory,
    memoryless_loss,
    train,
)
from tests.commands import ROOT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_adding_marks_one_number_in_each_half() -> None:
    inputs, targets = adding(500, 21, generator=seeded())
    values, marks = inputs.unbind(2)
    assert marks[:, :10].sum(dim=1).eq(1).all()
    assert marks[:, 10:].sum(dim=1).eq(1).all()
    torch.testing.assert_close((values * marks).sum(dim=1), targets)
    assert marks.sum(dim=0).gt(0).all(), "every place is marked at times"
    assert abs(float((targets - 1.0).square().mean()) - 1 / 6) < 0.02
    assert torch.equal(adding(5, 9, generator=seeded(3)).inputs, adding(5, 9, generator=seeded(3)).inputs)


def test_copy_memory_shows_waits_and_asks() -> None:
    inputs, targets = copy_memory(300, 7, generator=seeded())
    shown = inputs.argmax(dim=2)
    assert inputs.shape == (300, 7 + 2 * COPIED, SYMBOLS + 2)
    assert inputs.sum(dim=2).eq(1).all()
    assert torch.equal(shown[:, :COPIED], targets[:, -COPIED:])
    assert shown[:, :COPIED].lt(SYMBOLS).all()
    assert targets[:, :-COPIED].eq(SYMBOLS).all()
    assert (shown == SYMBOLS + 1).sum(dim=1).eq(1).all()
    assert (shown[:, 7 + COPIED - 1] == SYMBOLS + 1).all(), "ten steps are left to answer"
    assert memoryless_loss(7) == pytest.approx(COPIED * math.log(SYMBOLS) / 27)


def config(task: Any, cell: Any, steps: int, **settings: Any) -> LongMemoryConfig:
    return LongMemoryConfig(task, steps, cell, settings.pop("options", RecurrentOptions()), **settings)


def test_a_short_one_is_learnt_and_ends_when_it_is() -> None:
    told: list[int] = []
    easy = config("adding", "gru", 6, hidden_size=32, lr=1e-2, max_steps=800)
    loss, steps = train(easy, until=0.02, watch=lambda step, _: told.append(step))
    assert loss < 0.02
    assert steps < 800
    assert told == list(range(100, steps + 1, 100))
    short = config("copy", "lstm", 2, hidden_size=16, max_steps=3)
    assert train(short) == train(short)
    mixed = config("copy", "lstm", 9, hidden_size=16, max_steps=3, shortest=2)
    assert train(mixed) == train(mixed) != train(config("copy", "lstm", 9, hidden_size=16, max_steps=3))
    with pytest.raises(UsageError, match="shortest is 10, allowed is 2 to 9"):
        train(config("copy", "lstm", 9, shortest=10))
    with pytest.raises(UsageError, match="task is nope, allowed are adding, copy"):
        train(config("nope", "gru", 6))


def test_the_table_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run once; a line that was cut off is made again, also where others follow it."""
    file = tmp_path / "runs.jsonl"
    argv = ["--task", "adding", "copy", "--steps", "4", "--budget", "2", "--hidden_size", "3", "--batch_size", "2"]
    argv += ["--shortest", "2", "--lr", "0.01", "0.001", "--only", "gru", "mingru, 2 layers", "--output", str(file)]

    def table() -> list[str]:
        monkeypatch.setattr(sys, "argv", ["long_memory.py", *argv])
        runpy.run_path(str(ROOT / "benchmarks" / "long_memory.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    first = table()
    assert len([line for line in first if line.startswith(("| gru |", "| mingru, 2 layers |"))]) == 4
    whole = file.read_text().splitlines()
    runs = [json.loads(line) for line in whole]
    assert [(each["settings"]["task"], each["name"], each["settings"]["lr"]) for each in runs] == [
        (task, name, lr) for task in ("adding", "copy") for name in ("gru", "mingru, 2 layers") for lr in (0.01, 0.001)
    ]
    assert table() == first
    assert file.read_text().splitlines() == whole, "nothing is made twice"
    file.write_text("\n".join(whole[:5]) + "\n" + whole[5][:40])
    table()
    again = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    assert [{**each, "minutes": 0} for each in again] == [{**each, "minutes": 0} for each in runs]
    for best in (min(runs[:2], key=lambda each: each["loss"]), min(runs[6:], key=lambda each: each["loss"])):
        assert any(f"| {best['name']} | {best['loss']:.4f} | no | 2 | {best['settings']['lr']:g} |" in x for x in first)


# As in benchmarks/long_memory.py. On length 200 alone an LSTM was where it began after 4,500 steps.
ADDING: dict[str, Any] = {"lr": 3e-3, "hidden_size": 64, "max_steps": 3000, "shortest": 25}
SOLVERS: list[tuple[str, str, dict[str, Any]]] = [
    ("lstm", "lstm", {}),
    ("gru", "gru", {}),
    ("mingru", "mingru", {"num_layers": 2}),
    ("rnn_relu", "rnn_relu", {"options": RecurrentOptions(recurrent_init="identity")}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell", "settings"), SOLVERS, ids=[each[0] for each in SOLVERS])
def test_adding_at_200_is_solved(name: str, cell: str, settings: dict[str, Any]) -> None:
    loss, _ = train(config("adding", cell, 200, **ADDING, **settings), until=0.01)
    assert loss < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("lr", [3e-3, 1e-3])
def test_adding_at_200_is_beyond_a_vanilla_cell(lr: float) -> None:
    """At no rate of the grid, and at no time."""
    loss, steps = train(config("adding", "rnn_tanh", 200, **{**ADDING, "lr": lr}), until=0.1)
    assert steps == ADDING["max_steps"]
    assert loss > 0.1


@pytest.mark.slow
def test_copy_memory_at_200_with_chrono() -> None:
    """Below a fifth of what is possible without a memory."""
    options = RecurrentOptions(chrono_steps=200)
    bar = 0.2 * memoryless_loss(200)
    settings = {"lr": 3e-3, "hidden_size": 64, "batch_size": 16, "max_steps": 9000, "shortest": 2}
    loss, _ = train(config("copy", "lstm", 200, options=options, **settings), until=bar)
    assert loss < bar
