"""What the embedded clips promise: classes differ in the order of frames alone."""

from pathlib import Path

import numpy
import pytest

from domains.video import sample
from domains.video.decoding import decode
from suite.errors import SuiteError


def test_there_are_eight_motions() -> None:
    assert len(sample.CLASSES) == len(set(sample.CLASSES)) == 8


@pytest.mark.parametrize("count", sample.PLACES)
def test_every_class_visits_each_place_once(count: int) -> None:
    orders = {label: tuple(sample.order(label, count).tolist()) for label in sample.CLASSES}
    assert all(sorted(order) == list(range(count)) for order in orders.values())
    assert len(set(orders.values())) == 8
    steps = {label: numpy.diff(order) % count for label, order in orders.items()}
    for speed, loops in sample.SPEEDS.items():
        assert (steps[f"clockwise_{speed}"] == loops).mean() > 0.6
        assert (steps[f"anticlockwise_{speed}"] == count - loops).mean() > 0.6


@pytest.mark.parametrize("seed", range(4))
def test_classes_have_the_same_frames(seed: int) -> None:
    clips = [sample.render(label, seed=seed) for label in sample.CLASSES]
    bags = [sorted(frame.tobytes() for frame in clip) for clip in clips]
    assert all(bag == bags[0] for bag in bags)
    assert len({tuple(frame.tobytes() for frame in clip) for clip in clips}) == 8


def test_a_larger_angle_is_clockwise() -> None:
    frames = sample.render("clockwise_slow", seed=3)
    ground = numpy.median(numpy.stack(frames), axis=0)
    centres = []
    for frame in frames:
        bright = abs(frame - ground).sum(axis=2) > 60
        down, across = numpy.nonzero(bright)
        centres.append((across.mean(), down.mean()))
    middle = numpy.mean(centres, axis=0)
    first, second = (numpy.array(each) - middle for each in centres[:2])
    # In a picture, with y downwards, a positive cross product is a clockwise turn.
    assert first[0] * second[1] - first[1] * second[0] > 0


def test_folders_are_made_once_and_the_same(tmp_path: Path) -> None:
    folders = [sample.clips_folder(tmp_path / name, size=8, seed=0) for name in ("a", "b")]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.mp4")) for folder in folders]
    assert files[0] == files[1]
    assert len(files[0]) == 8 + 8 + 8
    assert all((folders[0] / each).read_bytes() == (folders[1] / each).read_bytes() for each in files[0])
    assert sample.clips_folder(tmp_path / "a", size=8, seed=0) == folders[0]
    assert [path.name for path in (tmp_path / "a").iterdir()] == [folders[0].name], "nothing half is left"
    lengths = {len(decode(folders[0] / each, size=16).frames) for each in files[0]}
    assert lengths <= set(sample.PLACES)
    assert len(lengths) > 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SuiteError, match=r"cannot be written .* --data.cache"):
        sample.pictures_folder(tmp_path / "file", size=8, seed=0)
