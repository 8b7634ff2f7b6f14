"""What a split held: a digest of the content of each of its items, so that changed data are noticed and named.

Digests are 64 bits: 8 bytes a row. Two of a million different rows are equal with a probability of 3e-8.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from suite.console import notice
from suite.value_digests import SIZE, digest_value

Rows = NDArray[numpy.int64]
_NAMED = 20_000  # files, whose names take about a megabyte; of more a checkpoint holds only the digests
_TRIED = 8  # examples that tell which field is an example's own index
_PASSAGES = re.compile(r"(?<=\n\n)(?!\n)")
_ODD = -7046029254386353131  # 2**64 divided by the golden ratio: spreads small numbers over 64 bits


@dataclass(frozen=True)
class Fingerprint:
    """The content of a split.

    Args:
        rows: ``(N,)``, a digest of each item, in order.
        unit: what items are called: rows, files, documents.
        names: of files, in the same order; ``None`` for other items, and for many files.
    """

    rows: Rows
    unit: str = "rows"
    names: Sequence[str] | None = None

    @cached_property
    def sha256(self) -> str:
        """Of all rows, in order."""
        return hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()

    @property
    def examples(self) -> str:
        """What items are called beside the number of those that were trained on."""
        return "examples" if self.unit == "rows" else self.unit

    def plain(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        names = None if self.names is None or len(self.names) > _NAMED else list(self.names)
        return {
            "count": len(self.rows),
            "sha256": self.sha256,
            "rows": torch.from_numpy(self.rows.copy()),
            "unit": self.unit,
            "names": names,
        }

    @classmethod
    def from_plain(cls, value: dict[str, Any]) -> "Fingerprint":
        """What ``plain`` gave.

        Raises:
            KeyError, TypeError, AttributeError: something else.
        """
        return cls(value["rows"].numpy(), value["unit"], value["names"])

    def joined(self, others: Sequence["Fingerprint"]) -> "Fingerprint":
        """These items and those of ``others``, one after the other."""
        everything = [self, *others]
        names = [name for each in everything for name in each.names or ()]
        rows = numpy.concatenate([each.rows for each in everything])
        return Fingerprint(rows, self.unit, names if len(names) == len(rows) else None)

    def count_in(self, rows: Rows) -> int:
        """How many of these items are among ``rows``."""
        return int(numpy.isin(self.rows, rows).sum())


@dataclass(frozen=True)
class Difference:
    """What became of a split: indices of the items that were ``added`` and ``removed``, and whether it was
    ``reordered``: the same items, in another order.
    """

    before: Fingerprint
    after: Fingerprint
    added: Rows
    removed: Rows

    @property
    def reordered(self) -> bool:
        return self.same_items and self.before.sha256 != self.after.sha256

    @property
    def same_items(self) -> bool:
        return not len(self.added) and not len(self.removed)

    def describe(self) -> str:
        """The difference in words, with the names of files if they are few."""
        if self.same_items:
            return f"the same {self.after.unit} in another order" if self.reordered else "unchanged"
        parts = self._by_name() or [(len(self.added), "added", []), (len(self.removed), "removed", [])]
        unit = self.after.unit
        texts = [
            f"{count:,} {unit.removesuffix('s') if count == 1 else unit} {word}{_shown(names)}"
            for count, word, names in parts
        ]
        return ", ".join(texts)

    def _by_name(self) -> list[tuple[int, str, list[str]]]:
        """Counts, what became of them, and names; nothing where files have no names of their own."""
        names = [side.names or () for side in (self.before, self.after)]
        old, new = (
            dict(zip(each, side.rows.tolist(), strict=False))
            for each, side in zip(names, (self.before, self.after), strict=True)
        )
        if (len(old), len(new)) != (len(self.before.rows), len(self.after.rows)):
            return []
        gone = {name: row for name, row in old.items() if name not in new}
        come = {name: row for name, row in new.items() if name not in old}
        old_rows, new_rows = set(gone.values()), set(come.values())
        sorted_out = {  # a file that only has another name is neither added nor removed
            "changed": [name for name in new if name in old and new[name] != old[name]],
            "added": [name for name, row in come.items() if row not in old_rows],
            "removed": [name for name, row in gone.items() if row not in new_rows],
        }
        return [(len(found), word, found) for word, found in sorted_out.items() if found]


def _shown(names: Sequence[str], most: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f" ({', '.join(names[:most])}{more})"


def difference(before: Fingerprint, after: Fingerprint) -> Difference:
    """Compare two splits as collections, in which an item may stand several times."""
    if numpy.array_equal(numpy.sort(before.rows), numpy.sort(after.rows)):
        none = numpy.empty(0, dtype=numpy.int64)
        return Difference(before, after, none, none)
    then, now = _numbered(before.rows), _numbered(after.rows)
    added = numpy.flatnonzero(~numpy.isin(now, then))
    removed = numpy.flatnonzero(~numpy.isin(then, now))
    return Difference(before, after, added, removed)


def _numbered(rows: Rows) -> Rows:
    """Rows that are told apart from equal ones before them."""
    order = numpy.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = numpy.flatnonzero(numpy.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else order
    counts = numpy.diff(numpy.append(starts, len(rows)))
    place = numpy.arange(len(rows)) - numpy.repeat(starts, counts)
    found = numpy.empty_like(rows)
    with numpy.errstate(over="ignore"):
        found[order] = ordered + place * numpy.int64(_ODD)
    return found


def digest_texts(rows: Iterable[tuple[str, ...]]) -> Rows:
    """``(N,)`` digests of rows of texts, which have the same number of fields each."""
    digests = []
    make = hashlib.blake2b
    for row in rows:
        text = "\0".join(row)
        if text.count("\0") >= len(row):  # a field that has the separator itself
            text = repr(row)
        digests.append(make(text.encode("utf-8", "surrogatepass"), digest_size=SIZE).digest())
    return _as_rows(digests)


def fingerprint_documents(documents: Iterable[str]) -> Fingerprint:
    """Of running text, by its passages: one document may be a whole file, of which blank lines tell the parts."""

    def passages() -> Iterator[tuple[str, str]]:
        for document in documents:
            *parts, last = _PASSAGES.split(document) if "\n\n" in document else [document]
            yield from ((part, "") for part in parts)
            yield last, "end"

    return Fingerprint(digest_texts(passages()), "passages")


def _as_rows(digests: Sequence[bytes]) -> Rows:
    return numpy.frombuffer(b"".join(digests), dtype="<i8").astype(numpy.int64)


def fingerprint_examples(examples: Any, *, where: str) -> Fingerprint:
    """Of examples of which nothing else is known: each is fetched with seed 0, and all that it holds is hashed.

    An example may hold its own index: a field that is the index in every example does not count.
    """
    count = len(examples.lengths)
    tried = numpy.unique(numpy.linspace(0, max(count - 1, 0), min(count, _TRIED)).astype(int)).tolist()
    for index in tried[:2]:
        if digest_value(examples.fetch(index, 0)) != digest_value(examples.fetch(index, 0)):
            notice(
                f"data: fetching an example of {where} twice with one seed gives different values, so only the lengths "
                "of examples are compared: draw everything that is random from the seed"
            )
            lengths = numpy.asarray(examples.lengths).reshape(count, -1)
            return Fingerprint(_as_rows([digest_value(row) for row in lengths]), "examples")
    skipped = _own_indices([(index, examples.fetch(index, 0)) for index in tried])
    while True:
        digests = []
        for index in range(count):
            value = examples.fetch(index, 0)
            if (wrong := skipped - _own_indices([(index, value)])) and skipped:
                skipped -= wrong
                break
            digests.append(digest_value(value, skipped=skipped))
        else:
            return Fingerprint(_as_rows(digests), "examples")


def _own_indices(examples: Sequence[tuple[int, Any]]) -> set[Any]:
    """The top fields that are the example's own index in each of ``examples``."""
    found: set[Any] | None = None
    for index, value in examples:
        if isinstance(value, dict):
            fields = list(value.items())
        elif isinstance(value, tuple | list):
            fields = list(enumerate(value))
        elif dataclasses.is_dataclass(value):
            fields = list(vars(value).items())
        else:
            fields = []
        own = {key for key, each in fields if type(each) is int and each == index}
        found = own if found is None else found & own
    return found or set()
