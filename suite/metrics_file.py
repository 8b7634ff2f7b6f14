"""Every logged number of a run in one plain file, ``metrics.csv``: the record that needs no tracker to be read."""

import contextlib
import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from suite.errors import SuiteError

_FIRST_COLUMNS = ("step", "epoch")


class MetricsFile(Logger):
    """Lightning logger that writes ``<run_folder>/metrics.csv``, on the first process only.

    ``step`` is the number of optimiser steps done (``suite.tracking.logged_step``). One row a step: values logged for
    the same step share a row, unless one would replace another, which starts a second row for that step. Columns are
    ``step``, ``epoch``, then the others as they first appeared; cells without a value are empty. A new column rewrites
    the file (temporary file, fsync, rename). The row of the current step is rewritten in place as it grows, so it is on
    disk after every ``save()``, which Lightning calls after each log call.

    Args:
        run_folder: Folder of the run; made with the first row if it is not there. Rows of an existing file are kept.

    Raises:
        SuiteError: (while logging) the file cannot be written or read, e.g. the disk is full.
    """

    def __init__(self, run_folder: str | Path) -> None:
        super().__init__()
        self._folder = Path(run_folder)
        self._columns: list[str] = list(_FIRST_COLUMNS)
        self._row: dict[str, str] = {}
        self._columns_on_disk = 0
        self._row_start = 0  # byte offset at which the current row begins, or will begin
        self._loaded = False
        self._changed = False

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._folder / "metrics.csv"

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self._folder.name

    @property
    def version(self) -> str:
        """Empty: a run folder holds one run."""
        return ""

    @property
    def root_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """Nothing: the run folder's ``config.yaml`` has the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add numbers (or tensors of one element) to the row of ``step``; without a step, to the current row."""
        self._load()
        known = self._row.get("step", "0")
        values = {"step": known if step is None else str(step)}
        values.update({key: _text(value) for key, value in metrics.items()})
        if any(self._row.get(key, value) != value for key, value in values.items()):
            self.save()
            self._row, self._row_start = {}, self._size()
        self._row.update(values)
        self._columns.extend(key for key in values if key not in self._columns)
        self._changed = True

    @rank_zero_only
    def save(self) -> None:
        """Bring the current row to the disk."""
        if not self._changed:
            return
        with self._clear_errors():
            if len(self._columns) > self._columns_on_disk:
                self._rewrite([*self._rows_before_current(), self._row])
            else:
                with self.path.open("r+b") as file:
                    file.seek(self._row_start)
                    file.truncate()
                    file.write(_line([self._row.get(column, "") for column in self._columns]))
        self._changed = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Bring the current row to the disk at the end of a run, good or bad."""
        self.save()

    @rank_zero_only
    def resume_from(self, step: int, *, without: Sequence[str] = ()) -> None:
        """Drop the rows above ``step``, which a run resumed there writes again, and what it logs again for ``step``.

        Args:
            step: optimiser steps done where the run is resumed.
            without: metrics to drop from the rows of ``step``, with ``*`` for any part: what a run logs when it ends.
        """
        self._load()
        self.save()
        with self._clear_errors():
            kept = [row for row in self._read_rows() if int(row["step"]) <= step]
            rows = [_without(row, without) if int(row["step"]) == step else row for row in kept]
            self._take_up([row for row in rows if any(row[key] for key in row if key not in _FIRST_COLUMNS)])

    def _load(self) -> None:
        """Take up an existing file once, so that a later process appends to it."""
        if self._loaded:
            return
        self._loaded = True
        with self._clear_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                return
            self._take_up(self._read_rows())

    def _take_up(self, rows: Sequence[dict[str, str]]) -> None:
        """Go on from ``rows``, written afresh because a kill or an editor may have left other bytes than ours.

        The last one becomes the current row: what a resumed run logs again for its step falls into it.
        """
        self._rewrite(rows)
        self._row = {key: value for key, value in rows[-1].items() if value != ""} if rows else {}

    def check(self) -> None:
        """Read the file as a resumed run does.

        Raises:
            SuiteError: it is no metrics file, or cannot be read.
        """
        with self._clear_errors():
            self._read_rows()

    def _read_rows(self) -> list[dict[str, str]]:
        """The rows of the file, without a last line that a kill cut short; its header becomes our columns."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        try:
            text = content[: content.rfind(b"\n") + 1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise SuiteError(
                f"{self.path}: byte {error.start + 1} is not UTF-8: repair the file, or move it away"
            ) from None
        header, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line] or [list(_FIRST_COLUMNS)]
        if header[:2] != list(_FIRST_COLUMNS) or not all(line[:1] and line[0].isdigit() for line in lines):
            raise SuiteError(f"{self.path}: not a metrics file of ours (columns step,epoch,...); move it away")
        self._columns = header
        return [dict(zip(header, line, strict=False)) for line in lines]

    def _rows_before_current(self) -> list[dict[str, str]]:
        if self._columns_on_disk == 0:
            return []
        before = self.path.read_bytes()[: self._row_start].decode("utf-8")
        return list(csv.DictReader(io.StringIO(before, newline="")))

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Replace the file in one go: a reader, or a kill, sees the old one or the new one."""
        lines = [_line(self._columns), *(_line([row.get(column, "") for column in self._columns]) for row in rows)]
        temporary = self.path.with_name("metrics.csv.tmp")
        try:
            with temporary.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._columns_on_disk = len(self._columns)
        self._row_start = sum(map(len, lines[: max(len(lines) - 1, 1)]))

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SuiteError(
                f"{self.path}: cannot write the metrics ({error.strerror}); free space or give another run folder"
            ) from error


def _without(row: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    """``row`` with empty cells for the metrics that match one of ``names``."""
    return {key: "" if any(fnmatchcase(key, name) for name in names) else value for key, value in row.items()}


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8")


def _text(value: Any) -> str:
    """A number as text that reads back to the same number; ``nan``, ``inf`` and ``-inf`` for the others."""
    number = value.item() if hasattr(value, "item") else value
    assert isinstance(number, int | float), f"metrics are numbers, not {type(number).__name__}"
    return str(int(number)) if isinstance(number, int) else repr(float(number))
