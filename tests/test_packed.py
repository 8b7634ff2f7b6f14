"""Gzip files: read whole, all members, or refused with the reason."""

import gzip
import random
import tarfile
from pathlib import Path

import pytest

from suite import packed
from suite.errors import DataError


def test_every_member_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    data = random.Random(1).randbytes(3_000_000)
    path.write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(20))
    assert packed.read_gzip(path) == data


def test_empty_content(tmp_path: Path) -> None:
    path = tmp_path / "empty.gz"
    path.write_bytes(gzip.compress(b""))
    assert packed.read_gzip(path) == b""


@pytest.mark.parametrize("edit", [lambda data: data[:-3], lambda data: data + b"junk", lambda data: data[:9] + b"\xff"])
def test_damage_is_refused(tmp_path: Path, edit) -> None:
    path = tmp_path / "damaged.gz"
    path.write_bytes(edit(gzip.compress(b"some text" * 50)))
    with pytest.raises(DataError, match=r"damaged\.gz: not a whole gzip file \(.+\); fetch it again"):
        packed.read_gzip(path)


def test_expansion_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may expand 100 times, as no text does; small ones may expand further."""
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    assert len(packed.read_gzip(path)) == 50_000_000
    monkeypatch.setattr(packed, "_FREE", 1 << 20)
    with pytest.raises(DataError, match=r"zeros\.gz: [\d,]+ bytes of it expand to more than [\d,]+, over 100 times"):
        packed.read_gzip(path)
    path.write_bytes(gzip.compress(random.Random(1).randbytes(200_000) * 20))
    assert len(packed.read_gzip(path)) == 4_000_000


def test_a_tar_archive_is_read_through_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("content")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    with packed.PackedReader(tmp_path / "a.tar.gz") as reader, tarfile.open(fileobj=reader, mode="r|") as found:
        assert [member.name for member in found] == ["a.txt"]
