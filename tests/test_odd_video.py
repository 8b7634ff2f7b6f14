"""The odd videos and pictures of ``tests/odd_inputs``, links, archives and exchanged files: the right pixels each."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image

from domains.video import sample
from domains.video.data import ClipData
from domains.video.decoding import decode, decode_into
from domains.video.images import ImageData
from domains.video.listing import list_items
from domains.video.pictures import decode_picture
from domains.video.sampling import SamplingConfig
from domains.video.transparency import BACKGROUND

ODD = Path(__file__).parent / "odd_inputs"
Pixels = NDArray[numpy.uint8]


def noted(path: Path, *, size: int = 64) -> tuple[Pixels, list[str]]:
    """Frames of a video, and what is noted about it."""
    notes: list[str] = []
    frames: list[Pixels] = []
    decode_into(frames.append, path, size=size, notes=notes)
    return numpy.stack(frames), notes


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("hflip", lambda frames: frames[:, :, ::-1]),
        ("rot90", lambda frames: numpy.rot90(frames, -1, axes=(1, 2))),
        ("trailing_junk", lambda frames: frames),
    ],
)
def test_videos_are_upright_and_whole(name: str, turn: Callable[[Pixels], Pixels]) -> None:
    plain = decode(ODD / "video" / "plain.mp4", size=64).frames
    found, notes = noted(ODD / "video" / f"{name}.mp4")
    assert len(plain) == 20
    numpy.testing.assert_array_equal(found, turn(plain))
    junk = ["bytes after the end of the video: 300 ignored"]
    assert notes == (junk if name == "trailing_junk" else [])


def test_hidden_colours_of_a_video_are_not_seen() -> None:
    """The file hides red under transparent pixels at the upper left."""
    frames, _ = noted(ODD / "video" / "alpha.webm")
    assert len(frames) == 6
    assert (frames[:, :24, :24] == BACKGROUND).all()
    assert (abs(frames[:, 40:, 40:].astype(int) - 220) <= 2).all()


def test_hidden_colours_of_a_picture_are_not_seen() -> None:
    content = (ODD / "pictures" / "rgba_TL_clear_hidden.png").read_bytes()
    with Image.open(io.BytesIO(content)) as file:
        pixels = numpy.asarray(file)
    clear = pixels[..., 3] == 0
    assert clear[:16, :16].all()
    assert (pixels[clear][:, :3] != BACKGROUND).any(axis=1).all()
    found = decode_picture(content, size=64, fit="stretch")
    assert (found[clear] == BACKGROUND).all()
    opaque = pixels[..., 3] == 255
    numpy.testing.assert_array_equal(found[opaque], pixels[opaque][:, :3])


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("gray12in16.png", "pixels of 16 bits that use fewer: the highest takes 12 bits"),
        ("anim.gif", "animations or several pages: the first of 2 pictures is used"),
        ("plain.png", None),
    ],
)
def test_unusual_pictures_are_reported(
    name: str, note: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (f"{split}/{label}" for split in ("train", "val", "test") for label in ("a", "b")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / name).write_bytes((ODD / "pictures" / name).read_bytes())
    for _ in range(2):  # from the file, and from the cache
        data = ImageData(dataset="files", train=str(tmp_path / "in"), size=64, cache=str(tmp_path / "cache"))
        data.contents("all")
        err = capsys.readouterr().err
        assert err.count("in 6 of 6 files") == (note is not None)
        assert note is None or (note.split(": ")[0] in err and f"train/a/{name}: {note.split(': ')[1]}" in err)
    plain = decode_picture((ODD / "pictures" / "plain.png").read_bytes(), size=64, fit="stretch")
    with Image.open(ODD / "pictures" / "plain.png") as file:
        numpy.testing.assert_array_equal(plain, numpy.asarray(file))


def test_twelve_bits_are_scaled_if_the_file_says_so() -> None:
    """The same pixels with a chunk for significant bits (sBIT), which the file of the case lacks."""
    content = (ODD / "pictures" / "gray12in16.png").read_bytes()
    with Image.open(io.BytesIO(content)) as file:
        values = numpy.asarray(file).astype(int)
    assert values.max() == 3532
    chunk = b"sBIT\x0c"
    whole = content[:33] + b"\0\0\0\1" + chunk + _crc(chunk) + content[33:]
    notes: list[str] = []
    found = decode_picture(whole, size=64, fit="stretch", notes=notes)
    numpy.testing.assert_array_equal(found[..., 0], values * 255 // 4095)
    assert notes == []


def _crc(chunk: bytes) -> bytes:
    import zlib

    return zlib.crc32(chunk).to_bytes(4, "big")


def shade(path: Path, value: int) -> bytes:
    """Write a picture of one shade, always as many bytes; gives them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (value, value, value)).save(path, format="bmp")
    return path.read_bytes()


def picture_data(folder: Path, cache: Path, **settings: Any) -> ImageData:
    return ImageData(**{"dataset": "files", "train": str(folder), "size": 16, "cache": str(cache), **settings})


def shades(data: ImageData) -> dict[str, int]:
    items = data.list_path(str(data.paths["train"]))
    return {item.name: int(pixels[0, 0, 0]) for item, pixels in zip(items, data.read(items).contents, strict=True)}


