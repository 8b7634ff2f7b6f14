"""Signals: SIGHUP ends a run like SIGTERM does, also when the terminal is gone; time asks for checkpoints quietly."""

import os
import pty
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from suite.stop import SIGNALS, StopRequest
from tests.commands import fit_toy, with_callback
from tests.forked import in_processes
from tests.interrupted import run
from tests.test_resume import check, digest


@pytest.mark.parametrize("moment", ["on_train_batch_end:5", "on_validation_batch_end:1"])
def test_hang_up_saves_and_a_run_goes_on_exactly(moment: str, tmp_path: Path) -> None:
    check("toy", moment, tmp_path, first=[], every=1000, by="SIGHUP")


@pytest.mark.parametrize(("name", "status"), [("SIGHUP", 129), ("SIGTERM", 143)])
def test_a_signal_to_the_group_with_workers_ends_with_its_status_and_how_to_resume(
    name: str, status: int, tmp_path: Path
) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--data.num_workers=2", "--name=a"]
    ended = in_processes(f"on_train_batch_end:3:{name}", flags, seconds=60, variables={"KILL_GROUP": "1"})[0]
    assert ended.status == status, ended.err
    assert f"scripts/fit.py --domain toy --task next_value --resume {tmp_path}/toy/a\n" in ended.err
    assert digest(tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt")[0] in (3, 4)


class Talks(Callback):
    """Waits in the fifth step for its signal, then writes a line, as a user's callback may at any time."""

    def __init__(self, ready: Path) -> None:
        self.ready = ready

    def on_train_batch_start(self, trainer: Any, module: Any, *args: Any) -> None:
        if trainer.global_step == 4:
            self.ready.touch()
            limit = time.monotonic() + 60
            while not any(module.stop.here) and time.monotonic() < limit:
                time.sleep(0.01)
            os.write(1, b"a line\n")  # not print: pytest has another standard output


def test_a_closed_terminal_still_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run writes to a terminal that was closed, where each line is an error."""
    arguments = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--name=a"]
    with_callback(monkeypatch, Talks(tmp_path / "ready"))
    child, terminal = pty.fork()
    if child == 0:
        try:
            status = run("never", "fit", arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            status = 77
        os._exit(status)
    limit = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    os.close(terminal)
    ended = 0
    while not ended and time.monotonic() < limit:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended
    assert os.waitstatus_to_exitcode(status) == 129
    content = torch.load(tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 5


def test_nohup_keeps_a_hang_up_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop.scope():
            stop.install()
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == stop._remember
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop.scope():
            stop.install()
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.here == [number == signal.SIGHUP for number in SIGNALS]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_each_signal_is_agreed_on_and_leaves_with_its_number() -> None:
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
        stop, other = StopRequest(), StopRequest()
        stop._remember(number, None)
        stop.agree([sum(pair) for pair in zip(stop.wishes(), other.wishes(), strict=True)])
        with pytest.raises(SystemExit) as left:
            stop.leave()
        assert left.value.code == status


def test_the_time_for_a_checkpoint_travels_with_the_signals() -> None:
    first, other = StopRequest(), StopRequest()
    first.save_at = time.monotonic() + 1000
    sums = [sum(pair) for pair in zip(first.wishes(), other.wishes(), strict=True)]
    other.agree(sums)
    assert not other.save_anywhere
    first.save_at = time.monotonic() - 1
    sums = [sum(pair) for pair in zip(first.wishes(), other.wishes(), strict=True)]
    other.agree(sums)
    assert other.save_anywhere
    assert other.anywhere is None


def test_checkpoint_minutes_broadcasts_nothing_in_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def broadcast(self: Any, value: Any, src: int = 0) -> Any:
        calls.append(value)
        return value

    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", broadcast)
    counts: list[int] = []

    class Count(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            counts.append(len(calls))

    with_callback(monkeypatch, Count())
    ran = fit_toy("--runs", tmp_path, "--name=a", "--checkpoint_minutes=60", "--trainer.limit_val_batches=0")
    assert ran.status == 0, ran.err
    assert len(counts) == 8
    assert len(set(counts)) == 1, "no step has a broadcast of its own"
