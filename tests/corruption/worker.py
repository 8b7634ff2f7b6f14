"""Cases run in a process of their own, which is ended and started again after a hang, a crash or too much memory."""

import multiprocessing
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from suite import checkpoint
from suite.errors import SuiteError
from tests.corruption.containers import DamagedError
from tests.corruption.mutations import mutate
from tests.corruption.readers import CONCEALING, difference, read, suffix_of
from tests.corruption.references import REFERENCES
from tests.corruption.samples import MAKERS, checkpoint_content, write_checkpoint

EACH = 200
"""Mutations of each format in the slow tier."""
SECONDS = 10.0
MEGABYTES = 500.0
"""Most memory that reading a file may add; the libraries themselves take another 500 MB at most."""
CHECKPOINTS = ("checkpoint", "checkpoint-alone", "checkpoint-digest")
FORMATS = (*MAKERS, *CHECKPOINTS)
_FAILED = "failed"


class Result(NamedTuple):
    """One of equal, refused, reported and failed, and why; seconds of the processor, and megabytes that it took."""

    outcome: str
    said: str
    seconds: float = 0.0
    megabytes: float = 0.0


class Case(NamedTuple):
    format: str
    seed: int

    def __str__(self) -> str:
        return f"python -m tests.corruption {self.format} {self.seed}"


@lru_cache(maxsize=8)
def _sample(format: str, number: int) -> bytes:
    if format not in CHECKPOINTS:
        return MAKERS[format](number)
    with tempfile.TemporaryDirectory() as folder:
        return write_checkpoint(number, Path(folder))[format == "checkpoint-digest"]


def mutated(case: Case) -> tuple[bytes, str]:
    """The bytes of a case, and its kind of mutation."""
    foreign = _sample("png" if case.format != "png" else "csv", 0)
    number = case.seed % 3
    return mutate(
        _sample(case.format, number), format=case.format, seed=case.seed, other=_sample(case.format, number + 1),
        foreign=foreign,
    )  # fmt: skip


def intact(format: str) -> bytes:
    """A whole file."""
    return _sample(format, 0)


def run(case: Case, folder: Path) -> Result:
    """Read the file of a case in ``folder`` with the project's reader, and compare."""
    data, kind = mutated(case)
    path = folder / f"case-{case.seed}{suffix_of(case.format)}"
    result = _compared(case, data, path)
    return result._replace(said=f"{kind}: {result.said}")


def _compared(case: Case, data: bytes, path: Path) -> Result:
    _write(case, data, path)
    result, content = read_measured(case.format, path)
    if not result.outcome:
        outcome, text = _compare(case, data, path, content, result.said)
        result = result._replace(outcome=outcome, said=text)
    for file in (path, checkpoint.digest_path(path)):
        file.unlink(missing_ok=True)
    return result


def read_measured(format: str, path: Path) -> tuple[Result, Any]:
    """A file read with the project's reader, and its content; the outcome is empty if it can be compared."""
    Path("/proc/self/clear_refs").write_text("5")  # begin to measure the most memory of this process anew
    begin, before = time.process_time(), _memory("VmRSS")
    content, said, failure = _attempt(format, path)
    seconds, megabytes = time.process_time() - begin, _memory("VmHWM") - before
    outcome, text = failure or ("", said)
    if seconds > SECONDS or megabytes > MEGABYTES:
        outcome, text = _FAILED, f"{seconds:.1f} seconds, {megabytes:.0f} MB ({outcome}: {text})"
    return Result(outcome, text, seconds, megabytes), content


def _write(case: Case, data: bytes, path: Path) -> None:
    if case.format == "checkpoint-digest":
        path.write_bytes(_sample("checkpoint", case.seed % 3))
        checkpoint.digest_path(path).write_bytes(data)
        return
    path.write_bytes(data)
    if case.format == "checkpoint":
        checkpoint.digest_path(path).write_bytes(_sample("checkpoint-digest", case.seed % 3))


def _attempt(format: str, path: Path) -> tuple[Any, str, tuple[str, str] | None]:
    """Content and notices, or the outcome if there is no content."""
    try:
        content, said = read(format, path)
        return content, said, None
    except SuiteError as error:
        text = str(error)
        if "\n" in text or "\r" in text or path.name not in text:
            return None, "", (_FAILED, f"not one line that names the file: {text!r}")
        return None, "", ("refused", text)
    except BaseException as error:
        return None, "", (_FAILED, f"{type(error).__name__}: {error}")


def _compare(case: Case, data: bytes, path: Path, content: Any, said: str) -> tuple[str, str]:
    try:
        expected = _expected(case, data)
        wrong, damaged = difference(case.format, content, expected), False
    except DamagedError as error:
        wrong, damaged = f"read, but damaged: {error}", True
    if path.name in said and (wrong is None or damaged or case.format in CONCEALING):
        return "reported", said.strip()
    if wrong is None:
        return "equal", said.strip()
    return _FAILED, f"{'said, but different' if path.name in said else 'silent'}: {wrong}"


def _expected(case: Case, data: bytes) -> Any:
    if case.format in CHECKPOINTS:
        return checkpoint_content(case.seed % 3)
    return REFERENCES[case.format](data)


def _memory(name: str) -> float:
    """Megabytes of this process, now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1000
    raise AssertionError(f"no {name}")


def _serve(pipe: Any, folder: str) -> None:
    os.environ["SUITE_CACHE_DIR"] = folder
    while (task := pipe.recv()) is not None:
        if isinstance(task, Case):
            pipe.send(run(task, Path(folder)))
        else:
            format, path, data = task
            pipe.send(read_measured(format, path)[0] if data is None else _compared(Case(format, 0), data, path))


class Worker:
    """Runs cases one after the other; a case that does not answer in time is failed and its process ended."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("fork")  # nothing is imported again
        self.process: Any = None
        self.folder = tempfile.TemporaryDirectory(prefix="corruption-")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.pipe.send(None)
            self.process.join(5)
            self._stop()
        self.folder.cleanup()

    def __call__(self, case: Case) -> Result:
        """The outcome of a case."""
        return self._ask(case)

    def read(self, format: str, path: Path) -> Result:
        """The outcome of reading a file; empty if it was read."""
        return self._ask((format, path, None))

    def compare(self, format: str, path: Path, data: bytes) -> Result:
        """The outcome of ``data`` in a file at ``path``."""
        return self._ask((format, path, data))

    def _ask(self, task: Any) -> Result:
        if self.process is None:
            self.pipe, other = self.context.Pipe()
            self.process = self.context.Process(target=_serve, args=(other, self.folder.name), daemon=True)
            self.process.start()
            other.close()
        self.pipe.send(task)
        try:
            if self.pipe.poll(6 * SECONDS):
                found: Result = self.pipe.recv()
                return found
            text = f"no answer in {6 * SECONDS:.0f} seconds"
        except EOFError:
            self.process.join(5)
            text = f"the process died (exit status {self.process.exitcode})"
        self._stop()
        return Result(_FAILED, text)

    def _stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process = None
