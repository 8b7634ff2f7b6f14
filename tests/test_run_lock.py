"""A run folder is written by one process at a time: refusals, takeovers, and what releases the lock."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite import run_lock
from suite.errors import UsageError
from suite.run_lock import LOCK, Owner, locked
from tests import toy
from tests.commands import TOY_CONFIGS, assert_one_line, fit_toy, run
from tests.forked import in_processes


def in_a_child(work: Callable[[], Any]) -> int:
    """Fork a process that does ``work`` and stays; gives its id once it is done."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(here, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(here)
    os.read(there, 1)
    os.close(there)
    return pid


def end(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)
    os.waitpid(pid, 0)


_held = contextlib.ExitStack()


def hold(folder: Path) -> int:
    """A process that holds the lock of ``folder``."""
    return in_a_child(lambda: _held.enter_context(locked(folder)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert fit_toy("--runs", folder, "--name=a", "--checkpoint_every=4").status == 0
    return folder / "toy" / "a"


def test_a_second_process_is_refused_and_a_killed_one_is_replaced(tmp_path: Path, capsys: Any) -> None:
    holder = hold(tmp_path)
    try:
        content = json.loads((tmp_path / LOCK).read_text())
        assert (content["pid"], content["host"]) == (holder, socket.gethostname())
        assert content["started"]
        with pytest.raises(UsageError, match=rf"process {holder} is writing this"), locked(tmp_path):
            pass
    finally:
        end(holder)
    assert (tmp_path / LOCK).exists(), "kill -9 leaves the file"
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert f"process {holder} ended without releasing the run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_resume_and_average_are_refused_while_a_process_writes(trained: Path, tmp_path: Path) -> None:
    holder = hold(trained)
    try:
        last = trained / "checkpoints" / "last.ckpt"
        for place in (trained, trained / "checkpoints", last, "auto"):
            ran = fit_toy("--runs", trained.parents[1], "--resume", place, "--trainer.max_epochs=2")
            assert_one_line(ran, 2, str(trained), f"process {holder} is writing this")
        averaged = run("average", trained, application=toy, configs=TOY_CONFIGS)
        assert_one_line(averaged, 2, f"process {holder} is writing this")
        seam: dict[str, Any] = {"application": toy, "configs": TOY_CONFIGS}
        assert run("evaluate", "--checkpoint", trained, **seam).status == 0, "it only reads"
    finally:
        end(holder)
    assert fit_toy("--resume", trained).status == 0
    assert run("average", trained, application=toy, configs=TOY_CONFIGS).status == 0


def test_a_stopped_process_still_holds_its_run(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        os.kill(holder, signal.SIGSTOP)
        with pytest.raises(UsageError, match=str(holder)), locked(tmp_path):
            pass
    finally:
        end(holder)


def test_a_worker_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    def hold_and_fork() -> None:
        _held.enter_context(locked(tmp_path))
        worker = in_a_child(lambda: None)
        (tmp_path / "worker").write_text(str(worker))

    holder = in_a_child(hold_and_fork)
    worker = int((tmp_path / "worker").read_text())
    try:
        with pytest.raises(UsageError, match=str(holder)), locked(tmp_path):
            pass
        end(holder)
        os.kill(worker, 0)  # it lives
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_child_does_not_release_the_lock_of_its_parent(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(locked(tmp_path))
        child = os.fork()
        if child == 0:
            held.close()  # as an error in a worker would, which unwinds the block
            os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / LOCK).exists()
        with pytest.raises(UsageError, match=str(os.getpid())), locked(tmp_path):
            pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_released_however_the_block_ends(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), locked(tmp_path):
        raise error((tmp_path / LOCK).exists())
    assert not (tmp_path / LOCK).exists()


def write_owner(folder: Path, **changes: Any) -> None:
    here = {"pid": os.getpid(), "host": socket.gethostname(), "started": Owner.here().started}
    (folder / LOCK).write_text(json.dumps(here | changes))


def no_flock(*arguments: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_flock_a_living_owner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(run_lock, "_SETTLE", 0.0)
    write_owner(tmp_path)
    with pytest.raises(UsageError, match=str(os.getpid())), locked(tmp_path):
        pass


def test_without_flock_a_dead_owner_and_a_reused_id_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(run_lock, "_SETTLE", 0.0)
    dead = in_a_child(lambda: None)
    end(dead)
    for changes in ({"pid": dead}, {"started": "another boot:17"}):
        write_owner(tmp_path, **changes)
        with locked(tmp_path):
            pass
        assert "ended without releasing the run" in capsys.readouterr().err


def test_without_flock_of_two_that_write_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(run_lock.time, "sleep", lambda _: write_owner(tmp_path, pid=1))
    with pytest.raises(UsageError, match="process 1 is writing"), locked(tmp_path):
        pass


def test_an_owner_on_another_host_counts_by_its_last_touch(tmp_path: Path, capsys: Any) -> None:
    write_owner(tmp_path, host="node7", pid=12)
    with pytest.raises(UsageError, match=r"process 12 on host node7 is writing.*again in 60 seconds"), locked(tmp_path):
        pass
    long_ago = time.time() - 100
    os.utime(tmp_path / LOCK, (long_ago, long_ago))
    with locked(tmp_path):
        pass
    assert "process 12 on host node7 ended without releasing" in capsys.readouterr().err


def test_the_holder_touches_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_BEAT", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / LOCK, (1, 1))
        for _ in range(100):
            if (tmp_path / LOCK).stat().st_mtime > 1:
                break
            time.sleep(0.05)
        assert (tmp_path / LOCK).stat().st_mtime > 1


def test_a_lock_that_cannot_be_written_is_one_line(trained: Path) -> None:
    (trained / LOCK).mkdir()
    try:
        ran = fit_toy("--resume", trained)
        assert_one_line(ran, 1, f"{trained / LOCK}: cannot be written", "change its permissions")
    finally:
        (trained / LOCK).rmdir()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 1}'])
def test_a_damaged_file_does_not_lock(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_other_ranks_share_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with locked(tmp_path):
            pass
        monkeypatch.delenv("RANK")
        monkeypatch.setenv("NODE_RANK", "1")
        with locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()


def test_a_killed_run_is_resumed_with_a_notice(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--trainer.max_epochs=1"]
    assert in_processes("on_train_batch_end:5:SIGKILL", [*flags, "--name=a", "--checkpoint_every=2"])[0].status == -9
    assert (tmp_path / "toy" / "a" / LOCK).exists()
    ended = in_processes("never", [*flags, "--resume=auto", "--checkpoint_every=2"])[0]
    assert ended.status == 0, ended.err
    assert "ended without releasing the run; this process takes it over" in ended.err
    assert not (tmp_path / "toy" / "a" / LOCK).exists()


@pytest.mark.parametrize("action", ["SIGTERM", "SIGINT", "RAISE"])
def test_a_run_that_a_signal_or_an_error_ends_releases_its_lock(action: str, tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--name=a"]
    assert in_processes(f"on_train_batch_end:3:{action}", flags)[0].status != 0
    assert not (tmp_path / "toy" / "a" / LOCK).exists()


def test_crossvalidate_is_refused_while_another_writes_its_results(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    holder = in_a_child(lambda: _held.enter_context(locked(folder, name="cv.folds.json.lock")))
    try:
        ran = run("crossvalidate", "--domain", "text", "--runs", tmp_path, "--name", "cv", "--folds", 2)
        assert_one_line(ran, 2, f"{folder}/cv.folds.json: process {holder} is writing this")
    finally:
        end(holder)
    assert sorted(path.name for path in folder.iterdir()) == ["cv.folds.json.lock"], "nothing was trained"
