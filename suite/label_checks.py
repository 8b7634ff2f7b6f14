"""Whether the labels of a training split can be classes: numbers of a measurement and ids are none."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from suite.console import notice_once
from suite.errors import DataError
from suite.labels import looks_missing

FEWEST = 10  # different labels from which on they are looked at: with fewer, single examples are chance
_FEWEST_IDS = 20  # examples from which on labels that all differ are refused: a few classes may have one example each
_FEW_EXAMPLES = 3  # of a class on average; regression targets have fewer
_SHOWN = 3


def check_classes(counts: Mapping[str, int], *, where: str) -> None:
    """Refuse labels that cannot be classes, and report odd ones.

    Reported are classes that look like a missing value, classes whose names differ only in case or spaces inside, and
    many classes with a single example.

    Args:
        counts: how many examples each label has.
        where: the data, for messages.

    Raises:
        DataError: labels that look like continuous numbers, or of which every example has its own.
    """
    total, names = sum(counts.values()), list(counts)
    shown = ", ".join(map(repr, names[:_SHOWN]))
    if _are_measurements(names) and total < _FEW_EXAMPLES * len(names):
        raise DataError(
            f"{where}: the labels look like continuous numbers ({len(names)} different ones in {total} examples, such "
            f"as {shown}). Predicting numbers is regression, which no task here does; put them into classes, or name "
            "another column with --data.label_column"
        )
    if len(names) == total >= FEWEST:
        text = (
            f"{where}: each of the {total} examples has a label of its own, such as {shown}; is this a column of ids "
            "or amounts? Name the column of classes with --data.label_column"
        )
        if total >= _FEWEST_IDS:
            raise DataError(text)
        notice_once(f"data: {text}")
    if _are_measurements(names):
        notice_once(
            f"data: {where}: the {len(names)} labels are mostly numbers with decimals, such as {shown}; they are "
            "taken as classes, not as amounts"
        )
    _report_odd(counts, where=where)


def _are_measurements(names: Sequence[str]) -> bool:
    """Whether nearly all of many names are numbers, and most of these have decimals."""
    numbers = [value for value in map(_number, names) if value is not None]
    decimals = sum(value != round(value) for value in numbers)
    return len(numbers) >= max(FEWEST, 0.9 * len(names)) and decimals > len(numbers) / 2


def _number(name: str) -> float | None:
    try:
        value = float(name.replace(",", ".", 1))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _report_odd(counts: Mapping[str, int], *, where: str) -> None:
    for name, count in counts.items():
        if looks_missing(name):
            notice_once(f"data: {where}: class {name!r} ({count} examples) looks like a missing value; it is kept")
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    pairs = [f"{' and '.join(map(repr, names))}" for names in alike.values() if len(names) > 1]
    if pairs:
        more = f"; and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        notice_once(
            f"data: {where}: names of classes that differ only in case or spaces: {'; '.join(pairs[:_SHOWN])}{more}; "
            "they stay different classes"
        )
    single = Counter(counts.values())[1]
    if len(counts) >= FEWEST and len(counts) / 2 < single < len(counts):
        notice_once(f"data: {where}: {single} of {len(counts)} classes have a single example")
