"""Folders, manifests, groups, bad files and the cache of the video domain, by the data modules and the commands."""

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from domains.video import sample
from domains.video.augmentation import Augmentation, AugmentConfig
from domains.video.data import ClipData
from domains.video.images import ImageData
from domains.video.listing import Item, list_items
from domains.video.pictures import list_archive
from domains.video.sampling import SamplingConfig
from suite.errors import DataError, SuiteError, UsageError
from suite.splits import SPLITS, Division, divide
from tests.commands import QUIET, assert_one_line, run

TINY = (
    *("--data.size", "16", "--data.batch_size", "8", "--model.cnn.width", "8", "--model.encoder.hidden_size", "8"),
    *("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"),
)


def write_clips(folder: Path, *, count: int = 4, labels: tuple[str, ...] = ("left", "right")) -> list[Path]:
    paths = []
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            paths.append(folder / label / f"{number}.mp4")
            sample.encode(sample.render("clockwise_slow", seed=number)[: 4 + number], paths[-1], rate=12 + number)
    return paths


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, count=10)
    return folder


def clip_data(path: Path, cache: Path, **settings: Any) -> ClipData:
    settings = {"sampling": SamplingConfig(kind="all"), "size": 16, **settings}
    return ClipData(dataset="files", train=str(path), cache=str(cache), **settings)


def test_folders_by_class_are_split_by_label(clips: Path, tmp_path: Path) -> None:
    data = clip_data(clips, tmp_path, held_out=0.2)
    names = {split: [item.name for item in data.items(split)] for split in ("train", "val", "test")}
    assert [len(each) for each in names.values()] == [12, 4, 4]
    assert len({name for each in names.values() for name in each}) == 20
    for split in names:
        assert {item.label for item in data.items(split)} == {"left", "right"}
    assert data.assets["counts"] == [6, 6]
    assert len(data.items("all")) == 20
    with pytest.raises(UsageError, match=r"--data.split other: dataset files has train, val, test, all"):
        data.items("other")


def test_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_clips(tmp_path / "x" / split, count=3)
    parts = divide(list_items(tmp_path / "x"), Division(held_out=1 / 3, seed=0))
    assert [len(parts[split]) for split in SPLITS] == [4, 2, 6]
    assert all(item.name.startswith("test/") == (split == "test") for split in SPLITS for item in parts[split])


def test_groups_stay_on_one_side() -> None:
    items = [
        Item(Path(f"{number}"), f"{number}", "ab"[number % 2], group=f"g{number // 5}" if number < 60 else None)
        for number in range(100)
    ]
    for seed in range(5):
        parts = divide(items, Division(held_out=0.2, seed=seed))
        sides = {(item.group, split) for split in SPLITS for item in parts[split] if item.group}
        assert len(sides) == 12
        assert all(parts[split] for split in SPLITS)
        assert divide(items, Division(held_out=0.2, seed=seed)) == parts


