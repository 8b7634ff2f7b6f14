"""What jsonargparse says about a value of the wrong type, in plain words: the setting, what is given, what is allowed.

The allowed values are described from the type of the setting itself, so that no name of a Python type is left over.
"""

import os
import re
import types
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, Union, get_args, get_origin

_NAMES = {
    "PositiveInt": "a whole number of at least 1",
    "NonNegativeInt": "a whole number of at least 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number of at least 0",
}
_TYPES: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a string",
    type(None): "null",
    timedelta: "a time (DD:HH:MM:SS)",
}
_ITEMS = {int: "whole numbers", float: "numbers", str: "strings"}
_KINDS = {"NoneType": "null", "list": "a list", "dict": "names with values", "str": "a string", "bool": "true or false"}
_LONGEST = 80  # characters of a value that are shown

_CONFIG = re.compile(r'^(?:Parser key "config": )+')
_KEY = re.compile(r'Parser key "(?P<key>[\w.]+)": (?P<rest>.*)')
_LOADED = re.compile(r"""Unable to load config (?P<quote>['"])(?P<file>.*?)(?P=quote) - (?P<rest>.*)""")
_ARGUMENT = re.compile(r"NestedArg\(key='(?P<name>[\w.]+)', val=(?P<value>.*)\)$")
_CLASS = re.compile(r"class_path='(?P<path>[\w.]+)'")
_VALUES = (
    re.compile(r".*Got value:(?P<value>.*)"),
    re.compile(r".*Given value: (?P<value>.*)"),
    re.compile(r"Not of type \w+: (?P<value>.*) does not conform to restriction.*"),
    re.compile(r".*invalid literal for int\(\) with base 10: (?P<value>.*)"),
    re.compile(r".*could not convert string to float: (?P<value>.*)"),
)
_NOT = re.compile(r".*, not '(?P<kind>\w+)'$")


def plain_words(message: str, kinds: Mapping[str, Any]) -> str:
    """``KEY is VALUE, allowed is ...`` if ``message`` is jsonargparse's about a value; else the message.

    Args:
        message: in one line.
        kinds: the types of all settings by dotted name; ``None`` of a group of settings.
    """
    text = _CONFIG.sub("-c: ", message)
    found = _KEY.fullmatch(text.removeprefix("-c: "))
    if not found:
        return text
    key, rest = found["key"], found["rest"]
    if loaded := _LOADED.fullmatch(rest):
        inside = _KEY.fullmatch(loaded["rest"])
        about_another = inside is not None and inside["key"] != key
        if about_another or os.path.isfile(os.path.expanduser(loaded["file"])) or " accept" in loaded["rest"]:
            return f"{loaded['file']}: {plain_words(loaded['rest'], kinds)}"
        return _group(key, loaded["file"])
    while key not in kinds and "." in key:
        key = key.rpartition(".")[0]
    if key not in kinds:
        return text
    value = _value(rest)
    if kinds[key] is None:
        return _group(key, value or rest)
    if value is None:
        return f"{key}: {rest}"
    if argument := _ARGUMENT.fullmatch(value):
        return (
            f"{key}.{argument['name']} is {argument['value']}, allowed are arguments of the class that {key} names, "
            "with values that it takes"
        )
    return f"{key} is {_shown(value)}, allowed is {describe(kinds[key])}"


def _group(key: str, value: str) -> str:
    return f"{key} is {_shown(value)}, allowed is a group of settings ({key}.NAME)"


def _value(text: str) -> str | None:
    """The value that a message is about; of one that is only known by its type, the type."""
    for pattern in _VALUES:
        if found := pattern.fullmatch(text):
            return found["value"].strip()
    found = _NOT.fullmatch(text)
    return _KINDS.get(found["kind"], "another kind of value") if found else None


def _shown(value: str) -> str:
    """A value as a person wrote it."""
    value = {"None": "null", "True": "true", "False": "false", "": "''"}.get(value, value)
    if "Namespace(" in value:
        value = ", ".join(found["path"] for found in _CLASS.finditer(value)) or "a class"
    if re.fullmatch(r"'[^' ]+'", value):
        value = value[1:-1]
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."


def describe(kind: Any) -> str:
    """The values of a type in plain words: ``a whole number or null``."""
    words = list(dict.fromkeys(_words(kind)))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(kind: Any) -> list[str]:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [word for part in parts for word in _words(part)]
    if origin is Literal:
        return [str(value) for value in parts]
    if origin in (list, tuple, set):
        item = parts[0] if parts else Any
        if isinstance(item, type) and item not in _ITEMS:
            return [f"a list of {_class_paths(item, several=True)}"]
        return [f"a list of {_ITEMS.get(item, 'values')}"]
    if origin is dict or kind is dict:
        return ["names with values"]
    if kind is list:
        return ["a list"]
    name = getattr(kind, "__name__", "")
    if name in _NAMES:
        return [_NAMES[name]]
    if kind in _TYPES:
        return [_TYPES[kind]]
    return [_class_paths(kind) if isinstance(kind, type) else "another kind of value"]


def _class_paths(kind: type, *, several: bool = False) -> str:
    """Of a type that is no plain value: a class path, as in ``trainer.callbacks``."""
    name = kind.__name__
    return f"class paths of {name}s" if several else f"the class path of a {name} with the arguments that it needs"
