"""Splits as they are given, held out or of a fold; tables and folders that give them."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.console import forget_notices
from suite.errors import DataError, UsageError
from suite.folders import split_folders
from suite.folds import hold_out_parts
from suite.listing import Entry, ListingColumns, read_entries
from suite.splits import SPLITS, Division, Splits, check_sources, divide


class Thing(NamedTuple):
    name: str
    label: str = "a"
    group: str | None = None
    split: str | None = None


GOLDEN = [[8, 11], [1, 2]]
THINGS = [Thing(f"t{number}", "abc"[number % 3]) for number in range(30)]


def splits_of(own: dict[str, list[Thing]], **division: object) -> Splits[Thing]:
    settings = {"held_out": 0.2, "seed": 0, **division}
    return Splits(own.__getitem__, own=list(own), division=Division(**settings), name="x", key=lambda thing: thing.name)  # type: ignore[arg-type]


@given(count=st.integers(4, 300), share=st.floats(0.001, 0.499), seed=st.integers(-(2**40), 2**40))
def test_what_one_split_is_does_not_depend_on_whether_the_other_is_missing(count: int, share: float, seed: int) -> None:
    labels = [""] * count
    both, val, test, none = (
        hold_out_parts(labels, missing=missing, held_out=share, seed=seed)
        for missing in (("val", "test"), ["val"], {"test"}, ())
    )
    assert sorted(index for part in both for index in part) == list(range(count))
    assert all(len(part) for part in both)
    assert all(abs(len(part) - count * share) <= 1.5 for part in both[1:])
    assert val.val.tolist() == both.val.tolist()
    assert test.test.tolist() == both.test.tolist()
    assert sorted([*val.train, *val.val]) == sorted([*test.train, *test.test]) == none.train.tolist()
    assert not len(val.test) + len(test.val) + len(none.val) + len(none.test)


def test_held_out_indices_are_golden() -> None:
    # Written down so that a stored run keeps its splits under later versions of libraries and of the suite.
    parts = hold_out_parts([""] * 12, missing=("val", "test"), held_out=0.2, seed=0)
    assert [part.tolist() for part in parts[1:]] == GOLDEN
    other = hold_out_parts([""] * 12, missing=("val", "test"), held_out=0.2, seed=-1)
    assert [part.tolist() for part in other[1:]] != GOLDEN


SHARES = [(0.0, ["val"], "1"), (1.0, ["val"], "1"), (0.5, ["test"], "0.5"), (-1, ["test"], "0.5")]


@pytest.mark.parametrize(("share", "missing", "limit"), SHARES)
def test_a_share_that_leaves_nothing_is_refused(share: float, missing: list[str], limit: str) -> None:
    with pytest.raises(UsageError, match=rf"data\.held_out is {share}, allowed is more than 0 and less than {limit}$"):
        hold_out_parts([""] * 10, missing=missing, held_out=share, seed=0)


def test_splits_are_read_when_they_are_asked_for() -> None:
    asked: list[str] = []

    def read(split: str) -> list[Thing]:
        asked.append(split)
        return {"train": THINGS[:24], "test": THINGS[24:]}[split]

    parts = Splits(read, own=["train", "test"], division=Division(0.25, 0), name="x")
    assert parts.items("test") == THINGS[24:]
    assert asked == ["test"]
    assert Counter(thing.label for thing in parts.items("val")) == {"a": 2, "b": 2, "c": 2}
    assert len(parts.items("train")) == 18
    assert sorted(parts.items("all")) == sorted(THINGS)
    assert asked == ["test", "train"]
    assert Splits(read, own=["test"], division=Division(0.25, 0), name="x").items("all") == THINGS[24:]
    with pytest.raises(UsageError, match=r"--data.split other: x has train, val, test, all"):
        parts.items("other")
    with pytest.raises(UsageError, match=r"data.train is needed"):
        Splits(read, own=["test"], division=Division(0.25, 0), name="x").items("train")


def test_the_splits_that_items_say_are_taken() -> None:
    said = [thing._replace(split=("train", "test", "")[number % 3] or None) for number, thing in enumerate(THINGS)]
    parts = splits_of({"train": said})
    assert {thing.split for thing in parts.items("test")} == {"test"}
    assert len(parts.items("val")) == 4
    assert {thing.split for thing in [*parts.items("val"), *parts.items("train")]} == {"train", None}
    folds = [splits_of({"train": said}, folds=3, fold=fold) for fold in range(3)]
    assert sorted(thing.name for each in folds for thing in each.items("test")) == sorted(t.name for t in THINGS)


def test_contradictions_are_refused() -> None:
    val, test = THINGS[0]._replace(split="val"), THINGS[1]._replace(split="test")
    with pytest.raises(DataError, match=r"data.val is given, and data.train has items of val too"):
        splits_of({"train": [val, *THINGS], "val": [THINGS[2]]}).items("train")
    with pytest.raises(DataError, match=r"data.test has items of val: give it as data.train"):
        splits_of({"train": THINGS, "test": [val]}).items("test")
    with pytest.raises(DataError, match=r"some items have a split and others none"):
        divide([val, test, *THINGS[2:]], Division(0.2, 0))
    parts = splits_of({"train": THINGS, "test": THINGS[:1]})
    parts.items("test")
    with pytest.raises(DataError, match=r"t0 is in test and (train|val): it belongs into one split"):
        parts.items("train")
    grouped = [thing._replace(group="g") for thing in THINGS[:4]]
    parts = splits_of({"train": [*grouped[2:], *THINGS[4:]], "test": grouped[:2]})
    parts.items("train")
    with pytest.raises(DataError, match=r"group 'g' is in test and (train|val): a group belongs into one split"):
        parts.items("test")


def test_files_and_names_of_data_sets_go_together() -> None:
    def check(dataset: str, *, folds: int | None = None, has_assets: bool = False, **paths: str) -> None:
        given = {split: paths.get(split) for split in SPLITS}
        check_sources(dataset, given, folds=folds, has_assets=has_assets, form="a table")

    check("sample")
    check("files", train="x", val="y")
    check("files", test="x", has_assets=True)
    with pytest.raises(UsageError, match=r"need --data.dataset files, not sample"):
        check("sample", test="x")
    with pytest.raises(UsageError, match=r"--data.dataset files needs --data.train: a table"):
        check("files", test="x")
    with pytest.raises(UsageError, match=r"data.folds cuts data.train"):
        check("files", train="x", test="y", folds=3)


def test_tables_with_groups_and_splits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    forget_notices()
    path = tmp_path / "list.csv"
    path.write_text("path,split,group,more\nx,val,g,1\ny,, ,2\n")
    plain = read_entries(path, columns=["path"], listing=ListingColumns())
    assert capfd.readouterr().err.count("--data.") == 2, "the use of both columns is reported"
    forget_notices()
    assert read_entries(path, columns=["path"], listing=ListingColumns(known=True)) == plain
    assert not capfd.readouterr().err
    assert plain == [Entry(1, ("x",), "g", "val"), Entry(2, ("y",), None, None)]
    without = read_entries(path, columns=["more", "path"], listing=ListingColumns(None, None))
    assert without == [Entry(1, ("1", "x"), None, None), Entry(2, ("2", "y"), None, None)]
    assert read_entries(path, columns=["path"], listing=ListingColumns("more", None))[1].group == "2"
    with pytest.raises(DataError, match=r"'source' is missing; there are path, split, group, more"):
        read_entries(path, columns=["path"], listing=ListingColumns("source"))
    path.write_text("path,split\n ,val\nx,eval\n")
    with pytest.raises(
        DataError,
        match=r"1 of 2 rows have no value in column 'path' \(line 2\).*split must be .*, got 'eval' in line 3",
    ):
        read_entries(path, columns=["path"], listing=ListingColumns(), filled=["path"])
    with pytest.raises(UsageError, match=r"data.split_column is for tables, and .* is a folder"):
        ListingColumns(split="part").refuse_for(tmp_path)
    ListingColumns().refuse_for(tmp_path)


def test_folders_of_splits(tmp_path: Path) -> None:
    for name in ("train", "test", ".hidden"):
        (tmp_path / name).mkdir()
    assert split_folders(tmp_path) == {"train": tmp_path / "train", "test": tmp_path / "test"}
    (tmp_path / "bus").mkdir()
    with pytest.raises(DataError, match=r"beside train, test there are bus"):
        split_folders(tmp_path)
    (tmp_path / "bus").rename(tmp_path / "Validation")
    assert split_folders(tmp_path) == {
        "train": tmp_path / "train", "val": tmp_path / "Validation", "test": tmp_path / "test"
    }  # fmt: skip
    (tmp_path / "dev").mkdir()
    with pytest.raises(DataError, match=r"Validation and dev are both val: join them"):
        split_folders(tmp_path)
    (tmp_path / "dev").rmdir()
    (tmp_path / "Validation").rename(tmp_path / "bus")
    (tmp_path / "test").rmdir()
    assert split_folders(tmp_path) == {None: tmp_path}, "a class of trains"
