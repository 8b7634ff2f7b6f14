"""Clips as film strips and pictures as a sheet, with what the model says about them."""

from collections.abc import Sequence

import numpy
from matplotlib.figure import Figure
from torch import Tensor

COLUMNS, ROWS = 12, 6  # frames of a strip, strips


def film_strips(frames: Tensor, lengths: Tensor, *, titles: Sequence[str], weights: Tensor | None) -> Figure:
    """The first clips of ``frames (R, T, 3, S, S)`` as strips; below each frame its attention from ``weights (R, T)``.

    Frames are spread evenly where a clip has more than fit.
    """
    rows = min(len(frames), ROWS)
    figure = Figure(figsize=(0.9 * COLUMNS, 1.25 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for row in range(rows):
        length = int(lengths[row])
        shown = numpy.linspace(0, length - 1, min(length, COLUMNS)).round().astype(int)
        highest = float(weights[row].max()) if weights is not None else 0.0
        for column, axes in enumerate(grid[row]):
            axes.set_axis_off()
            if column >= len(shown):
                continue
            place = int(shown[column])
            axes.imshow(frames[row, place].permute(1, 2, 0).cpu().numpy())
            if weights is not None:
                weight = float(weights[row, place])
                axes.set_title(f"{weight:.2f}", fontsize=7, pad=2, color="black" if weight > highest / 2 else "grey")
                side = frames.size(-1)
                height = 0.1 * side * weight / max(highest, 1e-9)
                axes.bar(side / 2 - 0.5, -height, bottom=side - 0.5, width=side, color="red")
        first = grid[row][0]
        title = first.text(0, -0.35, titles[row], transform=first.transAxes, fontsize=8, va="bottom")
        title.set_in_layout(False)  # else the first column would be as wide as the words
    return figure


def contact_sheet(images: Tensor, *, titles: Sequence[str]) -> Figure:
    """Pictures ``images (B, 3, S, S)`` side by side."""
    shown = min(len(images), COLUMNS)
    figure = Figure(figsize=(1.1 * shown, 1.4), layout="constrained")
    for axes, image, title in zip(figure.subplots(1, shown, squeeze=False)[0], images, titles, strict=False):
        axes.imshow(image.permute(1, 2, 0).cpu().numpy())
        axes.set_title(title, fontsize=6)
        axes.set_axis_off()
    return figure
