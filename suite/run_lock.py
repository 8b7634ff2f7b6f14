"""The lock on a run folder: one process writes a run at a time.

``RUN/run.lock`` names the process that writes the run: its id, host and start time. The process also holds the file
with ``flock``, which the system gives up when the process ends in any way, ``kill -9`` included. Some network file
systems keep ``flock`` to one host or do not have it at all. There the contents decide: the process on this host still
runs, or the one on another host has touched the file within the last minute.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from suite.console import is_first_process, notice
from suite.errors import SuiteError, UsageError

LOCK = "run.lock"
_BEAT = 10.0  # seconds between two touches of the file
_SILENT = 60.0  # seconds without a touch after which a process on another host counts as dead
_SETTLE = 0.3  # seconds until a file that two processes write at once is the same for both
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[int] = set()


@dataclass(frozen=True)
class Owner:
    """The process that a lock file names; ``started`` tells it from a later process with the same id."""

    pid: int
    host: str
    started: str

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        return cls(os.getpid(), socket.gethostname(), _started(os.getpid()))

    def runs(self) -> bool:
        """Whether the process still runs, for an owner on this host."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it runs, as another user
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        elsewhere = "" if self.host == socket.gethostname() else f" on host {self.host}"
        return f"process {self.pid}{elsewhere}"


@contextlib.contextmanager
def locked(folder: Path, *, name: str = LOCK) -> Iterator[None]:
    """Hold the lock of the run in ``folder`` until the block ends. The first process holds it for all ranks.

    Args:
        folder: the run folder; must exist.
        name: of the file, for something else than a run that one process writes at a time.

    Raises:
        UsageError: another process writes this run; the message names it.
        SuiteError: the lock file cannot be written.
    """
    if not is_first_process() or os.environ.get("NODE_RANK", "0") != "0":
        yield
        return
    try:
        descriptor = _acquire(folder / name)
    except OSError as error:
        raise SuiteError(
            f"{folder / name}: cannot be written ({error.strerror}): a run needs to write into its folder; "
            "change its permissions, or copy it"
        ) from None
    _held.add(descriptor)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(descriptor, ended), daemon=True).start()
    holder = os.getpid()
    try:
        yield
    finally:
        ended.set()
        if os.getpid() == holder:  # in a forked child that unwinds this far, the lock is the parent's
            _release(folder / name, descriptor)


def _acquire(path: Path) -> int:
    """Open and lock the file, write this process into it and give its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            free = _flock(descriptor)
            if free is False:
                raise UsageError(_refusal(path, _read_when_written(path)))
            if not _is_still(path, descriptor):  # released and removed between opening and locking
                os.close(descriptor)
                continue
            owner = _read(path)
            if owner is not None:
                _refuse_alive(path, owner, surely_free=free is True)
                notice(f"{path}: {owner} ended without releasing the run; this process takes it over")
            _write(descriptor, path, surely_alone=free is True)
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise


def _write(descriptor: int, path: Path, *, surely_alone: bool) -> None:
    """Name this process in the file. Without ``flock``, of two processes that write at once the last one keeps it."""
    here = Owner.here()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(asdict(here)) + "\n").encode(), 0)
    os.fsync(descriptor)
    if not surely_alone:
        time.sleep(_SETTLE)
        if (owner := _read(path)) != here:
            raise UsageError(_refusal(path, owner))


def _flock(descriptor: int) -> bool | None:
    """Whether this process now holds the file; ``None`` if the file system has no ``flock``."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return None
        raise
    return True


def _refuse_alive(path: Path, owner: Owner, *, surely_free: bool) -> None:
    """Refuse the lock where ``flock`` cannot tell that its owner is gone.

    Raises:
        UsageError: the owner still runs.
    """
    if owner.host == socket.gethostname():
        alive = not surely_free and owner.runs()
    else:  # the file system may keep flock to each host
        alive = _seconds_silent(path) < _SILENT
    if alive:
        raise UsageError(_refusal(path, owner))


def _refusal(path: Path, owner: Owner | None) -> str:
    what = path.parent if path.name == LOCK else path.with_suffix("")
    who = "another process" if owner is None else str(owner)
    text = f"{what}: {who} is writing this: wait until it ends, or stop it first"
    if owner is not None and owner.host != socket.gethostname():
        text += f"; if it no longer runs, try again in {_SILENT:.0f} seconds"
    return text


def _read(path: Path) -> Owner | None:
    """The owner that the file names; ``None`` if it is empty or damaged."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _read_when_written(path: Path) -> Owner | None:
    """The owner, who may have locked the file a moment ago and not written to it yet."""
    for _ in range(20):
        if (owner := _read(path)) is not None:
            return owner
        time.sleep(0.05)
    return None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _seconds_silent(path: Path) -> float:
    """Seconds since the file was last touched, by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock-") as now:
        return os.stat(now.name).st_mtime - path.stat().st_mtime


def _beat(descriptor: int, ended: threading.Event) -> None:
    """Touch the file until the lock is released, so that other hosts see that the process is alive."""
    while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
            if descriptor in _held:
                os.utime(descriptor)


def _release(path: Path, descriptor: int) -> None:
    _held.discard(descriptor)
    with contextlib.suppress(OSError):
        if _is_still(path, descriptor):
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _close_in_child() -> None:
    """A forked process, such as a data worker, must not keep a run locked when its parent is gone."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _started(pid: int) -> str:
    """When a process started, in a form that only serves for comparison; empty if that cannot be found."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{text.rpartition(')')[2].split()[19]}"  # ticks since the machine started
    except (OSError, IndexError):
        pass
    with contextlib.suppress(OSError):
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip()
    return ""
