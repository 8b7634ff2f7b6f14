"""The baselines against their definitions on small sets."""

import math
from collections import Counter

import numpy
import pytest

from domains.audio.baselines import Codes, counted, main, predicted
from suite.mu_law import mu_law_encode, silence


def recordings(count: int, size: int, seed: int) -> list[Codes]:
    rng = numpy.random.default_rng(seed)
    return [rng.integers(100, 108, size) for _ in range(count)]


def by_definition(train: list[Codes], test: list[Codes], order: int) -> float:
    """Witten and Bell's interpolation with dictionaries."""
    counts: dict[tuple[int, ...], Counter[int]] = {}
    for codes in train:
        padded = [silence()] * 2 + codes.tolist()
        for place in range(2, len(padded)):
            for length in range(order + 1):
                counts.setdefault(tuple(padded[place - length : place]), Counter())[padded[place]] += 1

    def chance(past: tuple[int, ...], code: int) -> float:
        lower = chance(past[1:], code) if past else 1 / 256
        seen = counts.get(past)
        return lower if seen is None else (seen[code] + len(seen) * lower) / (seen.total() + len(seen))

    bits = []
    for codes in test:
        padded = [silence()] * 2 + codes.tolist()
        bits += [-math.log2(chance(tuple(padded[p - order : p]), padded[p])) for p in range(2, len(padded))]
    return sum(bits) / len(bits)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_counted_models(order: int) -> None:
    train, test = recordings(3, 150, 0), [*recordings(2, 60, 1), numpy.array([3, 250, 3, 101, 102])]
    assert counted(train, test, order=order) == pytest.approx(by_definition(train, test, order), rel=1e-9)


def test_the_linear_predictor_hears_a_line() -> None:
    import torch

    def sines(seed: int) -> list[Codes]:
        rng = numpy.random.default_rng(seed)
        time = numpy.arange(2000) / 8000
        waves = [0.5 * numpy.sin(2 * numpy.pi * rng.uniform(200, 300) * time) for _ in range(4)]
        return [mu_law_encode(torch.from_numpy(wave)).numpy() for wave in waves]

    train, test = sines(0), sines(1)
    found = predicted(train, test)
    assert found < counted(train, test, order=0) - 2
    noise = [numpy.random.default_rng(5).integers(0, 256, 3000)]
    assert predicted(noise, noise) > 6.5


def test_the_command_prints_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert [word for line in lines for word in ("order 0", "order 1", "order 2", "linear") if word in line] == [
        "order 0", "order 1", "order 2", "linear",
    ]  # fmt: skip
