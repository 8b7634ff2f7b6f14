"""Small pictures for the embedded samples: one soft-edged shape on a mottled ground, drawn with numpy alone."""

from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

SHAPES = ("bar", "cross", "disc", "ring", "square", "triangle")
SIZE = 48  # height and width, in pixels
_MOTTLE = 6  # patches of the ground along each side
_CONTRAST = 70.0  # a shape is at least so much brighter than the ground, of 255

Picture = NDArray[numpy.uint8]


class Scene(NamedTuple):
    """What all frames of a clip share: the ``ground (S, S, 3)`` and the shape's looks."""

    ground: NDArray[numpy.float64]
    shape: str
    radius: float
    turn: float
    colour: NDArray[numpy.float64]


def draw_scene(
    random: numpy.random.Generator, *, shape: str | None = None, radius: tuple[float, float] = (4.5, 7.5)
) -> Scene:
    """A scene drawn from ``random``, its shape between two radii, in pixels; the shape too unless it is given."""
    patches = random.uniform(-25.0, 25.0, (_MOTTLE, _MOTTLE, 3)) + random.uniform(30.0, 130.0, 3)
    ground = _stretch(patches)
    brightness = ground.mean()
    while True:
        colour = random.uniform(0.0, 255.0, 3)
        if colour.mean() > brightness + _CONTRAST:
            break
    chosen = shape or str(random.choice(SHAPES))
    return Scene(ground, chosen, random.uniform(*radius), random.uniform(0.0, 2 * numpy.pi), colour)


def _stretch(patches: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Patches to a whole picture, linearly interpolated."""
    place = numpy.linspace(0.0, _MOTTLE - 1.0, SIZE)
    weights = numpy.clip(1.0 - numpy.abs(place[:, None] - numpy.arange(_MOTTLE)), 0.0, 1.0)
    return numpy.einsum("ip,pqc,jq->ijc", weights, patches, weights, optimize=True)


def draw(scene: Scene, x: float, y: float) -> Picture:
    """The scene with its shape centred at ``x`` and ``y``, in pixels from the upper left corner."""
    across, down = numpy.meshgrid(numpy.arange(SIZE) + 0.5 - x, numpy.arange(SIZE) + 0.5 - y)
    cosine, sine = numpy.cos(scene.turn), numpy.sin(scene.turn)
    distance = _DISTANCES[scene.shape](cosine * across + sine * down, cosine * down - sine * across, scene.radius)
    cover = numpy.clip(0.5 - distance, 0.0, 1.0)[:, :, None]
    return numpy.rint(scene.ground * (1.0 - cover) + scene.colour * cover).clip(0, 255).astype(numpy.uint8)


# Distance of each pixel from the edge of a shape of radius r around the origin, negative inside.


def _bar(x: Any, y: Any, r: float) -> Any:
    return numpy.maximum(numpy.abs(x) - 1.2 * r, numpy.abs(y) - 0.4 * r)


def _cross(x: Any, y: Any, r: float) -> Any:
    return numpy.minimum(_bar(x, y, 0.9 * r), _bar(y, x, 0.9 * r))


def _disc(x: Any, y: Any, r: float) -> Any:
    return numpy.hypot(x, y) - r


def _ring(x: Any, y: Any, r: float) -> Any:
    return numpy.abs(numpy.hypot(x, y) - 0.8 * r) - 0.3 * r


def _square(x: Any, y: Any, r: float) -> Any:
    return numpy.maximum(numpy.abs(x), numpy.abs(y)) - 0.85 * r


def _triangle(x: Any, y: Any, r: float) -> Any:
    sides = [x * numpy.cos(angle) + y * numpy.sin(angle) for angle in (0.5, 2.594, 4.689)]
    return numpy.maximum.reduce(sides) - 0.6 * r


_DISTANCES = {"bar": _bar, "cross": _cross, "disc": _disc, "ring": _ring, "square": _square, "triangle": _triangle}
