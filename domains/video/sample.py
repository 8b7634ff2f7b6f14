"""The embedded samples: clips that only their motion tells apart, as real H.264 files; and pictures of six shapes.

A shape moves on a circle of N places (12, 16 or 20). Whatever its class, a clip shows each place exactly once: once
around slowly, twice or four times around in larger steps, or around and back. So the *set* of frames of a clip has the
same distribution in every class, not only its single frames, and frames that are averaged tell nothing about it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy
from numpy.typing import NDArray
from PIL import Image

from domains.video.drawing import SHAPES, SIZE, Picture, draw, draw_scene
from suite.console import notice
from suite.errors import SuiteError
from suite.seeding import mix

VERSION = 4  # of what is drawn: another one is another folder of the cache
SPEEDS = {"slow": 1, "medium": 2, "fast": 4}  # times around
PLACES = (12, 16, 20)
RATES = (12, 15, 24, 25, 30)
CLASSES = (
    *(f"{way}_{speed}" for way in ("clockwise", "anticlockwise") for speed in SPEEDS),
    "clockwise_and_back",
    "anticlockwise_and_back",
)
# x264's look ahead reads what happens to stand in memory beside pictures this small: without it, the same file always.
_LOOK_AHEAD = "rc-lookahead=0:mbtree=0:weightp=0:b-adapt=0:scenecut=0"
_ENCODER = {"crf": "10", "preset": "veryfast", "x264-params": _LOOK_AHEAD}
SPLITS = {"train": 1.0, "val": 0.125, "test": 0.25}  # shares of the number of training clips


def order(label: str, count: int) -> NDArray[numpy.int64]:
    """In which order a clip of class ``label`` visits ``count`` places: each exactly once. ``count`` divides by 4."""
    way, _, manner = label.partition("_")
    if manner == "and_back":
        around = numpy.arange(0, count, 2)
        places = numpy.concatenate([around, around[::-1] + 1])
    else:
        loops = SPEEDS[manner]
        places = numpy.concatenate([numpy.arange(start, count, loops) for start in range(loops)])
    return places if way == "clockwise" else (-places) % count


def render(label: str, *, seed: int) -> list[Picture]:
    """The frames of a clip. For one ``seed``, every class has the same frames in another order."""
    random = numpy.random.default_rng(seed)
    scene, count = draw_scene(random), int(random.choice(PLACES))
    radius, offset, first = random.uniform(10.0, 14.0), random.random(), int(random.integers(count))
    x, y = random.uniform(-3.0, 3.0, 2) + SIZE / 2
    # Downwards is positive in a picture: a growing angle is clockwise.
    angles = 2 * numpy.pi * (numpy.arange(count) + offset) / count
    frames = [draw(scene, x + radius * numpy.cos(angle), y + radius * numpy.sin(angle)) for angle in angles]
    return [frames[place] for place in (order(label, count) + first) % count]


def encode(frames: list[Picture], path: Path, *, rate: int) -> None:
    """Write frames as an H.264 file, nearly without loss, at ``rate`` frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=_ENCODER)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def clips_folder(root: Path, *, size: int, seed: int) -> Path:
    """The clips under the cache folder ``root``, rendered if they are not there: SPLIT/CLASS/NUMBER.mp4.

    ``size`` is the number of training clips.
    """

    def make(folder: Path, split: str, number: int) -> None:
        label = CLASSES[number % len(CLASSES)]
        path = folder / split / label / f"{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = mix("clip", seed, split, number)
        encode(render(label, seed=drawn), path, rate=RATES[drawn % len(RATES)])

    return _made(root / f"sample-clips-{VERSION}-{size}-{seed}", size=size, least=len(CLASSES), make=make)


def pictures_folder(root: Path, *, size: int, seed: int) -> Path:
    """The pictures under the cache folder ``root``, drawn if they are not there: SPLIT/SHAPE/NUMBER.png."""

    def make(folder: Path, split: str, number: int) -> None:
        shape = SHAPES[number % len(SHAPES)]
        path = folder / split / shape / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        random = numpy.random.default_rng(mix("picture", seed, split, number))
        scene = draw_scene(random, shape=shape, radius=(9.0, 15.0))
        Image.fromarray(draw(scene, *random.uniform(16.0, SIZE - 16.0, 2))).save(path, compress_level=1)

    return _made(root / f"sample-pictures-{VERSION}-{size}-{seed}", size=size, least=len(SHAPES), make=make)


def _made(final: Path, *, size: int, least: int, make: Callable[[Path, str, int], None]) -> Path:
    """``final`` with all files of all splits: made beside it and renamed, so that it is there whole or not at all."""
    if final.is_dir():
        return final
    counts = {split: max(round(size * share), least) for split, share in SPLITS.items()}
    notice(f"data: rendering {sum(counts.values()):,} files of the embedded sample into {final}")
    temporary = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f"{final.name}."))
        for split, count in counts.items():
            for number in range(count):
                make(temporary, split, number)
        os.replace(temporary, final)
    except OSError as error:
        if final.is_dir():  # another process was faster
            return final
        raise SuiteError(
            f"{final}: the sample cannot be written ({error.strerror}): give another --data.cache"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return final
