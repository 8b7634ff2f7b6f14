"""The embedded sample: notes of three instruments from a small synthesiser. No recordings, nobody's music.

- plucked: a delay line that loses its highs as it rings (Karplus and Strong 1983), begun with the shape of a string
  pulled aside at some place.
- blown: harmonics that swell in and die away, vibrato, breath noise.
- struck: inharmonic partials of a bar, each with its own decay, and a short noise of the mallet.

Every note is a pure function of (split, number, seed).
"""

from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from suite.seeding import mix

RATE = 8000
INSTRUMENTS = ("blown", "plucked", "struck")
LOWEST, HIGHEST = 45, 81  # MIDI numbers: A2 (110 Hz) to A5 (880 Hz), three octaves
PITCHES = range(LOWEST, HIGHEST + 1)
_PARTIALS = ((1.0, 1.0, 1.0), (2.756, 0.35, 2.2), (5.404, 0.15, 4.0))  # of a free bar: ratio, level, decay

Wave = NDArray[numpy.float32]


class Note(NamedTuple):
    """One note: samples at ``RATE`` hertz in [-1, 1] and what it is."""

    samples: Wave
    instrument: str
    pitch: str


def frequency(pitch: int | str) -> float:
    """Hertz of a MIDI number (A4 is 69 and 440 Hz)."""
    return 440.0 * 2.0 ** ((int(pitch) - 69) / 12.0)


def generate(split: str, *, minutes: float, seed: int = 0) -> list[Note]:
    """About ``minutes`` of notes of 0.6 to 1.2 seconds; instruments and pitches take turns in a shuffled order."""
    pairs = [(instrument, pitch) for instrument in INSTRUMENTS for pitch in PITCHES]
    notes: list[Note] = []
    left = round(minutes * 60 * RATE)
    while left > 0:
        rng = numpy.random.default_rng(mix("notes", split, seed, len(notes) // len(pairs)))
        for place in rng.permutation(len(pairs)):
            instrument, pitch = pairs[place]
            size = min(int(rng.uniform(0.6, 1.2) * RATE), max(left, RATE // 4))
            notes.append(Note(note(instrument, pitch, size=size, rng=rng), instrument, str(pitch)))
            left -= size
            if left <= 0:
                break
    return notes


def note(instrument: str, pitch: int, *, size: int, rng: numpy.random.Generator) -> Wave:
    """``size`` samples of one note, its level and colour drawn from ``rng``."""
    hertz = frequency(pitch) * 2.0 ** (rng.normal(0.0, 0.03) / 12.0)  # a few cents off, as players are
    makers = {"plucked": _plucked, "blown": _blown, "struck": _struck}
    wave = makers[instrument](hertz, size, rng)
    fade = min(size // 4, RATE // 50)
    wave[-fade:] *= numpy.linspace(1.0, 0.0, fade)
    wave *= rng.uniform(0.5, 0.9) / max(1e-9, float(numpy.abs(wave).max()))
    return (wave + rng.normal(0.0, 2e-4, size)).astype(numpy.float32)


def _plucked(hertz: float, size: int, rng: numpy.random.Generator) -> NDArray[numpy.float64]:
    """One period goes round a delay line whose filter averages neighbours: computed period by period, all at once."""
    period = RATE / hertz - 0.5  # the average of two neighbours delays by half a sample
    length = int(period)
    share = period - length
    loss = 0.5 ** (1.0 / (hertz * rng.uniform(0.15, 0.4)))  # half the level after so many seconds
    place, pluck = numpy.arange(length + 2) / (length + 2), rng.uniform(0.15, 0.4)
    burst = numpy.minimum(place / pluck, (1.0 - place) / (1.0 - pluck)) + rng.uniform(-0.15, 0.15, length + 2)
    wave = numpy.zeros(size + length + 2)
    wave[: length + 2] = burst - burst.mean()
    for start in range(length + 2, size + length + 2, length):
        stop = min(start + length, len(wave))
        # Taps at `length`, one and two more: a linear interpolation of the average's fractional delay.
        taps = [wave[start - length - back : stop - length - back] for back in (0, 1, 2)]
        wave[start:stop] = loss * 0.5 * ((1 - share) * (taps[0] + taps[1]) + share * (taps[1] + taps[2]))
    return wave[:size]


def _blown(hertz: float, size: int, rng: numpy.random.Generator) -> NDArray[numpy.float64]:
    time = numpy.arange(size) / RATE
    depth, speed = rng.uniform(0.002, 0.006), rng.uniform(4.5, 6.5)
    vibrato = depth * numpy.minimum(time / 0.3, 1.0) * numpy.sin(2 * numpy.pi * speed * time)
    phase = 2 * numpy.pi * hertz * numpy.cumsum(1.0 + vibrato) / RATE
    wave = numpy.zeros(size)
    for harmonic, level in enumerate((1.0, 0.45, 0.3, 0.12, 0.06), start=1):
        if harmonic * hertz < 0.45 * RATE:
            wave += level * numpy.sin(harmonic * phase)
    rise = rng.uniform(0.03, 0.08)
    envelope = numpy.minimum(time / rise, 1.0) * numpy.minimum((size / RATE - time) / 0.1, 1.0).clip(0.0)
    return envelope * (wave + 0.02 * rng.normal(size=size))


def _struck(hertz: float, size: int, rng: numpy.random.Generator) -> NDArray[numpy.float64]:
    time = numpy.arange(size) / RATE
    decay = rng.uniform(3.0, 5.0)
    wave = numpy.zeros(size)
    for ratio, level, faster in _PARTIALS:
        if ratio * hertz < 0.45 * RATE:
            wave += level * numpy.exp(-decay * faster * time) * numpy.sin(2 * numpy.pi * ratio * hertz * time)
    mallet = 0.2 * rng.normal(size=size) * numpy.exp(-time / 0.004)
    return (wave + mallet) * numpy.minimum(time / 0.002, 1.0)
