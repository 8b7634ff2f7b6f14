"""Clips as film strips and pictures as a sheet, with what the model says about them.

All frames stand on one pair of axes: with axes for each, matplotlib would take seconds at every validation.
"""

from collections.abc import Sequence
from typing import cast

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from domains.video.stored import StoredClips
from suite.fonts import cover

COLUMNS, ROWS = 12, 6  # frames of a strip, strips
_GAP = 0.08  # between frames, as a share of their side


def film_strips(
    frames: Tensor | StoredClips, lengths: Tensor, *, titles: Sequence[str], weights: Tensor | None
) -> Figure:
    """The first clips of ``frames (R, T, 3, S, S)`` as strips; below each frame its attention from ``weights (R, T)``.

    Frames are spread evenly where a clip has more than fit.
    """
    rows, side = min(len(frames), ROWS), frames.size(-1)
    shown = [_spread(int(lengths[row])) for row in range(rows)]
    strips = [_chosen(frames, row, places).permute(0, 2, 3, 1).cpu().numpy() for row, places in enumerate(shown)]
    left, top = (1 + _GAP) * side, 1.6 * side  # from a frame to the next, from a strip to the next
    axes = _axes(width=0.9 * COLUMNS, height=1.4 * rows, right=left * COLUMNS, bottom=top * rows)
    for row, (strip, places) in enumerate(zip(strips, shown, strict=True)):
        begin = top * row + 0.2 * side
        axes.text(0, begin - 0.04 * side, titles[row], fontsize=8, va="bottom", parse_math=False)
        for column, picture in enumerate(strip):
            _paste(axes, picture, left * column, begin)
        if weights is None:
            continue
        attention = weights[row, places].float().cpu().numpy()
        highest = max(float(attention.max()), 1e-9)
        corners = left * numpy.arange(len(places))
        axes.bar(corners, 0.08 * side * attention / highest, side, begin + 1.01 * side, align="edge", color="red")
        for corner, weight in zip(corners, attention, strict=True):
            colour = "black" if weight > highest / 2 else "grey"
            axes.text(
                corner + side / 2, begin + 1.11 * side, f"{weight:.2f}", fontsize=7, ha="center", va="top", color=colour
            )
    return cover(cast(Figure, axes.get_figure()))


def contact_sheet(images: Tensor, *, titles: Sequence[str]) -> Figure:
    """Pictures ``images (B, 3, S, S)`` side by side."""
    shown, side = min(len(images), COLUMNS), images.size(-1)
    step = (1 + _GAP) * side
    axes = _axes(width=1.1 * shown, height=1.4, right=step * shown, bottom=1.25 * side)
    for column, (image, title) in enumerate(zip(images[:shown], titles, strict=False)):
        _paste(axes, image.permute(1, 2, 0).cpu().numpy(), step * column, 0.25 * side)
        axes.text(step * column, 0.2 * side, title, fontsize=6, va="bottom", parse_math=False)
    return cover(cast(Figure, axes.get_figure()))


def _chosen(frames: Tensor | StoredClips, row: int, places: list[int]) -> Tensor:
    return frames[row, places] if isinstance(frames, Tensor) else frames.read(row, places)


def _spread(length: int) -> list[int]:
    return [int(place) for place in numpy.linspace(0, length - 1, min(length, COLUMNS)).round()]


def _axes(*, width: float, height: float, right: float, bottom: float) -> Axes:
    """Axes that fill a figure of so many inches, measured in pixels of frames from the upper left corner."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set_axis_off()
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, 0)
    return axes


def _paste(axes: Axes, picture: NDArray[numpy.uint8], left: float, top: float) -> None:
    side = len(picture)
    axes.imshow(picture, extent=(left, left + side, top + side, top), aspect="auto", interpolation="nearest")
