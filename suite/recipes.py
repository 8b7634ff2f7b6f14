"""What is wrong with a recipe's own text: nothing in it, a group without settings, a name that stands twice."""

from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from suite.errors import UsageError, gather

_NULL = "tag:yaml.org,2002:null"


def check_recipe(path: Path, *, groups: Collection[str]) -> dict[str, int]:
    """Refuse a YAML file that cannot be meant as a recipe; gives the line of each dotted name in it.

    A file that cannot be read, or is no YAML, has no names: whoever parses it says what is wrong.

    Args:
        path: of the file.
        groups: dotted names of those settings that have settings below them.

    Raises:
        UsageError: all that is wrong, with lines.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    if root is None or root.tag == _NULL:
        raise UsageError("the recipe is empty: write settings in it (GROUP: {NAME: VALUE}), or leave it out")
    if not isinstance(root, yaml.MappingNode):
        raise UsageError("a recipe has names with values (GROUP: {NAME: VALUE}), and this has none")
    lines: dict[str, int] = {}
    problems = []
    for name, line, value in _names(root):
        if name in lines:
            problems.append(f"{name} stands twice, on lines {lines[name]} and {line}: keep one of them")
        lines[name] = line
        if name in groups and value.tag == _NULL:
            problems.append(
                f"line {line}: {name} is null, allowed is a group of settings ({name}.NAME): "
                "write them below it, or leave it out"
            )
    gather(problems, error=UsageError)
    return lines


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
