"""Which files there are, with their conditions, groups and splits: folders, tables, and two public sets."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from domains.audio.files import ENDINGS
from domains.audio.remotes import REMOTES
from suite.console import notice, one_line
from suite.errors import DataError, UsageError, gather
from suite.folders import files_below, split_folders
from suite.labels import clean_name
from suite.listing import ListingColumns, read_entries
from suite.sources import data_folder

_FSDD_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_FSDD_TEST, _FSDD_VAL = range(0, 5), range(5, 7)
_LJ_CLIPS = 13_100  # in LJ Speech 1.1

CONDITIONS = {"sample": ("instrument", "pitch"), "fsdd": ("speaker", "digit"), "ljspeech": ()}
"""The conditions that named sets have."""


class Item(NamedTuple):
    """A file before it is opened, with a value for each condition, and its group and split where they are given."""

    path: Path
    conditions: dict[str, str]
    group: str | None = None
    split: str | None = None

    @property
    def label(self) -> str:
        """The combination of all conditions: what splits are stratified by."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.conditions.items()))


def list_named(dataset: str) -> list[Item]:
    """The files of a public set, all with their splits.

    Raises:
        DataError: the folder is not there, or holds other files.
    """
    return _fsdd() if dataset == "fsdd" else _ljspeech()


def _fsdd() -> list[Item]:
    """Free Spoken Digits: recordings 0 to 4 of each speaker and digit are the test, 5 and 6 the validation split."""
    pattern = "recordings/*.wav"
    folder = data_folder("fsdd", patterns=[pattern], wanted="recordings/DIGIT_SPEAKER_INDEX.wav")
    items = []
    for path in sorted(folder.glob(pattern)):
        found = _FSDD_NAME.fullmatch(path.name)
        if found is None:
            raise DataError(f"{path}: its name is not DIGIT_SPEAKER_INDEX.wav: move it away")
        digit, speaker, index = found.groups()
        split = "test" if int(index) in _FSDD_TEST else "val" if int(index) in _FSDD_VAL else "train"
        items.append(Item(path, {"speaker": speaker, "digit": digit}, split=split))
    return items


def _ljspeech() -> list[Item]:
    """LJ Speech: the wav files of the folder (or of ``wavs/`` in it); the last tenth is test, the one before val.

    Where they are not all, such as those that are downloaded, it is said: the test clips of the first few are training
    clips of more.
    """
    patterns, wanted = ["LJ*.wav", "wavs/LJ*.wav"], "the clips LJ*.wav"
    folder = data_folder("ljspeech", patterns=patterns, wanted=wanted, remotes=REMOTES["ljspeech"])
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if len(paths) < 3:
        raise DataError(f"{folder}: {len(paths)} files LJ*.wav, needed are three or more: put the clips there")
    if len(paths) < _LJ_CLIPS:
        notice(
            f"data: ljspeech: {folder} has {len(paths):,} of the {_LJ_CLIPS:,} clips: for trying the recipe, not for "
            "figures (what is test here is training data where there are more)"
        )
    tenth = max(1, len(paths) // 10)
    splits = ["train"] * (len(paths) - 2 * tenth) + ["val"] * tenth + ["test"] * tenth
    return [Item(path, {}, split=split) for path, split in zip(paths, splits, strict=True)]


def list_items(source: str, *, conditions: Sequence[str], path_column: str, listing: ListingColumns) -> list[Item]:
    """The files of a folder, or of a table, in which paths count from its own folder.

    In a folder, the condition ``folder`` is the name of a file's own folder, and folders ``train``, ``val`` and
    ``test`` at the top are splits. Values of conditions are compared by ``clean_name``. A file that is listed several
    times is used once.

    Raises:
        UsageError: a condition or a column that a folder does not have.
        DataError: a folder without audio, a table that cannot be read, or a file with two values of a condition.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        listing.refuse_for(path)
        return _list_folder(path, conditions)
    columns, finder = [path_column, *conditions], _Finder()
    flags = {**dict.fromkeys(conditions, "--data.conditions"), path_column: "--data.path_column"}
    placed = []
    for entry in read_entries(path, columns=columns, listing=listing, filled=columns, names=conditions, flags=flags):
        file = finder.find(path.parent / Path(entry.values[0]).expanduser())
        known = dict(zip(conditions, entry.values[1:], strict=True))
        placed.append((f"row {entry.row}", Item(file, known, entry.group, entry.split)))
    return _use_once(path, placed)


class _Finder:
    """Finds files whose names differ from those in a table only in their Unicode form: systems change it."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path:
        """The file that is there, or ``path`` if none is."""
        if os.path.lexists(path):
            return path
        place = Path(path.anchor)
        for part in path.parts[1 if path.anchor else 0 :]:
            exact = place / part
            found = [part] if os.path.lexists(exact) else self._listed(place).get(clean_name(part), [])
            if len(found) != 1:
                return path
            place = place / found[0]
        return place

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):
                    names.setdefault(clean_name(name), []).append(name)
            except OSError:
                pass  # what reads the file says so
            self._names[folder] = names
        return self._names[folder]


