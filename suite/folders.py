"""Files sorted into a folder for each class: ``<root>/<class>/<file>``."""

from collections.abc import Sequence
from pathlib import Path

from suite.errors import DataError


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a name on the way from ``root`` to ``path`` begins with a dot: what systems and tools leave behind."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def class_files(root: str | Path, *, endings: Sequence[str]) -> list[tuple[Path, str]]:
    """Paths and class names, sorted by class and name; files further down belong to their class too.

    Hidden files are passed over.

    Raises:
        DataError: no such folder, none with a class, files of other endings, or a class without files.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; one with a folder for each class is needed")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: has no folders; one for each class is needed, with its files inside")
    found: list[tuple[Path, str]] = []
    others: list[Path] = []
    for each in classes:
        files = sorted(path for path in each.rglob("*") if path.is_file() and not is_hidden(path, each))
        right = [path for path in files if path.name.lower().endswith(tuple(endings))]
        others += [path for path in files if path not in set(right)]
        if not right:
            raise DataError(f"{each}: has no file that ends in {', '.join(endings)}: fill the class or remove it")
        found += [(path, each.name) for path in right]
    if others:
        raise DataError(
            f"{folder}: {len(others)} file(s) end in something else than {', '.join(endings)} (first {others[0]}): "
            "remove or convert them"
        )
    return found
