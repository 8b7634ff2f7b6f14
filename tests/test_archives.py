"""Archives that are not whole: damage that Python's own modules pass over."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from domains.video.archives import Links, read_members
from suite import console
from suite.errors import DataError
from tests.corruption.samples import MAKERS


@pytest.fixture(autouse=True)
def _notices_again() -> None:
    console.forget_notices()


def names(path: Path) -> list[str]:
    return [name for name, _ in read_members(path, content=True)]


@pytest.fixture
def whole() -> bytes:
    return MAKERS["tar"](0)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_whole_archive_is_read_in_silence(tmp_path: Path, whole: bytes, pack, capsys) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(pack(whole))
    assert len(names(path)) == 6
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_header_in_the_middle_is_an_error(tmp_path: Path, whole: bytes, pack) -> None:
    place = whole.index(b"ustar", 1024)
    path = tmp_path / "a.tar"
    path.write_bytes(pack(whole[:place] + b"USTAR" + whole[place + 5 :]))
    with pytest.raises(DataError, match=r"a\.tar: not a whole tar archive \(damaged [\d,]+ bytes after its beginning"):
        names(path)


def test_a_cut_between_two_files_is_reported(tmp_path: Path, whole: bytes, capsys) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(whole[: whole.index(b"ustar", 1024) - 257])
    assert len(names(path)) < 6
    assert "a.tar: the mark at the end of the archive is missing: it may have been cut short" in capsys.readouterr().err


def test_joined_archives_are_refused(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a.tar"
    for data in (whole * 2, gzip.compress(whole) * 2):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tar: another archive is joined to its end"):
            names(path)


def test_bytes_after_the_end_are_reported(tmp_path: Path, whole: bytes, capsys) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(whole + bytes(5000) + b"junk")
    assert len(names(path)) == 6
    assert "bytes after the end of the archive are ignored" in capsys.readouterr().err


def test_the_checksum_of_a_compressed_archive_is_compared(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    packed = bytearray(gzip.compress(whole))
    packed[-8] ^= 1
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.tar\.gz: not a whole gzip file \(CRC check failed"):
        names(path)


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80\0\0\1" + bytes(8)])
def test_a_size_beyond_the_archive_is_refused_at_once(tmp_path: Path, whole: bytes, size: bytes) -> None:
    path = tmp_path / "a.tar"
    header = bytearray(whole[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + whole[512:])
    with pytest.raises(DataError, match="a file in it ends at byte"):
        names(path)


def test_a_zip_behind_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(MAKERS["pictures.zip"](0) * 2)
    with pytest.raises(DataError, match=r"a\.zip: another archive of [\d,]+ bytes is joined in front of it"):
        names(path)


def test_a_zip_behind_a_program_is_read(tmp_path: Path) -> None:
    """As archives that unpack themselves are."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" + MAKERS["pictures.zip"](0))
    assert len(names(path)) == 4


def test_an_unknown_version_of_zip_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    data = bytearray(MAKERS["pictures.zip"](0))
    data[data.index(b"PK\1\2") + 6] = 148
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: not a whole zip archive \(zip file version 14\.8\)"):
        names(path)


def test_a_huge_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        link = zipfile.ZipInfo("train/a/1.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, bytes(100_000))
    links = Links(path)
    assert list(read_members(path, content=False, links=links)) == []
    assert (links.others, links.targets) == (1, {})


def test_python_itself_passes_over_the_damage(whole: bytes) -> None:
    """The reason for ``domains.video.tars``; it can go when this fails."""
    place = whole.index(b"ustar", 1024)
    with tarfile.open(fileobj=io.BytesIO(whole[:place] + b"USTAR" + whole[place + 5 :]), mode="r|*") as archive:
        assert 0 < len(archive.getnames()) < 6
