"""Speed rows: what they measure is what they say; no figure is judged here, since others load the machine."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import domains
from suite import checkpoint
from suite.benchmark import suites
from suite.benchmarks import bookkeeping, checkpoints, processes
from suite.callbacks import StepSeed
from suite.cli import Domains
from suite.errors import SuiteError
from suite.timing import Row
from tests import toy
from tests.commands import TOY_CONFIGS, assert_one_line, run

TOY = Domains(toy.available, toy.load, TOY_CONFIGS)


def check(row: Row) -> None:
    assert row.ours > 0
    assert row.reference > 0
    assert row.ratio == pytest.approx(row.ours / row.reference)


def test_suites_are_found_by_name_and_need_no_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"processes", "checkpoints", "bookkeeping", "recurrent"} <= set(suites())
    given: list[Any] = []

    def measure(**arguments: Any) -> list[Row]:
        given.append(arguments)
        return [Row("this", 1.0, 2.0, 0.5, "<= 1", True)]

    monkeypatch.setattr(bookkeeping, "measure", measure)
    ran = run("benchmark", "--suite", "bookkeeping")
    assert ran.status == 0, ran
    assert ran.lines[-1] == "| this | 1000.0 ms | 2000.0 ms | 0.50 | <= 1 | yes |"
    run("benchmark", "--suite=bookkeeping", "--domain", "translation", "--rounds", 2)
    assert [(each["domain"], each["rounds"]) for each in given] == [(None, 5), ("translation", 2)]
    assert given[0]["domains"].available is domains.available


def test_what_cannot_be_meant_is_one_line() -> None:
    assert_one_line(run("benchmark"), 2, "--domain is missing")
    assert_one_line(run("benchmark", "--suite", "nothing"), 2, "nothing", "processes")
    assert_one_line(run("benchmark", "--suite", "processes", "--domain", "nope"), 2, "nope")
    assert_one_line(run("benchmark", "--suite", "processes", "--rounds", 0), 2, "rounds")


def test_saving_writes_the_same_bytes_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SETTLE", 0.0)
    sizes: dict[str, set[int]] = {}
    unlink = Path.unlink

    def note(self: Path, **arguments: Any) -> None:
        if self.parent == tmp_path and self.suffix == ".ckpt" and self.exists():
            sizes.setdefault(self.name.split("-")[0], set()).add(self.stat().st_size)
        unlink(self, **arguments)

    monkeypatch.setattr(Path, "unlink", note)
    row = checkpoints.saving(tmp_path, rounds=2, layers=3, size=300)
    check(row)
    (ours,), (reference,) = sizes["ours"], sizes["reference"]
    assert reference == 3 * 300 * 300 * 4 * 3 + 3 * 4  # weights, two moments; a step counter for each weight
    assert reference < ours < 1.05 * reference
    assert not list(tmp_path.iterdir())


def test_what_is_saved_is_a_whole_checkpoint(tmp_path: Path) -> None:
    content = checkpoints.trained(2, size=5)
    checkpoint.write(content, tmp_path / "a.ckpt")
    read = checkpoint.read(tmp_path / "a.ckpt")
    for first, second in zip(checkpoints.tensors_in(content), checkpoints.tensors_in(read), strict=True):
        assert torch.equal(first, second)


def test_bookkeeping_is_left_out_of_every_other_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    seed = StepSeed.on_train_batch_start

    def noted(self: StepSeed, trainer: Any, *args: Any) -> None:
        steps.append(trainer.global_step)
        seed(self, trainer, *args)

    monkeypatch.setattr(StepSeed, "on_train_batch_start", noted)
    check(bookkeeping.bookkeeping(5))
    assert steps == [step for step in range(2 * (5 + bookkeeping._WARM_UP)) if step % 2 == 1]


def test_the_gate_knows_every_hook_of_a_step_that_callbacks_have() -> None:
    of_steps = {name for name in dir(Callback) if "train_batch" in name or name.startswith(("on_before", "on_after"))}
    assert of_steps == set(bookkeeping._HOOKS)


@pytest.mark.distributed
def test_two_processes_are_compared_with_two_alone() -> None:
    row = processes.together("toy", TOY, rounds=2, steps=3)
    check(row._replace(ratio=row.ours / row.reference))
    assert row.name.startswith("toy: ")
    assert "values/s" in row.note
    assert row.ratio > 0
    assert row.met == (row.ratio >= 0.85)


@pytest.mark.distributed
def test_a_process_that_ends_early_is_one_line() -> None:
    with pytest.raises(SuiteError, match="a process ended early"):
        processes.together("toy", TOY, rounds=1, flags=["--data.size=1"])
