"""Bits per sample without a network: what a WaveNet's figure has to be read beside.

    python -m domains.audio.baselines fsdd
    python -m domains.audio.baselines files --train my/folder --rate 16000

Everything is counted or fitted on the training split and scored on the test split, the same classes that the model
predicts. A recording begins after silence.
"""

import argparse
import sys

import numpy
import torch
from numpy.typing import NDArray

from domains.audio.data import AudioData
from suite.errors import SuiteError
from suite.mu_law import mu_law_decode, mu_law_encode, silence

CLASSES, TAPS, LEVELS = 256, 32, 24
_DECAY = 0.95  # of the recent error that decides how wide the predictor's errors are taken to be

Codes = NDArray[numpy.int64]


def codes_of(data: AudioData, split: str) -> list[Codes]:
    """Every recording of a split as mu-law classes."""
    clips = [recording.clip for recording in data.items(split)]
    waves = [torch.from_numpy(numpy.ascontiguousarray(clip.read(0, clip.frames))) for clip in clips]
    return [mu_law_encode(wave, CLASSES).numpy() for wave in waves]


def counted(train: list[Codes], test: list[Codes], *, order: int) -> float:
    """Bits of a model of 0 to 2 classes before, backed off by Witten and Bell's (1991) interpolation to lower orders.

    A context that was followed by T different classes N times gives them their counts' part of N + T, and the rest to
    the order below; below order 0 all classes are alike.
    """
    pasts, targets = _contexts(test, order)
    chances = numpy.full(len(targets), 1.0 / CLASSES)
    for length in range(order + 1):
        before, after = _contexts(train, length)
        size = CLASSES**length
        counts = numpy.bincount(before * CLASSES + after, minlength=size * CLASSES).reshape(size, CLASSES)
        totals, kinds = counts.sum(axis=1), (counts > 0).sum(axis=1)
        here = pasts % size
        seen = totals[here] > 0
        mixed = (counts[here, targets] + kinds[here] * chances) / numpy.maximum(totals[here] + kinds[here], 1)
        chances = numpy.where(seen, mixed, chances)
    return float(-numpy.log2(chances).mean())


def _contexts(recordings: list[Codes], order: int) -> tuple[Codes, Codes]:
    """For each sample of all recordings the ``order`` classes before it as one number, and its class."""
    pasts, targets = [], []
    for codes in recordings:
        padded = numpy.concatenate([numpy.full(order, silence(CLASSES)), codes])
        past = numpy.zeros(len(codes), dtype=numpy.int64)
        for back in range(order, 0, -1):
            past = past * CLASSES + padded[order - back : len(padded) - back]
        pasts.append(past)
        targets.append(codes)
    return numpy.concatenate(pasts), numpy.concatenate(targets)


def predicted(train: list[Codes], test: list[Codes]) -> float:
    """Bits of a linear predictor of 32 samples, fitted by least squares, with Laplace errors.

    How wide the errors are is looked up by how large they have been lately: a mean of each of 24 levels, on train.
    """
    samples, normal, target = [_decoded(codes) for codes in train], numpy.zeros((TAPS, TAPS)), numpy.zeros(TAPS)
    for wave in samples:
        rows = _rows(wave)
        normal += rows.T @ rows
        target += rows.T @ wave
    taps = numpy.linalg.solve(normal + 1e-9 * numpy.trace(normal) * numpy.eye(TAPS), target)
    errors = [wave - _rows(wave) @ taps for wave in samples]
    recent = [_recent(error) for error in errors]
    edges = numpy.quantile(numpy.concatenate(recent), numpy.linspace(0, 1, LEVELS + 1)[1:-1])
    levels = numpy.concatenate([numpy.searchsorted(edges, each) for each in recent])
    sizes = numpy.abs(numpy.concatenate(errors))
    widths = numpy.array([max(sizes[levels == level].mean(), 1e-6) for level in range(LEVELS)])
    # Where one class ends and the next begins: half way, in the squeezed domain as the encoder rounds there.
    middles = numpy.arange(CLASSES - 1) + 0.5
    borders = numpy.concatenate([[-numpy.inf], mu_law_decode(torch.from_numpy(middles)).double().numpy(), [numpy.inf]])
    bits, count = 0.0, 0
    for codes in test:
        wave = _decoded(codes)
        guess = _rows(wave) @ taps
        width = widths[numpy.searchsorted(edges, _recent(wave - guess))]
        low, high = (borders[codes] - guess) / width, (borders[codes + 1] - guess) / width
        chance = _laplace(high) - _laplace(low)
        bits -= float(numpy.log2(0.999 * chance + 0.001 / CLASSES).sum())
        count += len(codes)
    return bits / count


def _decoded(codes: Codes) -> NDArray[numpy.float64]:
    return mu_law_decode(torch.from_numpy(codes), CLASSES).double().numpy()


def _rows(wave: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """The 32 samples before each, nearest first."""
    padded = numpy.concatenate([numpy.zeros(TAPS), wave])
    return numpy.lib.stride_tricks.sliding_window_view(padded, TAPS)[: len(wave), ::-1]


def _recent(errors: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """A running mean of the absolute errors before each sample."""
    found, level = numpy.empty(len(errors)), 0.0
    for place, error in enumerate(numpy.abs(errors).tolist()):
        found[place] = level
        level = _DECAY * level + (1.0 - _DECAY) * error
    return found


def _laplace(value: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    half = 0.5 * numpy.exp(-numpy.abs(value))
    return numpy.where(value < 0, half, 1.0 - half)


def table(data: AudioData) -> list[str]:
    """The baselines of a data set, a line each."""
    train, test = codes_of(data, "train"), codes_of(data, "test")
    count = sum(len(codes) for codes in test)
    rows = [(f"classes counted, order {order}", counted(train, test, order=order)) for order in (0, 1, 2)]
    rows.append((f"linear predictor, {TAPS} samples", predicted(train, test)))
    return [f"{count:,} samples of {len(test)} recordings", *(f"{name:<32} {bits:.3f} bits" for name, bits in rows)]


def main(arguments: list[str]) -> None:
    """Print the table of a data set."""
    parser = argparse.ArgumentParser(prog="python -m domains.audio.baselines", description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=["sample", "fsdd", "ljspeech", "files"])
    parser.add_argument("--train", help="with files: a folder or a manifest")
    parser.add_argument("--rate", type=int, default=8000, help="hertz")
    options = parser.parse_args(arguments)
    data = AudioData(dataset=options.dataset, train=options.train, sample_rate=options.rate)
    print("\n".join(table(data)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SuiteError as error:
        sys.exit(f"baselines: {error}")
