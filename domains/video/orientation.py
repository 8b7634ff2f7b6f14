"""How a frame is turned and mirrored before it is shown: the display matrix of a track as one of eight orientations.

The matrix (ISO/IEC 14496-12, 8.3.2) shows the pixel at (x, y) at (a x + c y, b x + d y), with y downwards. Its eight
values without scaling are the identity, the turns by 90, 180 and 270 degrees, and the mirror image of each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

Pixels = NDArray[numpy.uint8]
_EXACT = 0.999  # cosine between a matrix and the nearest orientation above which nothing is worth a note


class Orientation(NamedTuple):
    """What to do with stored pixels ``(H, W, 3)``, and what to tell the user about the matrix, if anything."""

    turn: Callable[[Pixels], Pixels] | None
    note: str | None = None


# By the matrix (a, b, c, d). Each function gives a view.
_ORIENTATIONS: dict[tuple[int, int, int, int], Callable[[Pixels], Pixels] | None] = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): lambda pixels: pixels[:, ::-1],
    (-1, 0, 0, -1): lambda pixels: pixels[::-1, ::-1],
    (1, 0, 0, -1): lambda pixels: pixels[::-1],
    (0, 1, 1, 0): lambda pixels: pixels.swapaxes(0, 1),
    (0, 1, -1, 0): lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],  # clockwise
    (0, -1, -1, 0): lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    (0, -1, 1, 0): lambda pixels: pixels.swapaxes(0, 1)[::-1],  # anticlockwise
}
_UPRIGHT = Orientation(None)
_known: dict[bytes, Orientation] = {}


class Orientations:
    """The orientation of each decoded PyAV frame of a file, from its display matrix.

    To look for a matrix takes as long as to scale a small frame. If the first frame has none, others are looked at only
    if PyAV's angle, which costs nothing and is 0 for an upside-down mirror image, tells of one.
    """

    def __init__(self) -> None:
        self._expected = True

    def of(self, frame: Any) -> Orientation:
        """The orientation of the next frame."""
        if not self._expected and not frame.rotation:
            return _UPRIGHT
        matrix = frame.side_data.get("DISPLAYMATRIX")
        self._expected = matrix is not None
        if matrix is None:
            return _UPRIGHT
        content = bytes(matrix)
        if content not in _known:
            _known[content] = _nearest(content)
        return _known[content]


def _nearest(content: bytes) -> Orientation:
    """The orientation nearest to a matrix of nine 32-bit numbers, with a note where the matrix is not one of the eight.

    Scaling needs no note: frames are scaled to one size anyway, and FFmpeg puts unequal scaling into the pixel aspect.
    """
    if len(content) != 36:
        return Orientation(None, "unusual display matrix: ignored, because it does not have nine numbers")
    a, b, _, c, d = numpy.frombuffer(content, numpy.int32)[:5].astype(float) / 65536
    # Columns are scaled to one length each, so that unequal scaling does not look like a turn.
    first, second = float(numpy.hypot(a, b)), float(numpy.hypot(c, d))
    if not first or not second:
        return Orientation(None, "unusual display matrix: ignored, because it shows nothing")
    given = numpy.array([a / first, b / first, c / second, d / second])
    likeness = {key: float(given @ key) / 2 for key in _ORIENTATIONS}
    best = max(likeness, key=lambda key: likeness[key])
    note = None
    if likeness[best] < _EXACT:
        angle = numpy.degrees(numpy.arctan2(b, a))
        note = f"unusual display matrix: turned by {angle:.0f} degrees or skewed; the nearest right angle is used"
    return Orientation(_ORIENTATIONS[best], note)
