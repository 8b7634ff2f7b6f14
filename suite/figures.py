"""Plots as matplotlib figures, made without a display and without global state."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

MOST_WORDS = 120
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
    return figure


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
    return figure


def confusion_figure(matrix: Sequence[Sequence[int]], *, names: Sequence[str], title: str = "") -> Figure:
    """Counts ``matrix (C, C)`` as an image: a row is a true class, shaded by its shares; numbers up to 20 classes."""
    size = min(2.0 + 0.45 * len(names), 14.0)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8, **_PLAIN)
        axes.set_yticks(range(len(names)), names, fontsize=8, **_PLAIN)
    if len(names) <= 20:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.set_title(title, fontsize=9, **_PLAIN)
    return figure
