"""The fundamental of a note by YIN (de Cheveigne and Kawahara 2002), and how many generated notes have the one asked.

python scripts/predict.py --checkpoint RUN --count 40 --output notes --format jsonl > notes.jsonl
python -m domains.audio.pitch notes.jsonl
"""

import json
import math
import sys
from pathlib import Path

import numpy
from numpy.typing import NDArray

from domains.audio.files import FileClip, Samples
from domains.audio.sample import RATE, frequency
from suite.errors import DataError, SuiteError
from suite.sources import read_lines

_LOWEST, _HIGHEST = 80.0, 1200.0
_WINDOW, _HOP = 0.04, 0.02  # seconds


def fundamental(samples: Samples, rate: int, *, threshold: float = 0.15) -> float | None:
    """The median fundamental in hertz of the voiced frames; ``None`` if there is none.

    A frame is voiced if its normalised difference function dips below ``threshold`` between 80 and 1,200 Hz. Frames
    of less than a twentieth of the loudest one's level are left out.
    """
    window, hop = int(_WINDOW * rate), int(_HOP * rate)
    longest, shortest = math.ceil(rate / _LOWEST), int(rate / _HIGHEST)
    starts = range(0, len(samples) - window - longest + 1, hop)
    frames = [samples[start : start + window + longest].astype(numpy.float64) for start in starts]
    levels = [float(numpy.sqrt(numpy.mean(frame**2))) for frame in frames]
    least = max(levels, default=0.0) / 20
    found = [
        _frame(frame, window, shortest, longest, threshold)
        for frame, level in zip(frames, levels, strict=True)
        if level > least
    ]
    periods = [period for period in found if period is not None]
    return rate / float(numpy.median(periods)) if periods else None


def _frame(frame: NDArray[numpy.float64], window: int, shortest: int, longest: int, threshold: float) -> float | None:
    """The period of one frame in samples, by parabolic interpolation of the first deep dip."""
    lags = numpy.arange(longest + 1)
    squares = numpy.concatenate([[0.0], numpy.cumsum(frame**2)])
    energy = squares[lags + window] - squares[lags]
    products = numpy.correlate(frame, frame[:window], mode="valid")[: longest + 1]
    difference = numpy.maximum(energy[0] + energy - 2 * products, 0.0)
    totals = numpy.cumsum(difference[1:])
    normal = numpy.ones(longest + 1)
    normal[1:] = difference[1:] * lags[1:] / numpy.maximum(totals, 1e-12)
    below = numpy.flatnonzero(normal[shortest:longest] < threshold)
    if not len(below):
        return None
    lag = shortest + int(below[0])
    while lag + 1 < longest and normal[lag + 1] < normal[lag]:
        lag += 1
    left, middle, right = normal[lag - 1], normal[lag], normal[lag + 1]
    bend = left - 2 * middle + right
    return lag + (0.5 * (left - right) / bend if bend > 0 else 0.0)


def semitones(hertz: float, asked: float) -> float:
    """How far ``hertz`` is above ``asked``."""
    return 12.0 * math.log2(hertz / asked)


def check(listing: Path) -> list[str]:
    """A line for each generated note of a listing (JSON lines with ``file`` and ``pitch``), and the share that fits.

    Raises:
        DataError: a listing or a file that cannot be read.
    """
    lines, hits, total = [], 0, 0
    for number, line in enumerate(read_lines(listing), start=1):
        try:
            row = json.loads(line)
            path, pitch = Path(row["file"]), row["conditions"]["pitch"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{listing}, line {number}: file and conditions.pitch are needed") from None
        clip = FileClip(path, rate=RATE)
        found, asked = fundamental(clip.read(0, clip.frames), RATE), frequency(pitch)
        off = None if found is None else semitones(found, asked)
        hits, total = hits + (off is not None and abs(off) <= 1.0), total + 1
        measured = "no pitch" if found is None or off is None else f"{found:7.1f} Hz, {off:+.2f} semitones"
        lines.append(f"{path}  asked {asked:7.1f} Hz  {measured}")
    share = 100 * hits / max(total, 1)
    return [*lines, f"{hits} of {total} notes within a semitone ({share:.0f}%)"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m domains.audio.pitch LISTING.jsonl")
    try:
        print("\n".join(check(Path(sys.argv[1]))))
    except SuiteError as error:
        sys.exit(f"pitch: {error}")