def exchange(one: Path, other: Path) -> None:
    """Exchange two files of equal size and time, as ``mv`` does."""
    for path in (one, other):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert one.stat().st_size == other.stat().st_size
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def test_exchanged_pictures_are_decoded_again(tmp_path: Path) -> None:
    one, other = tmp_path / "in" / "a" / "1.bmp", tmp_path / "in" / "b" / "1.bmp"
    shade(one, 10)
    shade(other, 200)
    for path in (one, other):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert shades(picture_data(tmp_path / "in", tmp_path / "cache")) == {"a/1.bmp": 10, "b/1.bmp": 200}
    exchange(one, other)
    assert shades(picture_data(tmp_path / "in", tmp_path / "cache")) == {"a/1.bmp": 200, "b/1.bmp": 10}


def test_exchanged_videos_are_decoded_again(tmp_path: Path) -> None:
    paths = [tmp_path / "in" / label / "1.avi" for label in ("a", "b")]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        sample.encode(sample.render("clockwise_slow", seed=seed)[:5], path, rate=10)
    size = max(path.stat().st_size for path in paths)
    for path in paths:  # bytes behind the end make them equally long
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (1_000_000_000, 1_000_000_000))

    def frames() -> list[Pixels]:
        data = ClipData(dataset="files", train=str(tmp_path / "in"), size=16, cache=str(tmp_path / "cache"),
                        sampling=SamplingConfig(kind="all"))  # fmt: skip
        return [video.frames().copy() for video in data.read(list_items(tmp_path / "in")).contents]

    before = frames()
    assert not numpy.array_equal(before[0], before[1])
    exchange(*paths)
    after = frames()
    numpy.testing.assert_array_equal(after[0], before[1])
    numpy.testing.assert_array_equal(after[1], before[0])


def test_links_in_folders_are_followed_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shade(tmp_path / "in" / "a" / "1.bmp", 10)
    shade(tmp_path / "elsewhere" / "deep" / "2.bmp", 20)
    shade(tmp_path / "elsewhere" / "3.bmp", 30)
    shade(tmp_path / "linked class" / "4.bmp", 40)
    (tmp_path / "in" / "a" / "sub").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "in" / "a" / "3.bmp").symlink_to(tmp_path / "elsewhere" / "3.bmp")
    (tmp_path / "in" / "a" / "broken.bmp").symlink_to(tmp_path / "none.bmp")
    (tmp_path / "in" / "a" / "circle").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "in" / "a" / "itself").symlink_to("itself")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "linked class")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "none")
    found = shades(picture_data(tmp_path / "in", tmp_path / "cache"))
    assert found == {"a/1.bmp": 10, "a/sub/2.bmp": 20, "a/3.bmp": 30, "b/4.bmp": 40}
    err = capsys.readouterr().err
    assert "in/a: 3 links or devices are left out" in err
    assert all(f"in/a/{name}" in err for name in ("broken.bmp", "circle", "itself"))
    assert "in: 1 links or devices are left out" in err
    assert "in/c" in err


def test_links_in_archives_are_followed_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hard links, soft links to files and folders, and links that lead out, nowhere or in a circle."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, value in (("train/a/1.bmp", 10), ("train/b/1.bmp", 20), ("store/5.bmp", 50), ("test/a/1.bmp", 60)):
            entry, content = tarfile.TarInfo(name), shade(tmp_path / "one.bmp", value)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, kind, target in (
            ("train/a/hard.bmp", tarfile.LNKTYPE, "train/a/1.bmp"),
            ("train/b/soft.bmp", tarfile.SYMTYPE, "1.bmp"),
            ("train/b/chain.bmp", tarfile.SYMTYPE, "../b/soft.bmp"),
            ("train/c", tarfile.SYMTYPE, "../store"),
            ("train/a/out.bmp", tarfile.SYMTYPE, "/etc/passwd"),
            ("train/a/up.bmp", tarfile.SYMTYPE, "../../../x.bmp"),
            ("train/a/none.bmp", tarfile.SYMTYPE, "none.bmp"),
            ("train/a/circle.bmp", tarfile.SYMTYPE, "circle.bmp"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    found = shades(picture_data(tmp_path / "x.tar", tmp_path / "cache"))
    assert found == {
        "train/a/1.bmp": 10, "train/a/hard.bmp": 10, "train/b/1.bmp": 20, "train/b/soft.bmp": 20,
        "train/b/chain.bmp": 20, "train/c/5.bmp": 50, "test/a/1.bmp": 60,
    }  # fmt: skip
    err = capsys.readouterr().err
    assert (
        "4 links to no file in the archive are left out (train/a/out.bmp, train/a/up.bmp, train/a/none.bmp, ...)" in err
    )


def test_class_folders_that_look_the_same_are_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for number, label in enumerate((composed, decomposed, "tea", "tea ")):
        shade(tmp_path / "in" / label / f"{number}.bmp", number)
    items = list_items(tmp_path / "in")
    assert sorted(item.label for item in items) == [composed, composed, "tea", "tea"]
    assert capsys.readouterr().err.count("are one class") == 2
