"""Folders and manifests: links, double entries, spellings of names; files of other kinds."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from domains.audio.data import AudioData
from domains.audio.listing import Item, list_items
from suite.errors import DataError
from suite.listing import ListingColumns
from tests.test_audio_data import own, write_files, write_manifest


def listed(source: Path, *conditions: str) -> list[Item]:
    return list_items(str(source), conditions=conditions, path_column="path", listing=ListingColumns())


def test_links_are_followed_and_broken_ones_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = tmp_path / "set" / "ann"
    write_files(inner, count=2, size=50)
    write_files(tmp_path / "elsewhere", count=2, size=50)
    (tmp_path / "set" / "bob").symlink_to(tmp_path / "elsewhere")
    (inner / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (inner / "loop").symlink_to(tmp_path / "set")
    found = listed(tmp_path / "set", "folder")
    assert [(item.conditions["folder"], item.path.name) for item in found] == [
        (name, file) for name in ("ann", "bob") for file in ("0.wav", "1.wav")
    ]
    said = capsys.readouterr().err
    assert "2 links" in said
    assert "gone.wav" in said


def test_a_broken_link_in_a_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to("nothing.wav")
    write_manifest(tmp_path / "list.csv", [{"path": "gone.wav"}])
    with pytest.raises(DataError, match=r"gone\.wav: a broken link to nothing\.wav"):
        _ = AudioData(dataset="files", test=str(tmp_path / "list.csv"), assets=ASSETS).items("test")


ASSETS: dict[str, Any] = {"sample_rate": 8000, "classes": 256, "conditions": {}, "mel": None}


def test_a_file_in_a_folder_twice_by_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "ann", count=2, size=50)
    (tmp_path / "ann" / "again.wav").symlink_to("0.wav")
    assert [item.path.name for item in listed(tmp_path)] == ["0.wav", "1.wav"]
    assert "entries that repeat the file of an earlier one: 1; each file is used once" in capsys.readouterr().err
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "0.wav").symlink_to("../ann/0.wav")
    assert len(listed(tmp_path)) == 2
    with pytest.raises(DataError, match=r"one file, .* with folder=ann and folder=bob"):
        listed(tmp_path, "folder")


@pytest.mark.parametrize("other", ["0.wav", "./0.wav", "sub/../0.wav", "link.wav", "linked/0.wav"])
def test_one_file_under_two_paths(other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path, count=2, size=50)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.wav").symlink_to("0.wav")
    (tmp_path / "linked").symlink_to(tmp_path)
    rows = [{"path": name, "who": "ann"} for name in ("0.wav", "1.wav", other)]
    assert len(listed(write_manifest(tmp_path / "list.csv", rows), "who")) == 2
    assert "repeat the file of an earlier one: 1;" in capsys.readouterr().err
    rows[2]["who"] = "bob"
    with pytest.raises(DataError, match=r"row 1 and row 3 are one file, .* with who=ann and who=bob"):
        listed(write_manifest(tmp_path / "list.csv", rows), "who")
    rows[2]["who"] = " ann\u00a0"
    assert len(listed(write_manifest(tmp_path / "list.csv", rows), "who")) == 2


@pytest.mark.parametrize("column", ["group", "split"])
def test_one_file_in_two_groups_or_splits(column: str, tmp_path: Path) -> None:
    write_files(tmp_path, count=1, size=50)
    rows = [{"path": "0.wav", column: value} for value in ("train", "test")]
    with pytest.raises(DataError, match=f"row 1 and row 2 are one file, .* with {column} train and {column} test"):
        listed(write_manifest(tmp_path / "list.csv", rows))


def test_a_link_between_the_folders_of_two_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write_files(tmp_path / name, count=2, size=50)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.wav").symlink_to(tmp_path / "train" / "0.wav")
    with pytest.raises(DataError, match="is in train and test: it belongs into one split"):
        _ = own(tmp_path / "train", val=str(tmp_path / "val"), test=str(tmp_path / "other")).assets


@pytest.mark.parametrize(("disk", "table"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_files_are_found_in_either_unicode_form(disk: Any, table: Any, tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize(disk, "Zoë")
    write_files(folder, count=1, size=50)
    name = unicodedata.normalize(disk, "café.wav")
    (folder / "0.wav").rename(folder / name)
    write_manifest(tmp_path / "list.csv", [{"path": unicodedata.normalize(table, "Zoë/café.wav")}])
    (item,) = listed(tmp_path / "list.csv")
    assert item.path == folder / name


def test_conditions_are_compared_in_their_clean_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path, count=6, size=50)
    names = ["Zoë", "Zoe\u0308", "Zoë ", "\u00a0bob", "bob", "bob\t"]
    rows = [{"path": f"{number}.wav", "who": name} for number, name in enumerate(names)]
    manifest = write_manifest(tmp_path / "list.csv", rows)
    data = own(manifest, conditions=[" who"], held_out=0.2, only=["who=bob "])
    assert [each.conditions for each in data.items("all")] == [{"who": "bob"}] * 3
    assert "4 of 6 values had white space at their ends or decomposed characters" in capsys.readouterr().err
    assert {item.conditions["who"] for item in listed(manifest, "who")} == {"Zoë", "bob"}


def test_a_model_with_unclean_values_knows_them(tmp_path: Path) -> None:
    """Of a checkpoint that was trained before values were cleaned."""
    write_files(tmp_path, count=1, size=50)
    manifest = write_manifest(tmp_path / "list.csv", [{"path": "0.wav", "who": "bob"}])
    assets = {**ASSETS, "conditions": {"who": ["ann", "bob "]}}
    data = AudioData(dataset="files", test=str(manifest), conditions=["who"], assets=assets)
    assert data.load("test").values == [[1]]


def test_endings_in_capitals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, path in enumerate(write_files(tmp_path, count=4, size=50)):
        path.rename(path.with_suffix((".WAV", ".Wav", ".wav", ".aac")[number]))
    assert [item.path.name for item in listed(tmp_path)] == ["0.WAV", "1.Wav", "2.wav"]
    assert f"1 file(s) end in something else than .wav, .flac, .ogg, .mp3 and are left out (first {tmp_path}/3.aac" in (
        capsys.readouterr().err
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_folder_without_the_right_to_read_it(tmp_path: Path) -> None:
    write_files(tmp_path / "a", count=1, size=50)
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        listed(tmp_path)
