"""What is unusual about files that are read all the same: one line for each kind, with how many files and which.

A note is ``KIND: DETAIL``; the kind reads on as "KIND in 3 of 20 files".
"""

from collections.abc import Mapping, Sequence

from suite.console import notice, one_line

_NAMED = 3  # files that a line names


def report_notes(notes: Mapping[str, Sequence[str]], *, total: int, where: str) -> None:
    """Report the ``notes`` of files by name, for ``total`` files of ``where``."""
    kinds: dict[str, list[str]] = {}
    for name, found in notes.items():
        for note in found:
            kind, _, detail = note.partition(": ")
            kinds.setdefault(kind, []).append(f"{name}: {detail}")
    for kind, files in kinds.items():
        named = "; ".join(files[:_NAMED]) + ("; ..." if len(files) > _NAMED else "")
        notice(one_line(f"data: {where}: {kind} in {len(files):,} of {total:,} files ({named})"))
