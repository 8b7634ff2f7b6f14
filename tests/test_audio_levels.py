"""What is measured of samples: what will be clipped, what was stored as integers, what cancels in the mix-down."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile
from numpy.typing import NDArray

from domains.audio.checking import find_faults
from domains.audio.files import open_clips
from domains.audio.levels import Levels, Meter

RNG = numpy.random.default_rng(0)
SPEECH: NDArray[Any] = RNG.normal(size=8000) * numpy.repeat(RNG.uniform(0, 0.2, 80), 100)
SPEECH /= 2 * abs(SPEECH).max()
SPIKE = SPEECH.copy()
SPIKE[17] = 32_000.0


def levels_of(samples: NDArray[Any], *, floating: bool = True, part: int = 1000) -> Levels:
    meter = Meter(floating=floating)
    block = samples.astype(numpy.float32).reshape(len(samples), -1)
    for start in range(0, len(block), part):
        piece = block[start : start + part]
        meter.add(piece, piece.mean(axis=1))
    return meter.read()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (SPEECH, False),
        (3.0 * SPEECH, False),
        (SPEECH + 1.5, False),  # an offset
        (SPIKE, False),
        (numpy.where(SPEECH > 0, 1.0, -1.0), False),
        (numpy.round(SPEECH * 2**15), True),
        (SPEECH * 2**15, True),  # resampled, so that no sample is whole
        (numpy.round(SPEECH * 2**15 / 1000), True),  # a quiet one
        (SPEECH * 2**23, True),
        (SPEECH * 2**31, True),
        (numpy.round(SPEECH * 127) + 128, True),  # 8 bits
        (numpy.concatenate([numpy.zeros(10**6), numpy.round(SPEECH * 2**15)]), True),
    ],
)
def test_integers_that_were_stored_as_floats(samples: NDArray[Any], expected: bool) -> None:
    assert levels_of(samples).looks_integer == expected
    assert not levels_of(samples, floating=False).looks_integer


def test_samples_above_1_are_those_of_the_mix_down() -> None:
    assert levels_of(SPIKE).above == 1
    assert levels_of(3.0 * SPEECH).above == int((abs(3.0 * SPEECH.astype(numpy.float32)) > 1).sum()) > 0
    assert levels_of(numpy.stack([3.0 * SPEECH, 0 * SPEECH], axis=1) / 3).above == 0
    assert levels_of(numpy.stack([1.2 * numpy.sign(SPEECH), 0.5 * SPEECH], axis=1)).above == 0, "nothing is clipped"


OTHER = 0.1 * RNG.normal(size=8000)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([SPEECH], False),
        ([SPEECH, SPEECH], False),
        ([SPEECH, OTHER], False),
        ([SPEECH, 0 * SPEECH], False),
        ([SPEECH, *[0 * SPEECH] * 7], False),
        ([0 * SPEECH, 0 * SPEECH], False),
        ([SPEECH, -SPEECH], True),
        ([SPEECH, -0.9 * SPEECH], True),
        ([SPEECH + 0.3, 0.3 - SPEECH], True),  # under an offset
        ([SPEECH, -SPEECH, OTHER, -OTHER], True),
        ([SPEECH, OTHER, -SPEECH], False),
    ],
)
def test_channels_that_cancel(channels: list[NDArray[Any]], expected: bool) -> None:
    assert levels_of(numpy.stack(channels, axis=1)).cancels == expected


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_reports_are_the_same_when_files_are_known(
    subtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    files = {"hot": 1.5 * numpy.sign(SPEECH), "spike": SPIKE, "good": SPEECH}
    for name, samples in files.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 8000, subtype=subtype)
    soundfile.write(tmp_path / "anti.wav", numpy.stack([SPEECH, -SPEECH], axis=1), 8000, subtype="PCM_16")
    paths = sorted(tmp_path.glob("*.wav"))
    said = []
    for _ in range(2):
        clips, problems = open_clips(paths, rate=8000)
        assert not problems + find_faults(clips, "train")
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert f"8,001 samples above 1 in 2 of 4 files are clipped (the largest is 3.2e+04, in {tmp_path}/spike" in said[0]
    assert "in 1 of 4 files the channels cancel" in said[0]
    assert said[0].count("\n") == 2
