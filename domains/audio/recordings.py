"""Which clips there are and what is known of each: the embedded sample, folders, manifests, and two public sets."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from domains.audio import sample
from domains.audio.files import ENDINGS, ArrayClip, Clip, open_clips
from suite.console import notice
from suite.errors import DataError, UsageError, gather
from suite.folders import is_hidden
from suite.folds import fold_parts, hold_out, refuse_shared_groups, whole_groups
from suite.sources import data_folder, read_table

_FSDD_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_FSDD_TEST, _FSDD_VAL = range(0, 5), range(5, 7)
_SAMPLE_MINUTES = {"val": 0.4, "test": 0.8}


class Recording(NamedTuple):
    """A clip and its ``conditions``, a value for each name."""

    clip: Clip
    conditions: dict[str, str]


class Item(NamedTuple):
    """A file before it is opened; items of one ``group`` stand in one split."""

    path: Path
    conditions: dict[str, str]
    group: str | None = None


_Kind = TypeVar("_Kind", Item, Recording)


def sample_notes(split: str, *, minutes: float) -> list[Recording]:
    """The synthesiser's notes with their ``instrument`` and ``pitch``."""
    notes = sample.generate(split, minutes=minutes if split == "train" else _SAMPLE_MINUTES[split])
    return [
        Recording(
            ArrayClip(note.samples, name=f"{split}-{number:04d}-{note.instrument}-{note.pitch}", rate=sample.RATE),
            {"instrument": note.instrument, "pitch": note.pitch},
        )
        for number, note in enumerate(notes)
    ]


def fsdd(split: str) -> list[Item]:
    """Free Spoken Digits: recordings 0 to 4 of each speaker and digit are the test, 5 and 6 the validation split.

    Raises:
        DataError: the folder is not there, or holds other files.
    """
    folder = data_folder("fsdd", files=[]) / "recordings"
    names = sorted(path.name for path in folder.glob("*.wav")) if folder.is_dir() else []
    if not names:
        raise DataError(f"{folder}: no recordings; put the files DIGIT_SPEAKER_INDEX.wav there")
    items = []
    for name in names:
        found = _FSDD_NAME.fullmatch(name)
        if found is None:
            raise DataError(f"{folder / name}: its name is not DIGIT_SPEAKER_INDEX.wav: move it away")
        digit, speaker, index = found.groups()
        place = "test" if int(index) in _FSDD_TEST else "val" if int(index) in _FSDD_VAL else "train"
        if place == split:
            items.append(Item(folder / name, {"speaker": speaker, "digit": digit}))
    return items