def _use_once(source: Path, placed: Sequence[tuple[str, Item]]) -> list[Item]:
    """The items without those whose file, links resolved, an earlier one has; each comes with its place in ``source``.

    Raises:
        DataError: a file with two values of a condition, in two groups or in two splits.
    """
    seen: dict[str, tuple[str, Item]] = {}
    problems, again = [], 0
    for place, item in placed:
        other_place, other = seen.setdefault(os.path.realpath(item.path), (place, item))
        if other is item:
            continue
        again += 1
        if other[1:] != item[1:]:
            problems.append(
                one_line(
                    f"{source}: {other_place} and {place} are one file, {item.path}, with {_shown(other)} and "
                    f"{_shown(item)}: keep one of them"
                )
            )
    gather(problems)
    if again:
        notice(f"data: {source}: entries that repeat the file of an earlier one: {again:,}; each file is used once")
    return [item for _, item in seen.values()]


def _shown(item: Item) -> str:
    words = [f"{name}={value}" for name, value in item.conditions.items()]
    words += [f"{name} {value}" for name, value in (("group", item.group), ("split", item.split)) if value]
    return " ".join(words) or "no values"


def _list_folder(root: Path, conditions: Sequence[str]) -> list[Item]:
    unknown = [name for name in conditions if name != "folder"]
    if unknown:
        raise UsageError(
            f"data.conditions {', '.join(unknown)}: a folder has only the condition folder; give a manifest (a table "
            "with a column for each)"
        )
    placed, others = [], []
    folders = split_folders(root)
    loose = [path for path in sorted(root.iterdir()) if path.suffix.lower() in ENDINGS and None not in folders]
    if loose:
        raise DataError(f"{root}: beside {', '.join(map(str, folders))} there is {loose[0].name}: move it into one")
    for split, folder in folders.items():
        for path in files_below(folder):
            if path.suffix.lower() in ENDINGS:
                known = {"folder": clean_name(path.parent.name)} if conditions else {}
                placed.append((str(path.relative_to(root)), Item(path, known, split=split)))
            else:
                others.append(path)
    if not placed:
        raise DataError(f"{root}: no files {', '.join(ENDINGS)} in it or below")
    if others:
        notice(
            f"data: {root}: {len(others)} file(s) end in something else than {', '.join(ENDINGS)} and are left out "
            f"(first {others[0]})"
        )
    return _use_once(root, placed)


def check_choice(items: Sequence[Item], wanted: Iterable[tuple[str, str]]) -> None:
    """Refuse conditions and values that none of ``items``, those of all splits, has.

    Raises:
        UsageError: listing those there are.
    """
    for name, value in wanted:
        values = sorted({item.conditions.get(name, "") for item in items} - {""})
        if not values:
            names = sorted({key for item in items for key in item.conditions})
            raise UsageError(f"{name}={value}: no such condition; there are {', '.join(names) or 'none'}")
        if value not in values:
            raise UsageError(f"{name}={value}: no file has it; there are {', '.join(values)}")


def choose(items: list[Item], *, only: dict[str, str], leave_out: dict[str, str], most: int | None) -> list[Item]:
    """Items of certain conditions, and at most so many for each combination of values, the first by name."""
    kept = [item for item in items if all(item.conditions[name] == value for name, value in only.items())]
    kept = [item for item in kept if not any(item.conditions[name] == value for name, value in leave_out.items())]
    if most is None:
        return kept
    seen: Counter[str] = Counter()
    few = []
    for item in kept:
        seen[item.label] += 1
        if seen[item.label] <= most:
            few.append(item)
    return few
