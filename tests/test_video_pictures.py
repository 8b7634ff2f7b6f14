"""Pictures as they come: archives, what systems leave behind, depths of pixels, damaged blocks."""

import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from domains.video.listing import list_items
from domains.video.pictures import decode_picture, decode_pictures, list_archive
from suite.errors import DataError


def test_files_that_systems_leave_behind_are_no_pictures(tmp_path: Path) -> None:
    """In folders and archives alike; a member that was added again counts once, as it was last."""
    for name, shade in (("x/1.png", 10), ("x/2.png", 20), ("y/1.png", 30)):
        picture = tmp_path / "in" / "train" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (shade, shade, shade)).save(picture)
    again = tmp_path / "again.png"
    Image.new("RGB", (8, 8), (200, 200, 200)).save(again)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "in" / "train", "train")
        archive.add(again, "train/x/1.png")
        for hidden in ("train/x/._1.png", "train/.cache/1.png"):
            archive.addfile(tarfile.TarInfo(hidden))
    items = list_archive(tmp_path / "x.tar")
    assert sorted(item.name for item in items) == ["train/x/1.png", "train/x/2.png", "train/y/1.png"]
    pixels, problems = decode_pictures(items, size=8, fit="stretch")
    shades = {item.name: int(picture[0, 0, 0]) for item, picture in zip(items, pixels, strict=True)}
    assert shades == {"train/x/1.png": 200, "train/x/2.png": 20, "train/y/1.png": 30}
    assert problems == {}
    for hidden in ("x/.ipynb_checkpoints/1-checkpoint.png", "x/._1.png", ".trash/1.png"):
        file = tmp_path / "in" / "train" / hidden
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    assert len(list_items(tmp_path / "in" / "train")) == 3


def test_pictures_of_sixteen_bits_keep_their_shades() -> None:
    values = numpy.linspace(0, 65535, 64).astype(numpy.uint16).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="png")
    found = decode_picture(file.getvalue(), size=8, fit="stretch")
    assert numpy.array_equal(found[..., 0], values >> 8)
    file = io.BytesIO()
    Image.fromarray(values.astype(numpy.float32)).save(file, format="tiff")
    with pytest.raises(DataError, match="pixels of mode F have no known range"):
        decode_picture(file.getvalue(), size=8, fit="stretch")


def test_a_damaged_exif_block_is_no_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_: Any) -> None:
        raise struct.error("required argument is not an integer")

    file = io.BytesIO()
    Image.new("RGB", (8, 8), (50, 60, 70)).save(file, format="png")
    monkeypatch.setattr("domains.video.pictures.ImageOps.exif_transpose", damaged)
    assert decode_picture(file.getvalue(), size=8, fit="stretch")[0, 0].tolist() == [50, 60, 70]
