"""Labels of examples as classes of a model: which classes there are, how often, and the ids of labels."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from suite.console import notice_once
from suite.errors import DataError
from suite.label_checks import check_classes
from suite.labels import clean_names, match_names, merge_numbers, same_names
from suite.vocabulary import Labels

_SHOWN = 20  # known labels in a message
_SPELLINGS = 5


def label_assets(labels: Iterable[str], *, where: str) -> dict[str, Any]:
    """``labels`` (class names, sorted) and ``counts`` (training examples of each): assets of a classifier.

    Labels that differ only by ``clean_name``, or as ``1`` and ``1.0`` do, are one class; that is reported.

    Raises:
        DataError: fewer than two classes in ``where``, or labels that cannot be classes (``check_classes``).
    """
    counts = merge_numbers(Counter(clean_names(labels, where=where)))
    if len(counts) < 2:
        there = f"only the class {next(iter(counts))!r}" if counts else "no class"
        raise DataError(f"{where}: there is {there}; at least two classes are needed")
    check_classes(counts, where=where)
    names = Labels.collect(counts)
    return {"labels": names.state(), "counts": [counts[name] for name in names.names]}


def count_labels(labels: Iterable[str], names: Labels) -> dict[str, Any]:
    """The asset ``counts`` alone, by classes that are settled."""
    given = Counter(labels)
    meant = match_names(given, names.names)
    counts: Counter[str] = Counter()
    for label, count in given.items():
        if label in meant:
            counts[meant[label]] += count
    return {"counts": [counts[name] for name in names.names]}


def encode_labels(labels: Sequence[str], names: Labels, *, where: str) -> list[int]:
    """Ids of ``labels``, which may be spelt differently than in training (``match_names``).

    Such labels are reported, and so are classes of an older model that have one name.

    Raises:
        DataError: labels of ``where`` that training did not have, how often, and those that it had.
    """
    given = Counter(labels)
    meant = match_names(given, names.names)
    unknown = Counter({label: count for label, count in given.items() if label not in meant})
    if unknown:
        listed = ", ".join(
            f"{name!r} ({count} times{_nearest(name, names.names)})" for name, count in unknown.most_common(_SPELLINGS)
        )
        allowed = ", ".join(map(repr, names.names[:_SHOWN]))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise DataError(
            f"{where}: {len(unknown)} label(s) that training does not have: {listed}; allowed: {allowed}{more}"
        )
    _report_spellings(given, meant, where=where)
    _report_same_names(names.names)
    return names.encode_batch(meant[label] for label in labels)


def _report_spellings(given: Mapping[str, int], meant: Mapping[str, str], *, where: str) -> None:
    """Report labels that are read as a class of another spelling."""
    others = [f"{name!r} as {known!r} ({given[name]} times)" for name, known in sorted(meant.items()) if name != known]
    if others:
        more = f" and {len(others) - _SPELLINGS} more" if len(others) > _SPELLINGS else ""
        shown = ", ".join(others[:_SPELLINGS])
        notice_once(f"data: {where}: labels that are another spelling of a class: {shown}{more}")


def _report_same_names(known: Sequence[str]) -> None:
    """Report classes that have one name: models of versions that compared labels as they were spelt have such."""
    for name, spellings in same_names(known).items():
        notice_once(
            f"data: the model has several classes for {name!r} ({', '.join(map(repr, spellings))}); an example counts "
            "as one of them, so metrics can be too low: train the model again"
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    """`` did you mean`` a known label that is spelt nearly like ``name``; else nothing."""
    same = [each for each in known if each.casefold() == name.casefold()]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f", did you mean {near[0]!r}?" if near else ""
