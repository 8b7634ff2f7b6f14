"""Files sorted into folders: ``<root>/<class>/<file>``, or ``<root>/<split>/<class>/<file>``."""

import os
from collections.abc import Sequence
from pathlib import Path

from suite.console import notice, notice_once, one_line
from suite.errors import DataError, gather
from suite.labels import clean_name
from suite.splits import SPLITS, split_of

_NAMED = 3  # files that a message names
_Inode = tuple[int, int]


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a name on the way from ``root`` to ``path`` begins with a dot: what systems and tools leave behind."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def files_below(root: Path) -> list[Path]:
    """Files below ``root``, sorted; links to files and folders are followed, and hidden names are passed over.

    Links that lead nowhere or in a circle, and devices, are counted and named in a notice.

    Raises:
        DataError: a folder that cannot be read.
    """
    found: list[Path] = []
    lost: list[str] = []
    _collect(root, (), set(), found, lost)
    _report_lost(root, lost)
    return sorted(found)


def _collect(folder: Path, above: tuple[_Inode, ...], linked: set[_Inode], found: list[Path], lost: list[str]) -> None:
    """Add the files in ``folder`` to ``found``, and what is none to ``lost``.

    ``above`` has the folders around it; ``linked`` those that were reached by a link, each of which is entered once.
    """
    try:
        state = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror})") from None
    own = (state.st_dev, state.st_ino)
    if own in above or (folder.is_symlink() and own in linked):
        lost.append(str(folder))
        return
    if folder.is_symlink():
        linked.add(own)
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if path.is_dir():
            _collect(path, (*above, own), linked, found, lost)
        elif path.is_file():
            found.append(path)
        else:
            lost.append(str(path))


def _report_lost(root: Path, lost: list[str]) -> None:
    if lost:
        named = ", ".join(sorted(lost)[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
        notice(
            one_line(
                f"data: {root}: {len(lost):,} links or devices are left out, because they lead to no file, in a "
                f"circle, or to a folder that another link leads to ({named})"
            )
        )


def split_folders(root: Path) -> dict[str | None, Path]:
    """The folders train, val and test in ``root``, if there is train; otherwise ``root`` itself, of no split.

    With other folders beside it and neither val nor test, ``train`` is a class. Usual other spellings (``validation``,
    ``dev``) are accepted and reported.

    Raises:
        DataError: folders that are neither, beside several splits; two folders of one split.
    """
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    places: dict[str, list[str]] = {}
    for name in folders:
        if split := split_of(name):
            places.setdefault(split, []).append(name)
    others = [name for name in folders if split_of(name) is None]
    if "train" not in places or (others and [*places] == ["train"]):
        return {None: root}
    present = {split: places[split] for split in SPLITS if split in places}
    if others:
        shown = ", ".join(name for names in present.values() for name in names)
        raise DataError(f"{root}: beside {shown} there are {', '.join(others[:5])}: move them away")
    gather(
        [f"{root}: {' and '.join(names)} are both {split}: join them" for split, names in present.items() if names[1:]]
    )
    spelt = [f"{names[0]!r} as {split}" for split, names in present.items() if names[0] != split]
    if spelt:
        notice_once(f"data: {root}: folders read as splits: {', '.join(spelt)}")
    return {split: root / names[0] for split, names in present.items()}


def class_files(root: str | Path, *, endings: Sequence[str] | None = None) -> list[tuple[Path, str]]:
    """Paths and class names, sorted by class and name; files further down belong to their class too.

    Hidden files are passed over.

    Raises:
        DataError: no such folder, none with a class, files of other ``endings``, or classes without files.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; one with a folder for each class is needed")
    classes = _class_folders(folder)
    if not classes:
        raise DataError(f"{folder}: there is no folder in it; one folder a class is needed, with its files inside")
    found: list[tuple[Path, str]] = []
    others: list[Path] = []
    empty = []
    for label, places in classes.items():
        right: list[Path] = []
        for path in [file for place in places for file in files_below(place)]:
            wanted = endings is None or path.name.lower().endswith(tuple(endings))
            (right if wanted else others).append(path)
        if not right:
            what = "no files" if endings is None else f"no file that ends in {', '.join(endings)}"
            empty.append(f"{places[0]}: this class has {what}: fill it or remove it")
        found += [(path, label) for path in right]
    gather(empty)
    if others:
        raise DataError(
            f"{folder}: {len(others)} file(s) end in something else than {', '.join(endings or ())} (first "
            f"{others[0]}): remove or convert them"
        )
    return found


def _class_folders(root: Path) -> dict[str, list[Path]]:
    """The folders of each class, by its clean name; several that differ in their spelling are one class."""
    classes: dict[str, list[Path]] = {}
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    _report_lost(root, [str(path) for path in entries if path.is_symlink() and not path.exists()])
    for path in [path for path in entries if path.is_dir()]:
        classes.setdefault(clean_name(path.name), []).append(path)
    for label, places in classes.items():
        if len(places) > 1:
            named = ", ".join(repr(place.name) for place in places)
            notice(one_line(f"data: {root}: folders {named} are one class, {label!r}: their names look the same"))
    return classes