def ljspeech(split: str) -> list[Item]:
    """LJ Speech: the wav files of the folder (or of ``wavs/`` in it); the last tenth of them is test, the one before
    that validation.

    Raises:
        DataError: fewer than three files.
    """
    folder = data_folder("ljspeech", files=[])
    paths = sorted([*folder.glob("LJ*.wav"), *folder.glob("wavs/LJ*.wav")])
    if len(paths) < 3:
        raise DataError(f"{folder}: {len(paths)} files LJ*.wav, needed are three or more: put the clips there")
    tenth = max(1, len(paths) // 10)
    parts = {"train": paths[: -2 * tenth], "val": paths[-2 * tenth : -tenth], "test": paths[-tenth:]}
    return [Item(path, {}) for path in parts[split]]


def own(
    source: str, *, conditions: Sequence[str], path_column: str, split_column: str | None, group_column: str | None
) -> dict[str, list[Item]]:
    """The items of a folder or a manifest by split; those of no split under ``""``.

    In a folder, the condition ``folder`` is the name of a file's own folder, and folders ``train``, ``val`` and
    ``test`` at the top are splits. A manifest is a table; paths in it count from its own folder.

    Raises:
        UsageError: a condition that a folder does not have.
        DataError: a folder without audio, or a table that cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        if group_column:
            raise UsageError(f"data.group_column is for manifests, and {path} is a folder: leave it out")
        return _folder(path, conditions)
    columns = [path_column, *conditions, *filter(None, (group_column, split_column))]
    found: dict[str, list[Item]] = {}
    problems = []
    for number, row in enumerate(read_table(path, columns=columns), start=1):
        values = dict(zip(conditions, row[1 : 1 + len(conditions)], strict=True))
        split = row[-1] if split_column else ""
        if split_column and split not in ("train", "val", "test"):
            problems.append(f"{path}, row {number}: {split_column} is {split!r}, allowed are train, val, test")
        empty = [name for name, value in values.items() if not value.strip()]
        if empty or not row[0].strip():
            problems.append(f"{path}, row {number}: {', '.join(empty) or path_column} is empty")
        group = row[1 + len(conditions)].strip() or None if group_column else None
        found.setdefault(split, []).append(Item(path.parent / row[0], values, group))
    gather(problems)
    return found


def _folder(folder: Path, conditions: Sequence[str]) -> dict[str, list[Item]]:
    unknown = [name for name in conditions if name != "folder"]
    if unknown:
        raise UsageError(
            f"data.conditions {', '.join(unknown)}: a folder has only the condition folder; give a manifest (a table "
            "with a column for each)"
        )
    found: dict[str, list[Item]] = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path, folder))
    paths = [path for path in files if path.suffix.lower() in ENDINGS]
    others = [path for path in files if path.suffix.lower() not in ENDINGS]
    if others and paths:
        notice(
            f"data: {folder}: {len(others)} file(s) end in something else than {', '.join(ENDINGS)} and are left out "
            f"(first {others[0]})"
        )
    for path in paths:
        top = path.relative_to(folder).parts[0]
        split = top if top in ("train", "val", "test") else ""
        found.setdefault(split, []).append(Item(path, {"folder": path.parent.name} if conditions else {}))
    if not found:
        raise DataError(f"{folder}: no files {', '.join(ENDINGS)} in it or below")
    return found


def divide(found: dict[str, list[Item]], *, held_out: float, seed: int) -> dict[str, list[Item]]:
    """Splits that are missing are held out of the items without a split, or else of the training split.

    About the same share of each combination of conditions; none is missing where there is nothing to train on.
    """
    parts = {name: list(found.get(name, [])) for name in ("train", "val", "test")}
    parts["train"] += found.get("", [])
    missing = [name for name in ("val", "test") if not parts[name]]
    if missing and parts["train"]:
        for number, name in enumerate(missing):
            pool, fraction = parts["train"], held_out / (1.0 - number * held_out)
            labels, groups = [_values(item) for item in pool], _groups(pool)
            kept, held = hold_out(labels, fraction=fraction, seed=seed, groups=groups, key=name)
            parts[name] = [pool[index] for index in held.tolist()]
            parts["train"] = [pool[index] for index in kept.tolist()]
        empty = [name for name in missing if not parts[name]]
        if empty:
            raise DataError(f"too few files to hold out {' and '.join(missing)}: add files, or name them yourself")
    given = {name: [item.group for item in items] for name, items in parts.items()}
    refuse_shared_groups(given, where="the given splits")
    return parts


def paths_of(items: Iterable[Item]) -> set[str]:
    """Where items are, however it was written."""
    return {os.path.normpath(item.path) for item in items}


def cut_fold(items: Sequence[_Kind], *, folds: int, fold: int, held_out: float, seed: int) -> dict[str, list[_Kind]]:
    """The splits of one fold of a cross-validation: about the same share of each combination of conditions in each."""
    labels, groups = [_values(item) for item in items], _groups(items)
    parts = fold_parts(labels, folds=folds, fold=fold, seed=seed, held_out=held_out, groups=groups)
    return {name: [items[index] for index in part.tolist()] for name, part in zip(parts._fields, parts, strict=True)}


def _values(item: Item | Recording) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(item.conditions.items()))


def _groups(items: Sequence[Item] | Sequence[Recording]) -> list[str] | None:
    own = [f"file {number}" for number in range(len(items))]
    return whole_groups([item.group if isinstance(item, Item) else None for item in items], own=own)


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
    seen: Counter[tuple[tuple[str, str], ...]] = Counter()
    few = []
    for item in kept:
        key = tuple(sorted(item.conditions.items()))
        seen[key] += 1
        if seen[key] <= most:
            few.append(item)
    return few


def open_all(items: list[Item], *, rate: int, split: str) -> list[Recording]:
    """Every item as a recording.

    Raises:
        DataError: files that cannot be, all of them named at once.
    """
    clips, problems = open_clips([item.path for item in items], rate=rate)
    gather(problems, limit=20)
    others = Counter(clip.own_rate for clip in clips if clip.own_rate != rate)
    if others:
        rates = ", ".join(f"{count} at {own} Hz" for own, count in sorted(others.items()))
        notice(f"data: of {len(clips)} files in {split}, {rates} are resampled to {rate} Hz")
    return [Recording(clip, item.conditions) for clip, item in zip(clips, items, strict=True)]


NAMED: dict[str, tuple[Callable[[str], list[Item]], tuple[str, ...]]] = {
    "fsdd": (fsdd, ("speaker", "digit")),
    "ljspeech": (ljspeech, ()),
}
"""Public sets by name: how their items are found, and the conditions that they have."""
