"""The embedded sample's notes: their pitch, as measured, and how they are chosen and divided."""

import numpy
import pytest

from domains.audio import sample
from domains.audio.data import AudioData
from domains.audio.pitch import fundamental, semitones
from suite.errors import UsageError
from suite.splits import SPLITS


def test_the_sample_has_ten_minutes_of_notes_with_their_pitch() -> None:
    notes = sample.generate("train", minutes=10)
    assert sum(len(note.samples) for note in notes) == 10 * 60 * sample.RATE
    assert {note.instrument for note in notes} == set(sample.INSTRUMENTS)
    assert len({note.pitch for note in notes}) == 37
    found = [fundamental(note.samples, sample.RATE) for note in notes[::10]]
    asked = [sample.frequency(note.pitch) for note in notes[::10]]
    near = [hertz is not None and abs(semitones(hertz, f)) < 0.5 for hertz, f in zip(found, asked, strict=True)]
    assert sum(near) >= 0.98 * len(near)
    again = sample.generate("train", minutes=0.1)
    assert all(numpy.array_equal(one.samples, other.samples) for one, other in zip(again[:3], notes, strict=False))
    assert not numpy.array_equal(sample.generate("test", minutes=0.1)[0].samples[:500], notes[0].samples[:500])


@pytest.mark.parametrize("hertz", [85.0, 110.0, 261.6, 440.0, 880.0])
@pytest.mark.parametrize("rate", [8000, 22050])
def test_the_fundamental_of_tones_is_found(hertz: float, rate: int) -> None:
    time = numpy.arange(rate // 2) / rate
    rng = numpy.random.default_rng(0)
    pure = numpy.sin(2 * numpy.pi * hertz * time)
    harmonics = [numpy.sin(2 * numpy.pi * k * hertz * time + k) / k for k in range(1, 6) if k * hertz < rate / 2]
    rich = numpy.sum(harmonics, axis=0)
    weak = 0.3 * pure + numpy.sin(4 * numpy.pi * hertz * time)
    for wave in (pure, rich, weak, pure + 0.05 * rng.normal(size=len(time))):
        found = fundamental(wave.astype(numpy.float32), rate)
        assert found is not None
        assert abs(semitones(found, hertz)) < 0.35  # at 8 kHz a period of 1,100 Hz is seven samples long


def test_noise_and_silence_have_no_fundamental() -> None:
    noise = numpy.random.default_rng(0).normal(size=8000).astype(numpy.float32)
    for wave in (noise, numpy.zeros(8000, numpy.float32), numpy.zeros(10, numpy.float32)):
        assert fundamental(wave, 8000) is None


def test_the_sample_can_be_chosen_from_and_cut_into_folds() -> None:
    low = AudioData(sample_minutes=0.2, only=["instrument=plucked"], most=1)
    assert {each.conditions["instrument"] for split in SPLITS for each in low.items(split)} == {"plucked"}
    with pytest.raises(UsageError, match=r"instrument=drum: no file has it; there are \w+, "):
        AudioData(sample_minutes=0.2, leave_out=["instrument=drum"]).items("train")
    folds = [AudioData(sample_minutes=0.2, folds=3, fold=fold, held_out=0.2) for fold in range(3)]
    tested = [{each.clip.name for each in data.items("test")} for data in folds]
    assert len(set.union(*tested)) == sum(map(len, tested)) == len(sample.generate("train", minutes=0.2))
