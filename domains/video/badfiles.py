"""Files that cannot be read: named in ``bad_files.csv``, counted, and a reason to stop beyond a stated fraction."""

import csv
from collections.abc import Iterable
from pathlib import Path

from suite.console import is_first_process, notice
from suite.errors import DataError

NAME = "bad_files.csv"


class BadFiles:
    """What was found so far: reasons by the name of the file."""

    def __init__(self, *, limit: float) -> None:
        self.limit = limit
        self.reasons: dict[str, str] = {}

    def report(self, found: dict[str, str], *, total: int, where: str, folder: Path) -> None:
        """Take in what is wrong with some of ``total`` files of ``where``, and keep the list in ``folder``.

        Raises:
            DataError: more than the fraction ``limit`` of them.
        """
        if not found:
            return
        self.reasons |= found
        listed = self.write(folder)
        first = "; ".join(f"{name}: {reason}" for name, reason in list(found.items())[:3])
        counted = f"{where}: {len(found)} of {total} files cannot be used ({first}{'; ...' if len(found) > 3 else ''})"
        if len(found) > self.limit * total:
            share = f"{len(found) / total:.1%} is more than data.max_bad ({self.limit:.1%})"
            raise DataError(f"{counted}: {share}; see {listed}, mend or remove them, or allow more")
        notice(f"data: {counted}; they are left out: see {listed}")

    def write(self, folder: Path) -> Path:
        """Write the list into ``folder``; gives its path.

        Raises:
            DataError: it cannot be written.
        """
        path = folder / NAME
        if is_first_process():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("w", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerows(self._rows())
            except OSError as error:
                raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        return path

    def _rows(self) -> Iterable[tuple[str, str]]:
        return [("path", "reason"), *self.reasons.items()]
