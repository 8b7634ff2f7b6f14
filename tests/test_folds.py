"""Folds: every example held out once, labels spread, groups whole, and nothing but the arguments decides."""

from collections import Counter

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.errors import DataError, UsageError
from suite.folds import assign_folds, fold_parts, hold_out, hold_out_equally, refuse_shared_groups, whole_groups

LABELS = ["a"] * 37 + ["b"] * 12 + ["c"] * 4
GROUPS = [f"g{number // 3}" for number in range(len(LABELS))]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_labels_differ_by_one_between_folds(labels: list[str], folds: int, seed: int) -> None:
    found = assign_folds(labels, folds=folds, seed=seed)
    sizes = numpy.bincount(found, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for name in set(labels):
        share = numpy.bincount(found[numpy.array(labels) == name], minlength=folds)
        assert share.max() - share.min() <= 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8)), min_size=10, max_size=60), st.integers(0, 5))
def test_groups_stay_whole_and_no_fold_is_empty(rows: list[tuple[str, int]], seed: int) -> None:
    labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
    folds = min(3, len(set(groups)))
    if folds < 2:
        return
    found = assign_folds(labels, folds=folds, seed=seed, groups=groups)
    assert set(found.tolist()) == set(range(folds))
    for group in set(groups):
        assert len(set(found[numpy.array(groups) == group].tolist())) == 1


def test_groups_spread_labels() -> None:
    labels = ["a", "b"] * 50
    groups = [f"g{number // 5}" for number in range(100)]
    found = assign_folds(labels, folds=5, seed=0, groups=groups)
    counts = [Counter(numpy.array(labels)[found == fold].tolist()) for fold in range(5)]
    assert all(8 <= count["a"] <= 12 and 8 <= count["b"] <= 12 for count in counts)


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_the_arguments_decide(groups: list[str] | None) -> None:
    first = assign_folds(LABELS, folds=4, seed=3, groups=groups)
    assert numpy.array_equal(first, assign_folds(LABELS, folds=4, seed=3, groups=groups))
    assert not numpy.array_equal(first, assign_folds(LABELS, folds=4, seed=4, groups=groups))


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_parts_of_all_folds(groups: list[str] | None) -> None:
    tested = []
    for fold in range(4):
        parts = fold_parts(LABELS, folds=4, fold=fold, seed=1, held_out=0.2, groups=groups)
        everything = numpy.concatenate(parts)
        assert sorted(everything.tolist()) == list(range(len(LABELS)))
        assert all(len(part) and (numpy.diff(part) > 0).all() for part in parts)
        if groups is not None:
            names = [{groups[index] for index in part} for part in parts]
            assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
        tested += parts.test.tolist()
    assert sorted(tested) == list(range(len(LABELS)))


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.75])
def test_held_out_shares(fraction: float) -> None:
    kept, held = hold_out(LABELS, fraction=fraction, seed=0)
    assert sorted([*kept, *held]) == list(range(len(LABELS)))
    counts = Counter(numpy.array(LABELS)[held].tolist())
    for name, total in Counter(LABELS).items():
        assert abs(counts[name] - fraction * total) <= 1.0
    kept, held = hold_out(LABELS, fraction=fraction, seed=0, groups=GROUPS)
    assert not {GROUPS[index] for index in kept} & {GROUPS[index] for index in held}


def test_the_same_number_of_each_label_is_held_out() -> None:
    kept, held = hold_out_equally(LABELS, fraction=0.1, seed=0)
    assert Counter(numpy.array(LABELS)[held].tolist()) == {"a": 2, "b": 2, "c": 2}
    assert sorted([*kept, *held]) == list(range(len(LABELS)))
    assert numpy.array_equal(held, hold_out_equally(LABELS, fraction=0.1, seed=0)[1])
    assert not numpy.array_equal(held, hold_out_equally(LABELS, fraction=0.1, seed=1)[1])
    with pytest.raises(DataError, match="label 'b' has 1 example"):
        hold_out_equally(["a", "a", "b"], fraction=0.5, seed=0)
    with pytest.raises(DataError, match="no examples"):
        hold_out_equally([], fraction=0.5, seed=0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        hold_out_equally(LABELS, fraction=0.0, seed=0)


def test_the_smallest_sets() -> None:
    for fraction in (0.01, 0.99):
        kept, held = hold_out(["a", "b"], fraction=fraction, seed=0)
        assert (len(kept), len(held)) == (1, 1)


def test_errors() -> None:
    with pytest.raises(UsageError, match="folds is 1"):
        assign_folds(LABELS, folds=1, seed=0)
    with pytest.raises(DataError, match="2 examples cannot be dealt out to 3 folds"):
        assign_folds(["a", "b"], folds=3, seed=0)
    with pytest.raises(DataError, match="2 groups cannot be dealt out to 3 folds"):
        assign_folds(["a"] * 9, folds=3, seed=0, groups=["x"] * 5 + ["y"] * 4)
    with pytest.raises(UsageError, match=r"data\.fold is 4, allowed is 0 to 3"):
        fold_parts(LABELS, folds=4, fold=4, seed=0, held_out=0.1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        hold_out(LABELS, fraction=1.0, seed=0)
    with pytest.raises(DataError, match="at least two are needed"):
        hold_out(["a"], fraction=0.5, seed=0)


def test_what_is_in_no_group_is_one_of_its_own() -> None:
    assert whole_groups([None, "", None], own="abc") is None
    assert whole_groups(["x", None, "x", ""], own="abcd") == ["group x", "b", "group x", "d"]


def test_groups_in_two_splits_are_named_with_both() -> None:
    refuse_shared_groups({"train": ["x", None, "y"], "test": ["z", None, ""]}, where="here")
    with pytest.raises(DataError, match="here: group 'x' is in test and train: a group belongs into one split"):
        refuse_shared_groups({"train": ["x", "y"], "test": ["z", "x"]}, where="here")