def write_manifest(path: Path, rows: Sequence[tuple[str, ...]], header: str = "path,label,group,split") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def test_a_manifest_gives_labels_groups_and_splits(clips: Path, tmp_path: Path) -> None:
    rows = [(str(clips / label / f"{n}.mp4"), label, f"g{n}", "test" if n > 7 else "") for label in ("left", "right")
            for n in range(10)]  # fmt: skip
    data = clip_data(write_manifest(tmp_path / "m.csv", rows), tmp_path, held_out=0.25)
    groups = {split: {item.group for item in data.items(split)} for split in ("train", "val", "test")}
    assert groups["test"] == {"g8", "g9"}
    assert not groups["train"] & groups["val"]
    assert groups["train"] | groups["val"] == {f"g{n}" for n in range(8)}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("a.mp4", "x")], "path,name", "column 'label' is missing; there are path, name"),
        ([("a.mp4", "x", "g", "eval")], "path,label,group,split", "got 'eval' in line 2"),
        ([("a.mp4", "")], "path,label", "1 of 1 rows have no value in column 'label' (line 2)"),
        ([("a.mp4", "x"), ("a.mp4", "x ")], "path,label", "a.mp4 is listed more than once"),
        ([("a.mp4", "x"), ("a.mp4", "y")], "path,label", "a.mp4 is listed more than once, as 'x' and as 'y'"),
        (
            [("a.mp4", "x"), ("./a.mp4", "y")],
            "path,label",
            "a.mp4 (./a.mp4 is the same file) is listed more than once, as 'x' and as 'y'",
        ),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(
    rows: list[tuple[str, ...]], header: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        list_items(write_manifest(tmp_path / "m.csv", rows, header))
    assert message in str(error.value)
    assert "m.csv" in str(error.value)


def test_what_is_wrong_with_folders_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or table"):
        list_items(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one folder a class is needed"):
        list_items(tmp_path / "empty")
    (tmp_path / "empty" / "left").mkdir()
    with pytest.raises(DataError, match="this class has no files"):
        list_items(tmp_path / "empty")
    write_clips(tmp_path / "one", labels=("left",))
    with pytest.raises(DataError, match="only the class 'left'; at least two"):
        _ = clip_data(tmp_path / "one", tmp_path).assets


def test_unseen_labels_are_listed_with_the_known(clips: Path, tmp_path: Path) -> None:
    assets = clip_data(clips, tmp_path).assets
    write_clips(tmp_path / "other", count=2, labels=("left", "up"))
    data = clip_data(tmp_path / "other", tmp_path, assets=assets)
    with pytest.raises(DataError, match=r"'up' \(2 times\); allowed: 'left', 'right'"):
        data.examples("all")


def spoil(folder: Path) -> dict[str, str]:
    """Make four files of ``folder`` bad; their names and a word of the reason."""
    whole = (folder / "left" / "5.mp4").read_bytes()
    (folder / "left" / "0.mp4").write_bytes(b"")
    (folder / "left" / "1.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "left" / "2.mp4").write_bytes(b"not a video at all " * 50)
    start, end = whole.index(b"mdat") + 900, whole.index(b"moov") - 8
    flipped = bytearray(whole)
    for place in numpy.random.default_rng(0).integers(start, end, 40):
        flipped[place] ^= 255
    (folder / "left" / "3.mp4").write_bytes(flipped)
    return {"left/0.mp4": "empty", "left/1.mp4": "cut", "left/2.mp4": "not a video", "left/3.mp4": "damaged"}


def test_bad_files_are_named_and_left_out(tmp_path: Path, clips: Path) -> None:
    shutil.copytree(clips, tmp_path / "own")
    reasons = spoil(tmp_path / "own")
    ran = run("fit", "--domain", "video", *QUIET, "--runs", tmp_path, "--name", "x", *TINY, "--data.dataset", "files",
              "--data.train", tmp_path / "own", "--data.cache", tmp_path / "cache", "--data.max_bad", "0.7",
              "--data.held_out", "0.2")  # fmt: skip
    assert ran.status == 0, ran.err
    with (tmp_path / "video" / "x" / "bad_files.csv").open() as file:
        found = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert found.keys() == reasons.keys()
    assert all(word in found[name] for name, word in reasons.items())
    assert "cannot be used" in ran.err
    # 20 files, four of them bad: each of the other 16 is in exactly one split.
    data = clip_data(tmp_path / "own", tmp_path / "cache", held_out=0.2, max_bad=1.0)
    kept = [item.name for split in ("train", "val", "test") for item in data.contents(split)[0]]
    assert len(kept) == len(set(kept)) == 16
    assert not set(kept) & reasons.keys()


def test_too_many_bad_files_stop_the_run(tmp_path: Path, clips: Path) -> None:
    shutil.copytree(clips, tmp_path / "own")
    spoil(tmp_path / "own")
    ran = run("fit", "--domain", "video", *QUIET, "--runs", tmp_path, *TINY, "--data.dataset", "files", "--data.train",
              tmp_path / "own", "--data.cache", tmp_path / "cache", "--data.max_bad", "0.02")  # fmt: skip
    lines = [line for line in ran.err.splitlines() if line.startswith("fit:")]
    assert ran.status == 1
    assert len(lines) == 1
    assert "is more than data.max_bad (2.0%)" in lines[0]
    assert (tmp_path / "cache" / "video" / "bad_files.csv").is_file()
    assert not list((tmp_path / "video").glob("*")) if (tmp_path / "video").exists() else True


def test_predict_gives_one_line_a_file_in_order(tmp_path: Path, clips: Path) -> None:
    common = ("--data.dataset", "files", "--data.train", clips, "--data.cache", tmp_path / "cache")
    ran = run("fit", "--domain", "video", *QUIET, "--runs", tmp_path, "--name", "x", *TINY, *common)
    assert ran.status == 0, ran.err
    (tmp_path / "bad.mp4").write_bytes(b"")
    files = [str(clips / "right" / "9.mp4"), str(tmp_path / "bad.mp4"), str(clips / "left" / "0.mp4")]
    files = [*files, files[0], str(tmp_path / "none.mp4")]
    shutil.rmtree(tmp_path / "cache")  # the checkpoint alone is enough
    checkpoint = ("--checkpoint", tmp_path / "video" / "x", "--data.cache", tmp_path / "cache")
    text = run("predict", *checkpoint, *files)
    assert text.status == 1, text.err
    assert text.err.splitlines()[-1].startswith("predict: 2 of 5 input(s)")
    assert [line.split("\t")[0] for line in text.lines] == files
    assert text.lines[1].split("\t")[1:] == ["error", "the file is empty"]
    assert text.lines[4].split("\t")[1:] == ["error", "no such file"]
    assert text.lines[0] == text.lines[3]
    rows = [json.loads(line) for line in run("predict", *checkpoint, "--format", "jsonl", *files).lines]
    assert [row["index"] for row in rows] == list(range(5))
    assert abs(sum(rows[0]["probabilities"].values()) - 1) < 1e-5
    only = run("predict", *checkpoint, str(tmp_path / "bad.mp4"))
    assert [line.split("\t")[1] for line in only.lines] == ["error"]
    # Alone or among others, a file has the same result.
    assert only.status == 1
    good = run("predict", *checkpoint, files[2])
    assert good.status == 0, good.err
    [single] = good.lines
    assert single.split("\t")[:2] == text.lines[2].split("\t")[:2]
    assert_one_line(run("predict", "--checkpoint", tmp_path / "video" / "x"), 2, "files")


def test_frames_come_from_the_cache(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = clip_data(clips, tmp_path)
    batches = list(first.loader("test", shuffle=False)) if first.assets else []
    files = sorted((tmp_path / "video" / "frames").glob("*.npy"))
    assert len(files) == 20
    video = first.contents("test")[1][0]
    numpy.testing.assert_array_equal(video.frames(), numpy.load(video.file))
    with pytest.raises(ValueError, match="read-only"):
        video.frames()[0] = 0
    monkeypatch.setattr("domains.video.data.decode_into", lambda *_, **__: pytest.fail("decoded again"))
    again = clip_data(clips, tmp_path)
    assert again.assets == first.assets
    for one, other in zip(batches, again.loader("test", shuffle=False), strict=True):
        assert torch.equal(one.frames, other.frames)
    monkeypatch.undo()
    _ = clip_data(clips, tmp_path, size=24).assets
    assert len(list((tmp_path / "video" / "frames").glob("*.npy"))) == 2 * 20, "another size is another file"


def test_a_damaged_cache_file_is_made_again(clips: Path, tmp_path: Path) -> None:
    first = clip_data(clips, tmp_path)
    expected = [batch.frames for batch in first.loader("all", shuffle=False)] if first.assets else []
    for path in (tmp_path / "video" / "frames").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-7])
    found = [batch.frames for batch in clip_data(clips, tmp_path, assets=first.assets).loader("all", shuffle=False)]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_a_cache_that_cannot_be_written_is_one_line(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SuiteError, match=r"cache cannot be written .* --data.cache"):
        _ = clip_data(clips, tmp_path / "file").assets


def test_one_draw_a_clip() -> None:
    config = AugmentConfig(flip=0.5, crop=0.5, shift=2, brightness=0.4, contrast=0.4, hue=0.1, erase=0.5)
    change = Augmentation(config, size=16)
    frame = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    state = torch.get_rng_state()
    clips = [change(frame.repeat(5, 1, 1, 1), seed=seed) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    for seed, clip in enumerate(clips):
        assert clip.shape == (5, 3, 16, 16)
        assert clip.dtype == torch.uint8
        assert all(torch.equal(each, clip[0]) for each in clip), "every frame is changed alike"
        assert torch.equal(change(frame.repeat(5, 1, 1, 1), seed=seed), clip)
    assert len({bytes(clip.numpy().tobytes()) for clip in clips}) == 8


def write_pictures(folder: Path, *, count: int = 5) -> None:
    for label in ("disc", "bar"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = numpy.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def test_an_archive_is_read_without_being_unpacked(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path / "x" / split)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for path in sorted((tmp_path / "x").rglob("*.png")):
            archive.add(path, path.relative_to(tmp_path / "x").as_posix())
        link = tarfile.TarInfo("train/disc/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    options = {"dataset": "files", "size": 16, "cache": str(tmp_path / "cache"), "held_out": 0.2}
    packed = ImageData(train=str(tmp_path / "x.tar.gz"), **options)  # type: ignore[arg-type]
    plain = ImageData(train=str(tmp_path / "x"), **options)  # type: ignore[arg-type]
    found = [{item.name: row for item, row in zip(*data.contents("test"), strict=True)} for data in (packed, plain)]
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 10
    for name, row in found[0].items():
        numpy.testing.assert_array_equal(row, found[1][name])
    assert {item.name for item in packed.items("all")} == {item.name for item in plain.items("all")}
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("name", ["../../evil.png", "/evil.png", "train/deep/er/evil.png", "evil.png"])
def test_an_archive_with_other_paths_is_refused(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match="is not SPLIT/CLASS/FILE"):
        list_archive(tmp_path / "x.tar")
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b" + bytes(30))
    with pytest.raises(DataError, match=r"not a whole (tar archive|gzip file)"):
        list_archive(tmp_path / "cut.tar.gz")


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "x")
    (tmp_path / "x" / "bar" / "0.png").write_bytes(b"")
    whole = (tmp_path / "x" / "bar" / "1.png").read_bytes()
    (tmp_path / "x" / "bar" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x" / "bar" / "2.png").write_text("text")
    data = ImageData(dataset="files", train=str(tmp_path / "x"), size=16, cache=str(tmp_path), max_bad=0.5)
    items, _ = data.contents("all")
    assert len(items) == 7
    assert [data.bad.reasons[f"bar/{n}.png"].split(" ")[0] for n in range(3)] == ["the", "damaged", "not"]


def test_a_group_of_which_some_have_a_split_is_refused() -> None:
    items = [Item(Path(str(n)), str(n), "ab"[n % 2], "g0" if n < 4 else f"g{n}", None) for n in range(12)]
    partly = [item._replace(split="test") if place < 3 else item for place, item in enumerate(items)]
    with pytest.raises(DataError, match=r"group 'g0' is in \w+ and \w+: a group"):
        divide(partly, Division(held_out=0.2, seed=0))
    only = [item._replace(split="test") for item in items]
    assert divide(only, Division(held_out=0.2, seed=0)) == {"train": [], "val": [], "test": only}


def test_a_picture_that_could_not_be_read_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "x")
    settings: dict[str, Any] = {"dataset": "files", "train": str(tmp_path / "x"), "size": 16, "cache": str(tmp_path)}
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "0.png":
            raise OSError(24, "Too many open files")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    first = ImageData(**settings, max_bad=0.5)
    count = len(first.contents("all")[0])
    assert len(first.bad.reasons) == 2
    monkeypatch.undo()
    again = ImageData(**settings, max_bad=0.5)
    assert len(again.contents("all")[0]) == count + 2
