"""Plots as matplotlib figures, made without a display and without global state."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor


def attention_figure(weights: Tensor, *, rows: Sequence[str], columns: Sequence[str], title: str = "") -> Figure:
    """Attention ``weights (len(rows), len(columns))`` as an image: a row is a written token, a column a read one."""
    figure = Figure(figsize=(1.5 + 0.35 * len(columns), 1.2 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights.float().cpu().numpy(), cmap="Greys", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.xaxis.tick_top()
    axes.set_title(title, fontsize=9)
    return figure


def confusion_figure(matrix: Sequence[Sequence[int]], *, names: Sequence[str], title: str = "") -> Figure:
    """Counts ``matrix (C, C)`` as an image: a row is a true class, shaded by its shares; numbers up to 20 classes."""
    size = min(2.0 + 0.45 * len(names), 14.0)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Greys", vmin=0.0, vmax=1.0)
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= 20:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.set_title(title, fontsize=9)
    return figure
