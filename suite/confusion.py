"""A confusion matrix read by people: figures of each class, JSON, an image."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from suite.console import one_line
from suite.errors import SuiteError
from suite.figures import confusion_figure

MOST_LINES = 20  # classes in the printed table; the JSON file has all
MOST_PAIRS = 5  # pairs of classes that are printed as confused most


class ClassReport:
    """Counts of an evaluation.

    Args:
        names: of the C classes.
        matrix: ``(C, C)`` counts: a row is a true class, a column a predicted one.
    """

    def __init__(self, names: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
        self.names, self.matrix = list(names), [[int(count) for count in row] for row in matrix]

    def by_class(self) -> list[dict[str, Any]]:
        """``precision``, ``recall``, ``f1`` (0 to 1; ``None`` where there is nothing to divide) and ``support``."""
        rows = []
        for index, name in enumerate(self.names):
            hits, support = self.matrix[index][index], sum(self.matrix[index])
            claimed = sum(row[index] for row in self.matrix)
            rows.append(
                {
                    "label": name,
                    "precision": hits / claimed if claimed else None,
                    "recall": hits / support if support else None,
                    "f1": 2 * hits / (claimed + support) if claimed + support else None,
                    "support": support,
                }
            )
        return rows

    def lines(self) -> list[str]:
        """A table, a line a class; of many classes those that are hardest to find."""
        rows = self.by_class()
        if len(rows) > MOST_LINES:
            rows = sorted(rows, key=lambda row: (row["f1"] is None, row["f1"]))[:MOST_LINES]
        rows = [{**row, "label": one_line(row["label"])} for row in rows]
        width = min(max(len("class"), *(len(row["label"]) for row in rows)), 30)
        lines = [f"  {'class':<{width}}  precision    recall        f1  examples"]
        for row in rows:
            figures = [_shown(row[key]) for key in ("precision", "recall", "f1")]
            lines.append(f"  {row['label'][:width]:<{width}}  {' '.join(figures)}  {row['support']:>8,}")
        if len(self.names) > MOST_LINES:
            lines.append(f"  and {len(self.names) - MOST_LINES} more classes")
        return lines + self._pair_lines()

    def pairs(self) -> list[tuple[str, str, int, float]]:
        """True class, predicted class, count and share of the true class (0 to 1) of each mistake, most first."""
        counts = numpy.array(self.matrix, dtype=numpy.int64).reshape(len(self.names), -1)
        totals = counts.sum(axis=1)
        numpy.fill_diagonal(counts, 0)
        order = numpy.argsort(-counts, axis=None, kind="stable")
        rows, columns = numpy.unravel_index(order[: numpy.count_nonzero(counts)], counts.shape)
        return [
            (self.names[row], self.names[column], int(counts[row, column]), float(counts[row, column] / totals[row]))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    def _pair_lines(self) -> list[str]:
        """The pairs that are confused most; none of two classes, whose table says the same."""
        pairs = self.pairs() if len(self.names) > 2 else []
        lines = ["  most confused:"] if pairs else []
        for true, predicted, count, share in pairs[:MOST_PAIRS]:
            true, predicted = (one_line(name)[:30] for name in (true, predicted))
            lines.append(f"    true {true} predicted as {predicted}: {count:,} ({share:.0%} of {true})")
        if len(pairs) > MOST_PAIRS:
            lines.append(f"    and {len(pairs) - MOST_PAIRS:,} more pairs")
        return lines

    def write(self, folder: Path, stem: str) -> list[Path]:
        """Write ``<stem>.confusion.json`` and ``<stem>.confusion.png``; gives their paths.

        Raises:
            SuiteError: the folder cannot be written.
        """
        content = {"labels": self.names, "matrix": self.matrix, "classes": self.by_class()}
        paths = [folder / f"{stem}.confusion.{ending}" for ending in ("json", "png")]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths[0].write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            confusion_figure(self.matrix, names=list(map(one_line, self.names)), title=stem).savefig(paths[1], dpi=80)
        except OSError as error:
            raise SuiteError(f"{folder}: cannot be written ({error.strerror}): choose another folder") from None
        return paths


def _shown(share: float | None) -> str:
    return f"{'-' if share is None else format(share, '.4f'):>9}"
