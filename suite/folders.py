"""Files sorted into folders: ``<root>/<class>/<file>``, or ``<root>/<split>/<class>/<file>``."""

from collections.abc import Sequence
from pathlib import Path

from suite.console import notice_once
from suite.errors import DataError, gather
from suite.splits import SPLITS, split_of


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a name on the way from ``root`` to ``path`` begins with a dot: what systems and tools leave behind."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


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
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: there is no folder in it; one folder a class is needed, with its files inside")
    found: list[tuple[Path, str]] = []
    others: list[Path] = []
    empty = []
    for each in classes:
        files = sorted(path for path in each.rglob("*") if path.is_file() and not is_hidden(path, each))
        right: list[Path] = []
        for path in files:
            wanted = endings is None or path.name.lower().endswith(tuple(endings))
            (right if wanted else others).append(path)
        if not right:
            what = "no files" if endings is None else f"no file that ends in {', '.join(endings)}"
            empty.append(f"{each}: this class has {what}: fill it or remove it")
        found += [(path, each.name) for path in right]
    gather(empty)
    if others:
        raise DataError(
            f"{folder}: {len(others)} file(s) end in something else than {', '.join(endings or ())} (first "
            f"{others[0]}): remove or convert them"
        )
    return found
