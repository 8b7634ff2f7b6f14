"""The file of ``--output``: written under another name and renamed once it is whole, so it never holds a part only."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from suite.console import notice
from suite.errors import SuiteError, UsageError
from suite.file_formats import extension_of

_TABLES = (".csv", ".json", ".parquet", ".xlsx", ".ods")


def check_output(path: str, *, inputs: Iterable[str] = ()) -> None:
    """Refuse an ``--output`` that cannot be written, before anything is computed.

    Raises:
        UsageError: an empty name, a format that is not written, or one of the ``inputs``.
        SuiteError: a folder, or no folder for the file.
    """
    if not path:
        raise UsageError("--output must not be empty: give a path, or leave --output out")
    place = Path(path)
    if place.is_dir():
        raise SuiteError(f"{path}: a folder, where --output is a file: name one in it")
    if not place.parent.is_dir():
        raise SuiteError(f"{path}: there is no such folder: make it, or choose another --output")
    extension = extension_of(path)
    if extension.endswith(".gz") or extension in _TABLES:
        raise UsageError(f"--output {path}: {extension} is not written here: use .jsonl (JSON lines), or .txt or .tsv")
    for name in inputs:
        if os.path.exists(name) and os.path.exists(path) and os.path.samefile(name, path) and place.is_file():
            raise UsageError(f"--output {path} is also read: choose another file")


class ResultFile:
    """Lines for ``path``. They stand in ``path.PID.partial`` until the ``with`` block ends without an error.

    If it ends with one, what was written stays there, and a notice names it. A device or a pipe is written directly.

    Raises:
        SuiteError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.realpath(path))  # a link stays a link
        self.shown = path
        direct = self.path.exists() and not self.path.is_file()
        self.partial = self.path if direct else self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        self.count = 0
        self._file: TextIO

    def __enter__(self) -> Self:
        with self._writing():
            self._file = self.partial.open("w", encoding="utf-8", newline="\n")
        return self

    def write(self, lines: Iterable[str]) -> None:
        """Write the lines of one result."""
        with self._writing():
            for line in lines:
                self._file.write(f"{line}\n")
        self.count += 1

    def flush(self) -> None:
        """Hand what was written to the system: it stays there if this process ends."""
        with self._writing():
            self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._writing():
                self._file.close()
                if kind is None and self.partial != self.path:
                    os.replace(self.partial, self.path)
        except SuiteError:
            if kind is None:
                raise
        if kind is not None and self.partial != self.path:
            if self.count:
                notice(f"{self.shown} is not written; the {self.count:,} results so far are in {self.partial}")
            else:
                self.partial.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SuiteError(f"{self.shown}: cannot be written ({error.strerror}): choose another --output") from None
