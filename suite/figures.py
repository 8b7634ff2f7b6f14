"""Plots as matplotlib figures, made without a display and without global state."""

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from suite.fonts import cover

MOST_WORDS = 120
MOST_CLASSES = 100  # of a confusion matrix that are drawn: more names cannot be read
MOST_NUMBERS = 20  # classes up to which each cell has its count
LONGEST_NAME = 30  # characters of a class that are drawn
# Words, labels and titles as they stand: between two dollar signs matplotlib would read mathematics, or fail to.
_PLAIN: dict[str, Any] = {"parse_math": False}
LONGEST = 60  # tokens of a side that are drawn: more cannot be read, and take minutes and a gigabyte


def attention_figure(weights: Tensor, *, rows: Sequence[str], columns: Sequence[str], title: str = "") -> Figure:
    """Attention ``weights (len(rows), len(columns))`` as an image: a row is a written token, a column a read one.

    Of longer sides the first ``LONGEST`` are drawn, and the title says so.
    """
    if len(rows) > LONGEST or len(columns) > LONGEST:
        note = f"the first {LONGEST} tokens of {len(columns)} read and {len(rows)} written"
        weights, title = weights[:LONGEST, :LONGEST], f"{title} ({note})" if title else note
        rows, columns = rows[:LONGEST], columns[:LONGEST]
    figure = Figure(figsize=(1.5 + 0.35 * len(columns), 1.2 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights.float().cpu().numpy(), cmap="Greys", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor", fontsize=9, **_PLAIN)
    axes.set_yticks(range(len(rows)), rows, fontsize=9, **_PLAIN)
    axes.xaxis.tick_top()
    axes.set_title(title, fontsize=9, **_PLAIN)
    return cover(figure)


def words_figure(rows: Sequence[tuple[Sequence[str], Sequence[float], str]], *, columns: int = 12) -> Figure:
    """Words shaded by their weights: each of ``rows`` is its words, a weight of 0 to 1 each, and a title.

    Shades go up to the largest weight of a row, which is said beside the title; ``columns`` words stand on a line. Of a
    longer text the first ``MOST_WORDS`` are drawn, and the title says so.
    """
    rows = [
        (words[:MOST_WORDS], weights[:MOST_WORDS], f"{title}, the first {MOST_WORDS} of {len(words)} words")
        if len(words) > MOST_WORDS
        else (words, weights, title)
        for words, weights, title in rows
    ]
    lines = [-(-max(len(words), 1) // columns) + 1 for words, _, _ in rows]
    figure = Figure(figsize=(1.1 * columns, 0.36 * sum(lines) + 0.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(0, columns)
    axes.set_ylim(sum(lines), 0)
    axes.axis("off")
    top = 0
    for (words, weights, title), count in zip(rows, lines, strict=True):
        highest = max(weights, default=0.0)
        line = f"{title}   (darkest: {highest:.2f})"
        axes.text(0, top + 0.6, line, fontsize=9, va="center", weight="bold", **_PLAIN)
        for place, (word, weight) in enumerate(zip(words, weights, strict=True)):
            row, column = divmod(place, columns)
            shade = weight / highest if highest > 0 else 0.0
            box = {"facecolor": (1.0, 1.0 - 0.6 * shade, 1.0 - shade), "edgecolor": "none", "pad": 1.5}
            axes.text(column + 0.02, top + 1.5 + row, word[:14], fontsize=8, va="center", bbox=box, **_PLAIN)
        top += count
    return cover(figure)


def confusion_figure(matrix: Sequence[Sequence[int]], *, names: Sequence[str], title: str = "") -> Figure:
    """Counts ``matrix (C, C)`` as an image: a row is a true class, shaded by its shares; numbers up to 20 classes.

    With more classes shades grow with the square root of the share, so that small ones can be seen.

    Of more than ``MOST_CLASSES`` those that are confused most are drawn, and the title says so.
    """
    if len(names) > MOST_CLASSES:
        chosen = most_confused_classes(matrix, count=MOST_CLASSES)
        note = f"the {len(chosen)} most confused of {len(names):,} classes"
        # Shares are of whole rows, as in the full matrix.
        totals = [sum(matrix[row]) for row in chosen]
        matrix = [[matrix[row][column] for column in chosen] for row in chosen]
        names, title = [names[place] for place in chosen], f"{title} ({note})" if title else note
    else:
        totals = [sum(row) for row in matrix]
    shown = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    few = len(names) <= MOST_NUMBERS
    fontsize = 8 if few else 6
    # Measured by hand: a layout that measures 200 turned names takes ten seconds.
    margin = 0.6 + 0.0088 * fontsize * max(map(len, shown), default=0)  # inches that names take on the left and below
    side = max(1.2, (0.45 if few else 0.13) * len(names))  # inches of the image
    width, height = margin + side + 0.3, margin + side + 0.5
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    shares = [[count / max(total, 1) for count in row] for row, total in zip(matrix, totals, strict=True)]
    axes.imshow(shares, cmap="Greys", norm=Normalize(0.0, 1.0) if few else PowerNorm(0.5, 0.0, 1.0))
    turned: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if few else {"rotation": 90}
    axes.set_xticks(range(len(names)), shown, fontsize=fontsize, **turned, **_PLAIN)
    axes.set_yticks(range(len(names)), shown, fontsize=fontsize, **_PLAIN)
    if few:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.set_title(title, fontsize=9, wrap=True, **_PLAIN)
    return cover(figure)


def most_confused_classes(matrix: Sequence[Sequence[int]], *, count: int) -> list[int]:
    """The classes with the most mistakes from or to them, ``count`` of them, in their own order."""
    counts = numpy.asarray(matrix, dtype=numpy.int64)
    hits = counts.diagonal()
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * hits
    return sorted(numpy.argsort(-mistakes, kind="stable")[:count].tolist())
