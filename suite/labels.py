"""Names of classes, conditions, groups and columns: which spellings mean the same name."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from suite.console import notice_once

_INVISIBLE = "\u200b\u200e\u200f\u2060\ufeff"  # zero-width spaces, marks of direction, and the byte order mark
_WHOLE_FLOAT = re.compile(r"([+-]?[0-9]+)\.0+")
_MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nil", "nat", "undefined"})


def clean_name(text: str) -> str:
    """A name without white space and invisible characters at its ends, in Unicode's composed form (NFC).

    Spreadsheets and file systems produce names that look the same and differ in these two respects.
    """
    name = text.strip()
    while name and (name[0] in _INVISIBLE or name[-1] in _INVISIBLE):
        name = name.strip(_INVISIBLE).strip()
    return unicodedata.normalize("NFC", name)


def clean_names(names: Iterable[str], *, where: str) -> list[str]:
    """Each name by ``clean_name``. How many of ``where`` were changed is reported once."""
    given = list(names)
    changed: Counter[str] = Counter()
    known: dict[str, str] = {}
    cleaned = []
    for name in given:
        if name not in known:
            known[name] = clean_name(name)
        if known[name] not in (name, ""):  # an empty value is a missing one, not a changed one
            changed[name] += 1
        cleaned.append(known[name])
    if changed:
        first = next(iter(changed))
        shown = repr(first) if unicodedata.is_normalized("NFC", first) else ascii(first)
        notice_once(
            f"data: {where}: {changed.total()} of {len(given)} values had white space at their ends or decomposed "
            f"characters and are cleaned, such as {shown} to {known[first]!r}"
        )
    return cleaned


def looks_missing(name: str) -> bool:
    """Whether a name is one of the words that programs write for a missing value."""
    return name.casefold() in _MISSING


def match_names(wanted: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """For each of ``wanted`` the name in ``known`` that it means; nothing for those that mean none.

    A name means the one that is spelt alike, else one that is equal by ``clean_name``, else one that is the same whole
    number (``1`` and ``1.0``, as a column of integers becomes where values are missing).
    """
    exact = set(known)
    by_name: dict[str, str] = {}
    by_number: dict[str, str] = {}
    for name in known:
        by_name.setdefault(clean_name(name), name)
        by_number.setdefault(_number(name), name)
    found = {}
    for name in set(wanted):
        meant = name if name in exact else by_name.get(clean_name(name), by_number.get(_number(name)))
        if meant is not None:
            found[name] = meant
    return found


def same_names(known: Iterable[str]) -> dict[str, list[str]]:
    """The spellings of each name that ``known`` has several times by ``clean_name``."""
    spellings: dict[str, list[str]] = {}
    for name in known:
        spellings.setdefault(clean_name(name), []).append(name)
    return {name: each for name, each in spellings.items() if len(each) > 1}


def merge_numbers(counts: Mapping[str, int]) -> dict[str, int]:
    """``counts`` in which ``1`` and ``1.0`` are one name, the shorter."""
    merged: dict[str, int] = {}
    shortest: dict[str, str] = {}
    for name in sorted(counts, key=len):
        shortest.setdefault(_number(name), name)
    for name, count in counts.items():
        meant = shortest[_number(name)]
        merged[meant] = merged.get(meant, 0) + count
    return merged


def _number(name: str) -> str:
    """A name without the zeros of a whole number: ``1`` for ``1.0``. Others stay, ``1.10`` for instance."""
    cleaned = clean_name(name)
    found = _WHOLE_FLOAT.fullmatch(cleaned)
    return found.group(1) if found else cleaned
