"""Which examples are held out: a pure function of (seed, labels, groups), stratified by label, groups whole."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from suite.errors import DataError, UsageError, gather
from suite.seeding import mix

Indices = NDArray[numpy.int64]


class Parts(NamedTuple):
    """Ascending indices of the examples of each split."""

    train: Indices
    val: Indices
    test: Indices


def whole_groups(groups: Sequence[str | None], *, own: Iterable[str]) -> list[str] | None:
    """The group of each example, one of its ``own`` where it has none; ``None`` where no example has any."""
    if not any(groups):
        return None
    return [f"group {group}" if group else name for group, name in zip(groups, own, strict=True)]


def refuse_shared_groups(splits: Mapping[str, Iterable[str | None]], *, where: str) -> None:
    """Refuse groups that stand in two splits, of the groups of each split's examples (``None`` or empty: of none).

    Raises:
        DataError: naming them and their splits.
    """
    places: dict[str, list[str]] = {}
    for split, groups in splits.items():
        for group in {group for group in groups if group}:
            places.setdefault(group, []).append(split)
    gather(
        [
            f"{where}: group {group!r} is in {' and '.join(sorted(names))}: a group belongs into one split"
            for group, names in sorted(places.items())
            if len(names) > 1
        ]
    )


def assign_folds(
    labels: Sequence[str], *, folds: int, seed: int, groups: Sequence[str] | None = None, key: str = "folds"
) -> Indices:
    """The fold ``(N,)``, from 0, that each example is held out in.

    Without ``groups`` folds differ by at most one example, in all and of each label. With them each group stands in one
    fold as a whole, and groups are dealt out, largest first, so that every label is spread as evenly as they allow.

    Args:
        labels: of each example; all alike where there is nothing to stratify by.
        folds: how many.
        seed: decides which examples of a label (which of equal groups) go where.
        groups: of each example.
        key: draws of another kind from the same seed.

    Raises:
        UsageError: fewer folds than two.
        DataError: fewer examples or groups than folds.
    """
    if folds < 2:
        raise UsageError(f"the number of folds is {folds}, allowed is 2 or more")
    units, unit = ("groups", len(set(groups))) if groups is not None else ("examples", len(labels))
    if unit < folds:
        raise DataError(f"{unit} {units} cannot be dealt out to {folds} folds: use fewer folds")
    if groups is not None:
        return _deal_groups(labels, groups, folds=folds, seed=seed, key=key)
    found = numpy.empty(len(labels), dtype=numpy.int64)
    found[_by_label(labels, seed=seed, key=key)] = numpy.arange(len(labels)) % folds
    return found


def hold_out(
    labels: Sequence[str], *, fraction: float, seed: int, groups: Sequence[str] | None = None, key: str = "hold out"
) -> tuple[Indices, Indices]:
    """Ascending indices of the examples that are kept and of those held out, about ``fraction`` of each label.

    Raises:
        UsageError: a fraction that is not between 0 and 1.
        DataError: fewer than two examples or groups.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            f"the held-out fraction (data.held_out) must lie between 0 and 1 (both excluded), not {fraction}"
        )
    if len(labels) < 2:
        raise DataError(f"{len(labels)} example(s) cannot be split: at least two are needed")
    if groups is not None:
        parts = min(max(2, round(1 / fraction)), len(set(groups)))
        held = assign_folds(labels, folds=max(parts, 2), seed=seed, groups=groups, key=key) == 0
    else:
        # Every so many of the examples in the order of their labels: each label gives its share, give or take one.
        steps = numpy.floor((numpy.arange(len(labels) + 1) + 0.5) * fraction)
        held = numpy.zeros(len(labels), dtype=bool)
        order = _by_label(labels, seed=seed, key=key)
        held[order] = steps[1:] > steps[:-1]
        if held.all() or not held.any():
            held[order[0]] = not held[order[0]]
    return numpy.flatnonzero(~held), numpy.flatnonzero(held)


def fold_parts(
    labels: Sequence[str], *, folds: int, fold: int, seed: int, held_out: float, groups: Sequence[str] | None = None
) -> Parts:
    """The splits of a fold: its examples are ``test``, about ``held_out`` of the others ``val``, the rest ``train``.

    Raises:
        UsageError: a fold that there is not; as ``assign_folds`` and ``hold_out``.
        DataError: as ``assign_folds`` and ``hold_out``.
    """
    if not 0 <= fold < folds:
        raise UsageError(f"data.fold is {fold}, allowed is 0 to {folds - 1}")
    tested = assign_folds(labels, folds=folds, seed=seed, groups=groups) == fold
    rest = numpy.flatnonzero(~tested)
    inner_groups = None if groups is None else [groups[index] for index in rest.tolist()]
    inner = [labels[index] for index in rest.tolist()]
    kept, held = hold_out(inner, fraction=held_out, seed=seed, groups=inner_groups, key=f"fold {fold}")
    return Parts(rest[kept], rest[held], numpy.flatnonzero(tested))


