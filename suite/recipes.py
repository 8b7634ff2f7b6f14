"""What is wrong with a recipe's own text: nothing in it, a group without settings, a name that stands twice."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from suite.errors import UsageError, gather

_NULL = "tag:yaml.org,2002:null"


def check_recipe(path: Path, *, groups: Collection[str], group: str = "") -> dict[str, str]:
    """Refuse a YAML file that cannot be meant as a recipe; gives where each dotted name in it stands, file and line.

    Files that it names as a group's settings (``trainer: FILE``) are looked into as well. What is no file, cannot be
    read or is no YAML has no names: whoever parses it says what is wrong. A pipe could not be read a second time.

    Args:
        path: of the file.
        groups: dotted names of those settings that have settings below them.
        group: the one that the file holds the settings of, if it is not of them all.

    Raises:
        UsageError: all that is wrong, with file and lines.
    """
    try:
        if not path.is_file():
            return {}
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1}): convert it") from None
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return {}
    return check_text(text, source=path, groups=groups, group=group)


def check_given(given: str, *, option: str, groups: Collection[str], group: str = "") -> dict[str, str]:
    """As ``check_recipe``, for what an ``option`` of the command line is given: a file, or settings themselves.

    Raises:
        UsageError: all that is wrong, with the file or the option, and lines.
    """
    path = os.path.expanduser(given)
    if os.path.isfile(path):
        return check_recipe(Path(path), groups=groups, group=group)
    if not isinstance(_compose(given), yaml.MappingNode):
        return {}
    check_text(given, source=option, groups=groups, group=group)
    return {}  # whoever wrote it has it before them


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def check_text(text: str, *, source: Path | str, groups: Collection[str], group: str = "") -> dict[str, str]:
    """As ``check_recipe``, for the ``text`` of a file, or one that stands on the command line itself.

    Raises:
        UsageError: all that is wrong, with ``source`` and lines.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    what, form = ("file", f"NAME: VALUE, each a setting of {group}") if group else ("recipe", "GROUP: {NAME: VALUE}")
    if root is None or root.tag == _NULL:
        raise UsageError(f"{source}: the {what} is empty: write settings in it ({form}), or leave it out")
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{source}: a {what} has names with values ({form}), and this has none")
    lines: dict[str, int] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    inner: list[str] = []  # of files that this one names
    for name, line, value in _names(root, f"{group}." if group else ""):
        if name in lines:
            where = f"line {line}" if line == lines[name] else f"lines {lines[name]} and {line}"
            problems.append(f"{name} stands twice, on {where}: keep one of them")
        lines[name] = line
        places[name] = f"{source}, line {line}"
        if name in groups and value.tag == _NULL:
            problems.append(
                f"line {line}: {name} is null, allowed is a group of settings ({name}.NAME): "
                "write them below it, or leave it out"
            )
        elif name in groups and isinstance(value, yaml.ScalarNode) and isinstance(source, Path):
            try:
                inside = source.parent / os.path.expanduser(value.value)
                places |= check_recipe(inside, groups=groups, group=name)
            except UsageError as error:
                inner.append(str(error))
    gather(
        [*(f"{source}: {each}" if not number else each for number, each in enumerate(problems)), *inner],
        error=UsageError,
    )
    return places


def _names(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, int, yaml.Node]]:
    """Dotted name, line and value of everything in a mapping. What an alias brings in is not looked into again."""
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1, value
        if isinstance(value, yaml.MappingNode) and value.start_mark.index >= key.start_mark.index:
            yield from _names(value, f"{name}.")
        elif isinstance(value, yaml.SequenceNode):
            for place, item in enumerate(value.value):
                if isinstance(item, yaml.MappingNode) and item.start_mark.index >= key.start_mark.index:
                    yield from _names(item, f"{name}.{place}.")
