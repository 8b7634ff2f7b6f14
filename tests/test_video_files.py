"""Files of one's own for each split, in the video domain: folders, tables, what is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from domains.video.images import ImageData
from domains.video.listing import Item, list_items
from suite.errors import DataError, UsageError
from suite.splits import Division, divide
from tests.commands import QUIET, assert_one_line, run

TINY = (
    *("--data.size", "16", "--data.batch_size", "4", "--model.cnn.width", "8", "--trainer.max_epochs", "1"),
    *("--trainer.log_every_n_steps", "1"),
)


def write_pictures(folder: Path, *, count: int = 5, first: int = 0, labels: Sequence[str] = ("dark", "light")) -> Path:
    for shade, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            colour = (40 + 150 * (shade % 2) + number, 90, 90)
            Image.new("RGB", (20, 20), colour).save(folder / label / f"{number}.png")
    return folder


def picture_data(folder: Path, **settings: Any) -> ImageData:
    return ImageData(**{"dataset": "files", "size": 16, "cache": str(folder / "cache"), **settings})


def names_of(data: ImageData, split: str) -> list[str]:
    return [item.name for item in data.contents(split)[0]]


def test_each_split_has_files_of_its_own(tmp_path: Path) -> None:
    parts = {name: str(write_pictures(tmp_path / name, count=n)) for name, n in (("train", 5), ("val", 2), ("test", 3))}
    data = picture_data(tmp_path, **parts)
    assert [len(names_of(data, name)) for name in ("train", "val", "test", "all")] == [10, 4, 6, 20]
    assert names_of(data, "test") == [f"test/{label}/{n}.png" for label in ("dark", "light") for n in range(3)]
    assert len(set(names_of(data, "all"))) == 20
    assert data.assets["counts"] == [5, 5]


@pytest.mark.parametrize(("own", "expected"), [("val", [8, 6, 2]), ("test", [8, 2, 6])])
def test_what_is_not_given_is_held_out(own: str, expected: list[int], tmp_path: Path) -> None:
    train, other = write_pictures(tmp_path / "a"), write_pictures(tmp_path / "b", count=3)
    data = picture_data(tmp_path, train=str(train), held_out=0.2, **{own: str(other)})
    assert [len(names_of(data, name)) for name in ("train", "val", "test")] == expected
    both = names_of(data, "train") + names_of(data, "val" if own == "test" else "test")
    assert sorted(both) == sorted(item.name for item in list_items(train))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_manifest_is_any_table(ending: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "x", count=3)
    rows = [
        {"label": label, "path": f"x/{label}/{n}.png", "split": ("train", "val", "test")[n], "more": "1"}
        for label in ("dark", "light") for n in range(3)
    ]  # fmt: skip
    path = tmp_path / f"list.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "," if ending == "csv" else "\t"
        path.write_text("\n".join(mark.join(row) for row in [list(rows[0]), *(row.values() for row in rows)]))
    data = picture_data(tmp_path, train=str(path))
    assert [names_of(data, name) for name in ("train", "val", "test")] == [
        [f"x/{label}/{n}.png" for label in ("dark", "light")] for n in range(3)
    ]
    # The same table with the rows of one split alone, given as that split.
    path = tmp_path / "test.csv"
    path.write_text("path,label,split\nx/dark/2.png,dark,test\nx/light/2.png,light,\n")
    data = picture_data(tmp_path, train=str(tmp_path / "x"), test=str(path))
    assert names_of(data, "test") == ["x/dark/2.png", "test/x/light/2.png"]


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    whole, more = write_pictures(tmp_path / "whole"), write_pictures(tmp_path / "more", count=2)
    for name in ("train", "val", "test"):
        write_pictures(tmp_path / "parts" / name, count=2)
    parts = tmp_path / "parts"
    with pytest.raises(
        DataError, match=r"data.val is given, and data.train has items of val too: leave one of them out"
    ):
        names_of(picture_data(tmp_path, train=str(parts), val=str(more)), "train")
    with pytest.raises(
        DataError, match=r"data.test has items of train, val: give it as data.train, or leave those out"
    ):
        names_of(picture_data(tmp_path, train=str(whole), test=str(parts)), "test")
    with pytest.raises(UsageError, match=r"data.folds cuts data.train: leave data.val and data.test out"):
        picture_data(tmp_path, train=str(whole), test=str(more), folds=2)
    with pytest.raises(UsageError, match=r"data.train, val and test need --data.dataset files, not sample"):
        picture_data(tmp_path, dataset="sample", test=str(more))
    with pytest.raises(UsageError, match=r"--data.dataset files needs --data.train"):
        picture_data(tmp_path, test=str(more))
    with pytest.raises(UsageError, match=r"data.train is needed"):
        picture_data(tmp_path, test=str(more), assets={}).items("train")
    data = picture_data(tmp_path, train=str(whole), test=str(whole))
    data.items("test")
    with pytest.raises(DataError, match=r"0.png is in test and (train|val): it belongs into one split"):
        data.items("train")


def test_a_group_stays_on_one_side_of_files_given_apart(tmp_path: Path) -> None:
    write_pictures(tmp_path / "x", count=6)
    for name, numbers in (("train", range(4)), ("test", range(4, 6))):
        lines = [f"x/{label}/{n}.png,{label},g{min(n, 3)}" for label in ("dark", "light") for n in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label,group", *lines]))
    data = picture_data(tmp_path, train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"), held_out=0.3)
    data.items("test")
    with pytest.raises(DataError, match=r"group 'g3' is in test and (train|val): a group belongs into one split"):
        data.items("train")


def test_rows_without_a_split_are_for_training_where_the_others_are_elsewhere() -> None:
    items = [Item(Path(str(n)), str(n), "ab"[n % 2]) for n in range(6)]
    assert divide(items, Division(held_out=0.2, seed=0), others=["val", "test"]) == {"train": items}


def test_a_run_is_evaluated_on_other_files_and_not_on_what_it_has_learnt(tmp_path: Path) -> None:
    train, val, test = (write_pictures(tmp_path / name, count=n) for name, n in (("a", 6), ("b", 2), ("c", 3)))
    own = ("--data.dataset", "files", "--data.train", train, "--data.val", val, "--data.cache", tmp_path / "cache")
    fit = run("fit", "--domain", "video", "--task", "image_classification", *QUIET, "--runs", tmp_path, "--name", "x",
              *TINY, *own)  # fmt: skip
    assert fit.status == 0, fit.err
    checkpoint = ("--checkpoint", tmp_path / "video" / "x", "--data.cache", tmp_path / "cache")
    found = tmp_path / "found.jsonl"
    ran = run("evaluate", *checkpoint, "--data.test", test, "--output", found)
    assert ran.status == 0, ran.err
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert len(rows) == 6
    assert all(row["input"].startswith("test/") for row in rows)
    assert_one_line(run("evaluate", *checkpoint, "--data.val", "null"), 2, "data.val was", "name a file")
