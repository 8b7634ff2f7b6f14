"""What ``predict`` takes beside files: folders, patterns and tables; archives of every kind; labels of files."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from domains.video.images import ImageData
from domains.video.inputs import list_inputs
from domains.video.listing import list_items
from domains.video.pictures import decode_pictures, list_archive
from suite.errors import DataError
from tests.commands import QUIET, run

EXTENSIONS = ImageData.extensions()


def picture(path: Path, shade: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("b/2.png", "a/1.JPG", "a/3.png", "10.png", ".hidden/4.png", "a/.5.png"):
        picture(folder / name)
    (folder / "notes.txt").write_text("text")
    (folder / "a" / "labels.csv").write_text("text")
    (folder / "README").write_text("text")
    return folder


def names(inputs: list[str]) -> list[str]:
    return [item.name for item in list_inputs(inputs, path_column="path", extensions=EXTENSIONS)]


def test_a_folder_gives_its_files_sorted(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [str(pictures / name) for name in ("10.png", "a/1.JPG", "a/3.png", "b/2.png")]
    assert names([str(pictures)]) == expected
    err = capsys.readouterr().err
    assert "3 files are left out because of their extensions" in err
    assert all(
        part in err for part in ("1 with .txt", "1 with .csv", "1 with no extension", f"first {pictures}/README")
    )
    # A file that is named itself is always tried, and the order of arguments stays.
    first = str(pictures / "notes.txt")
    assert names([first, str(pictures / "a"), expected[0]]) == [first, *expected[1:3], expected[0]]


def test_a_pattern_gives_what_matches(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names([f"{pictures}/*/*.png"]) == [str(pictures / name) for name in ("a/3.png", "b/2.png")]
    assert names([f"{pictures}/**/*.png"]) == [str(pictures / name) for name in ("10.png", "a/3.png", "b/2.png")]
    assert capsys.readouterr().err == ""
    assert names([f"{pictures}/[ab]"]) == [str(pictures / name) for name in ("a/1.JPG", "a/3.png", "b/2.png")]
    odd = picture(pictures / "odd [1].png")
    assert names([str(odd)]) == [str(odd)]
    (pictures / "none").mkdir()
    with pytest.raises(DataError, match=r"\*\.mp4: no file to predict is found there; .*none: no file to predict"):
        names([f"{pictures}/*.mp4", str(pictures / "none")])


@pytest.mark.parametrize("ending", ["csv", "TSV", "jsonl", "parquet"])
def test_a_table_keeps_its_order_and_ids(ending: str, pictures: Path) -> None:
    rows = [{"id": f"n{n}", "path": path} for n, path in enumerate(("b/2.png", "none.png", "a/1.JPG", "b/2.png"))]
    table = pictures / f"list.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    elif ending == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "," if ending == "csv" else "\t"
        table.write_text("\n".join([mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]) + "\n")
    items = list_inputs([str(table)], path_column="path", extensions=EXTENSIONS)
    assert [(item.row_id, item.name) for item in items] == [(row["id"], row["path"]) for row in rows]
    assert [item.path for item in items] == [pictures / row["path"] for row in rows]
    with pytest.raises(DataError, match="column 'file' is missing; there are"):
        list_inputs([str(table)] if ending != "jsonl" else [str(pictures / "a" / "labels.csv")], path_column="file",
                    extensions=EXTENSIONS)  # fmt: skip


def test_predict_from_a_table_and_a_folder(tmp_path: Path) -> None:
    for label, shade in (("dark", 20), ("light", 220)):
        for number in range(5):
            picture(tmp_path / "in" / label / f"{number}.png", shade + number)
    own = ("--data.dataset", "files", "--data.train", tmp_path / "in", "--data.size", 16, "--data.batch_size", 4)
    fit = run("fit", "--domain", "video", "--task", "image_classification", *QUIET, "--runs", tmp_path, "--name", "x",
              *own, "--model.cnn.width", 8, "--trainer.max_epochs", 1, "--data.cache", tmp_path / "cache")  # fmt: skip
    assert fit.status == 0, fit.err
    (tmp_path / "list.csv").write_text("id,path\nx7,in/dark/0.png\nx3,in/none.png\n")
    command = ("predict", "--checkpoint", tmp_path / "video" / "x", "--data.cache", tmp_path / "cache")
    ran = run(*command, "--format", "jsonl", tmp_path / "list.csv", tmp_path / "in" / "light")
    rows = [json.loads(line) for line in ran.lines]
    assert ran.status == 1
    assert [row.get("id") for row in rows] == ["x7", "x3", *[None] * 5]
    assert [row["input"] for row in rows[:2]] == ["in/dark/0.png", "in/none.png"]
    assert rows[1]["error"] == "no such file"
    assert all("label" in row for row in [rows[0], *rows[2:]])
    # A tab or line break in a name stays in its field.
    odd = picture(tmp_path / "a\tb\nc.png")
    assert run(*command, odd).lines[0].split("\t")[0] == f"{tmp_path}/a\\tb\\nc.png"


MEMBERS = ("train/a/1.png", "train/b/2.png", "test/a/3.png")


@pytest.mark.parametrize("ending", ["tar", "TAR.GZ", "tgz", "tar.bz2", "tar.xz", "zip", "ZIP"])
def test_archives_of_every_kind_are_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    contents = {name: picture(tmp_path / "in" / name, 10 * n).read_bytes() for n, name in enumerate(MEMBERS)}
    if ending.lower() == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
            link = zipfile.ZipInfo("train/b/link.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "../a/1.png")
    else:
        mode = {"tgz": "gz", "tar.gz": "gz", "tar.bz2": "bz2", "tar.xz": "xz"}.get(ending.lower(), "")
        with tarfile.open(path, cast(Any, f"w:{mode}")) as packed:
            for name, content in contents.items():
                entry = tarfile.TarInfo(f"./{name}")
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    if ending.lower() == "zip":  # one file under two labels
        with pytest.raises(DataError, match=r"train/a/1.png \(train/b/link.png is the same file\) is listed more than"):
            list_archive(path)
        return
    items = list_archive(path)
    assert [(item.name, item.label, item.split) for item in items] == [
        (name, name.split("/")[1], name.split("/")[0]) for name in MEMBERS
    ]
    pixels, problems = decode_pictures(items, size=16, fit="crop")
    assert pixels[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert problems == {}


def test_a_zip_with_links_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(MEMBERS):
            archive.writestr(name, picture(tmp_path / "in" / name, 10 * number).read_bytes())
        link = zipfile.ZipInfo("train/a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "1.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT", content.index(b"train/b/2.png")) + 6] ^= 255
    path.write_bytes(content)
    items = list_archive(path)
    pixels, problems = decode_pictures(items, size=16, fit="crop")
    assert [item.name for item in items] == [*MEMBERS, "train/a/link.png"]
    numpy.testing.assert_array_equal(pixels[3], pixels[0])
    assert items[3].group == items[0].group == "file train/a/1.png"
    assert list(problems) == ["train/b/2.png"]
    assert problems["train/b/2.png"].startswith("damaged in the archive")


@pytest.mark.parametrize("ending", ["7z", "rar", "tar.zst"])
def test_other_archives_are_refused_by_name(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"x" * 99)
    with pytest.raises(DataError, match=r"this kind of archive is not supported; repack it as \.tar, .*\.zip"):
        list_archive(path)
    with pytest.raises(DataError, match=r"archives are read for pictures only; unpack it"):
        list_items(path)


def test_one_file_with_two_labels_is_refused_however_it_is_written(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").symlink_to("../a/1.png")
    (tmp_path / "c").symlink_to("a")
    for rows in ("a/1.png,x\n./a/1.png,y\n", "a/1.png,x\nb/2.png,y\n", "a/1.png,x\nc/1.png,y\n"):
        (tmp_path / "list.csv").write_text(f"path,label\n{rows}")
        with pytest.raises(DataError, match=r"1.png is the same file|2.png is the same file") as error:
            list_items(tmp_path / "list.csv")
        assert "as 'x' and as 'y'" in str(error.value)
    with pytest.raises(DataError, match="as 'a' and as 'b'"):
        list_items(tmp_path)
    # With one label it is one group, so that no split learns another's file.
    (tmp_path / "list.csv").write_text("path,label\na/1.png,x\nb/2.png, x \n")
    items = list_items(tmp_path / "list.csv")
    assert [item.label for item in items] == ["x", "x"]
    assert items[0].group == items[1].group is not None


def test_a_misspelt_folder_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"picture: no such folder or table \(near names there: pictures\)"):
        list_items(tmp_path / "picture")
