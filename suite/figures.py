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
