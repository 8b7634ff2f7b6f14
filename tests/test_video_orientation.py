"""The eight orientations of videos (display matrix) and of pictures (EXIF), and matrices that are none of them."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image

from domains.video.decoding import decode_into
from domains.video.pictures import decode_picture

Pixels = NDArray[numpy.uint8]
Turn = Callable[[Pixels], Pixels]
PLAIN = Path(__file__).parent / "odd_inputs" / "video" / "plain.mp4"
# EXIF number, matrix (a, b, c, d), and the upright picture from the stored one.
ORIENTATIONS: dict[str, tuple[int, tuple[int, int, int, int], Turn]] = {
    "identity": (1, (1, 0, 0, 1), lambda stored: stored),
    "hflip": (2, (-1, 0, 0, 1), lambda stored: stored[:, ::-1]),
    "rot180": (3, (-1, 0, 0, -1), lambda stored: stored[::-1, ::-1]),
    "vflip": (4, (1, 0, 0, -1), lambda stored: stored[::-1]),
    "transpose": (5, (0, 1, 1, 0), lambda stored: stored.transpose(1, 0, 2)),
    "clockwise": (6, (0, 1, -1, 0), lambda stored: numpy.rot90(stored, -1)),
    "transverse": (7, (0, -1, -1, 0), lambda stored: stored[::-1, ::-1].transpose(1, 0, 2)),
    "anticlockwise": (8, (0, -1, 1, 0), lambda stored: numpy.rot90(stored, 1)),
}


def with_matrix(path: Path, values: tuple[float, float, float, float]) -> Path:
    """``plain.mp4`` with the matrix (a, b, c, d) in its track header (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(PLAIN.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (round(value * 65536).to_bytes(4, "big", signed=True) for value in values)
    zero = bytes(4)
    content[place : place + 36] = a + b + zero + c + d + zero + zero + zero + (1 << 30).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def frames_of(path: Path, *, size: int = 64, fit: str = "crop") -> tuple[list[Pixels], list[str]]:
    frames: list[Pixels] = []
    notes: list[str] = []
    decode_into(frames.append, path, size=size, fit=fit, notes=notes)  # type: ignore[arg-type]
    return [frame.copy() for frame in frames], notes


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_videos_are_shown_upright(name: str, scale: float, tmp_path: Path) -> None:
    _, matrix, turn = ORIENTATIONS[name]
    a, b, c, d = (scale * value for value in matrix)
    stored, _ = frames_of(PLAIN)
    found, notes = frames_of(with_matrix(tmp_path / "x.mp4", (a, b, c, d)))
    assert len(found) == len(stored) == 20
    for one, other in zip(found, stored, strict=True):
        numpy.testing.assert_array_equal(one, turn(other))
    assert notes == []
    # The marked frames tell all eight apart.
    others = [each for key, (_, _, each) in ORIENTATIONS.items() if key != name]
    assert not any(numpy.array_equal(found[0], other(stored[0])) for other in others)


@pytest.mark.parametrize(("angle", "nearest"), [(50, "clockwise"), (20, "identity"), (-140, "rot180")])
def test_other_angles_are_reported(angle: int, nearest: str, tmp_path: Path) -> None:
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    stored, _ = frames_of(PLAIN)
    found, notes = frames_of(with_matrix(tmp_path / "x.mp4", (cos, sin, -sin, cos)))
    turn = ORIENTATIONS[nearest][2]
    numpy.testing.assert_array_equal(found[0], turn(stored[0]))
    assert notes == [f"unusual display matrix: turned by {angle} degrees or skewed; the nearest right angle is used"]


def test_an_empty_matrix_is_reported(tmp_path: Path) -> None:
    stored, _ = frames_of(PLAIN)
    found, notes = frames_of(with_matrix(tmp_path / "x.mp4", (0, 0, 0, 0)))
    numpy.testing.assert_array_equal(found[0], stored[0])
    assert notes in ([], ["unusual display matrix: ignored, because it shows nothing"])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_pictures_are_shown_upright(name: str, form: str) -> None:
    number, _, turn = ORIENTATIONS[name]
    stored = numpy.zeros((32, 32, 3), numpy.uint8)
    stored[:16, :16], stored[:16, 16:], stored[16:, :16] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
    tags, file = Image.Exif(), io.BytesIO()
    tags[0x112] = number
    lossless: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    Image.fromarray(stored).save(file, form, exif=tags.tobytes(), **lossless.get(form, {}))
    found = decode_picture(file.getvalue(), size=32, fit="stretch")
    numpy.testing.assert_allclose(found.astype(int), turn(stored), atol=30 if form == "JPEG" else 0)