def hold_out_parts(
    labels: Sequence[str],
    *,
    missing: Collection[str],
    held_out: float,
    seed: int,
    groups: Sequence[str] | None = None,
    equally: bool = False,
) -> Parts:
    """``held_out`` of all examples for each ``missing`` one of val and test; the rest is train.

    What the one is does not depend on whether the other is missing, so that a run which is evaluated on other files of
    the one has not been trained on anything of the other. By ``hold_out``, or ``hold_out_equally``.

    Raises:
        UsageError: a share that leaves nothing for training.
        DataError: as those.
    """
    limit = 2 if "test" in missing else 1
    if missing and not 0 < held_out < 1 / limit:
        raise UsageError(f"data.held_out is {held_out}, allowed is more than 0 and less than {1 / limit:g}")
    train = rest = numpy.arange(len(labels))
    found = {"val": rest[:0], "test": rest[:0]}
    for place, name in enumerate(("val", "test")[: limit if missing else 0]):
        inner = [labels[index] for index in rest.tolist()]
        inner_groups = None if groups is None else [groups[index] for index in rest.tolist()]
        fraction = held_out / (1.0 - place * held_out)
        kept, held = (
            hold_out_equally(inner, fraction=fraction, seed=seed)
            if equally
            else hold_out(inner, fraction=fraction, seed=seed, groups=inner_groups, key=name)
        )
        if name in missing:
            found[name] = rest[held]
            train = numpy.setdiff1d(train, rest[held], assume_unique=True)
        rest = rest[kept]
    return Parts(train, **found)


def _by_label(labels: Sequence[str], *, seed: int, key: str) -> Indices:
    """All examples, label by label, those of a label in an order drawn from the seed."""
    drawn = numpy.random.default_rng(mix(seed, key)).permutation(len(labels))
    names = {name: number for number, name in enumerate(sorted(set(labels)))}
    numbers = numpy.array([names[label] for label in labels])
    return drawn[numpy.argsort(numbers[drawn], kind="stable")]


def _deal_groups(labels: Sequence[str], groups: Sequence[str], *, folds: int, seed: int, key: str) -> Indices:
    classes = {name: number for number, name in enumerate(sorted(set(labels)))}
    names = {name: number for number, name in enumerate(sorted(set(groups)))}
    counts = numpy.zeros((len(names), len(classes)))
    for label, group in zip(labels, groups, strict=True):
        counts[names[group], classes[label]] += 1
    shares = counts / counts.sum(axis=0)
    drawn = numpy.random.default_rng(mix(seed, key)).permutation(len(names))
    order = drawn[numpy.argsort(-counts[drawn].sum(axis=1), kind="stable")]
    dealt = numpy.zeros((folds, len(classes)))
    chosen = numpy.empty(len(names), dtype=numpy.int64)
    for place, group in enumerate(order):
        # As in scikit-learn's StratifiedGroupKFold: where the labels' shares then differ least between folds.
        spread = [(dealt + numpy.eye(folds)[fold][:, None] * shares[group]).var(axis=0).sum() for fold in range(folds)]
        left = len(order) - place
        empty = numpy.flatnonzero(dealt.sum(axis=1) == 0)
        allowed = empty if len(empty) >= left else numpy.arange(folds)  # no fold stays empty
        chosen[group] = allowed[int(numpy.argmin(numpy.array(spread)[allowed]))]
        dealt[chosen[group]] += shares[group]
    return numpy.array([chosen[names[group]] for group in groups])


def hold_out_equally(labels: Sequence[str], *, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """As ``hold_out``, with the same number of each label held out: for a test split that is balanced where training
    is not. Together they are about ``fraction``, but at most half of the rarest label.

    Raises:
        UsageError: a fraction that is not between 0 and 1.
        DataError: a label with fewer than two examples.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            f"the held-out fraction (data.held_out) must lie between 0 and 1 (both excluded), not {fraction}"
        )
    names, counts = numpy.unique(numpy.array(labels), return_counts=True)
    if not len(labels):
        raise DataError("there are no examples to split")
    if counts.min() < 2:
        raise DataError(f"label {str(names[counts.argmin()])!r} has {counts.min()} example(s); at least two are needed")
    each = max(1, min(round(len(labels) * fraction / len(names)), int(counts.min()) // 2))
    order = _by_label(labels, seed=seed, key="hold out equally")
    starts = numpy.concatenate([[0], numpy.cumsum(counts)[:-1]])  # labels stand in the order of their names
    held = numpy.concatenate([order[start : start + each] for start in starts])
    kept = numpy.ones(len(labels), dtype=bool)
    kept[held] = False
    return numpy.flatnonzero(kept), numpy.sort(held)
