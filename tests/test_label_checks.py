"""Labels as classes: which spellings are one, which are refused or reported, and how a model's labels are found."""

import random
from collections import Counter

import pytest

from suite.classification import count_labels, encode_labels, label_assets
from suite.console import forget_notices
from suite.errors import DataError
from suite.label_checks import check_classes
from suite.labels import clean_name, clean_names, match_names, merge_numbers
from suite.vocabulary import Labels


@pytest.fixture(autouse=True)
def _new_command() -> None:
    forget_notices()


@pytest.mark.parametrize(
    "text", [" pos", "pos\u00a0", "\ufeffpos", "\u200b pos\u200b ", "pos\r\n", "pos\u3000", "\u2060pos"]
)
def test_names_lose_what_cannot_be_seen_at_their_ends(text: str) -> None:
    assert clean_name(text) == "pos"


def test_inner_characters_of_names_stay() -> None:
    assert clean_name("a\u200bb  c") == "a\u200bb  c"
    assert clean_name("\u200b \ufeff") == ""


def test_changed_names_are_counted_and_reported_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert clean_names(["a ", "a", "e\u0301", " "], where="t.csv, column 'x'") == ["a", "a", "\u00e9", ""]
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "t.csv, column 'x': 2 of 4 values had white space" in said
    assert "such as 'a ' to 'a'" in said


def test_assets_have_one_class_for_a_name() -> None:
    found = label_assets(["pos ", "pos", "neg", "e\u0301", "\u00e9"], where="x")
    assert found == {"labels": ["neg", "pos", "\u00e9"], "counts": [1, 2, 2]}
    assert label_assets(["1", "1.0", "0", "1.00"], where="x") == {"labels": ["0", "1"], "counts": [1, 3]}
    assert merge_numbers({"1.0": 1, "1.10": 2, "1.1": 1, "01": 3, "1": 1}) == {"1": 2, "1.10": 2, "1.1": 1, "01": 3}


def test_labels_find_the_class_of_an_older_model(capfd: pytest.CaptureFixture[str]) -> None:
    old = Labels(["neg", "pos ", "e\u0301t\u00e9", "1.0"])
    assert encode_labels(["neg", "pos", "\u00e9t\u00e9", "1", "1.0"], old, where="the test texts") == [0, 1, 2, 3, 3]
    said = capfd.readouterr().err
    assert (
        "the test texts: labels that are another spelling of a class: '1' as '1.0' (1 times), 'pos' as 'pos '" in said
    )
    assert count_labels(["pos", "pos", "neg", "new"], old) == {"counts": [1, 2, 0, 0]}
    both = Labels(["pos", "pos "])
    assert encode_labels(["pos", "pos "], both, where="x") == [0, 1]
    assert "several classes for 'pos' ('pos', 'pos ')" in capfd.readouterr().err
    assert match_names(["1.10", "x"], ["1.1"]) == {}


def test_an_unknown_label_names_the_near_one() -> None:
    with pytest.raises(DataError, match=r"'Good' \(2 times, did you mean 'good'\?\); allowed: 'bad', 'good'"):
        encode_labels(["Good", "Good"], Labels(["bad", "good"]), where="x")
    many = Labels([f"class {number}" for number in range(50)])
    with pytest.raises(DataError, match="and 30 more"):
        encode_labels(["other"], many, where="x")


def measurements(*, digits: int, count: int = 120) -> Counter[str]:
    draw = random.Random(0)
    return Counter(str(round(draw.uniform(-3, 3), digits)) for _ in range(count))


@pytest.mark.parametrize("digits", [2, 3, 8])
def test_continuous_numbers_are_refused(digits: int) -> None:
    with pytest.raises(DataError, match=r"x: the labels look like continuous numbers.*regression"):
        check_classes(measurements(digits=digits), where="x")
    with_gaps = measurements(digits=digits) + Counter({"nan": 4})
    with pytest.raises(DataError, match="regression"):
        check_classes(with_gaps, where="x")
    with_commas = {name.replace(".", ","): count for name, count in measurements(digits=digits).items()}
    with pytest.raises(DataError, match="regression"):
        check_classes(with_commas, where="x")


def test_ids_are_refused() -> None:
    with pytest.raises(DataError, match=r"each of the 24 examples has a label of its own.*--data\.label_column"):
        check_classes({f"user {number}": 1 for number in range(24)}, where="x")


GOOD = [
    {"1": 5, "2": 5, "3.5": 9},
    {str(half / 2): 4 for half in range(2, 11)},
    {f"{number / 2}": 1 for number in range(9)},
    {str(number): 1 for number in range(9)},
    {f"1.{number}.0": 2 for number in range(40)},
    {f"{number}": 3 for number in range(200)},
    {"a": 1, "b": 1},
]


@pytest.mark.parametrize("counts", GOOD)
def test_good_labels_pass_in_silence(counts: dict[str, int], capfd: pytest.CaptureFixture[str]) -> None:
    check_classes(counts, where="x")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"nan": 3, "a": 4}, "class 'nan' (3 examples) looks like a missing value; it is kept"),
        ({"None": 3, "a": 4}, "class 'None' (3 examples) looks like a missing value"),
        ({"Pos": 3, "pos": 4, "x": 2}, "differ only in case or spaces: 'Pos' and 'pos'; they stay different classes"),
        ({"New York": 3, "New\u00a0York": 4}, "differ only in case or spaces"),
        ({**{f"c{number}": 1 for number in range(9)}, "d": 5}, "9 of 10 classes have a single example"),
        ({f"{number}": 1 for number in range(12)}, "each of the 12 examples has a label of its own"),
        ({f"{number / 4}": 5 for number in range(30)}, "30 labels are mostly numbers with decimals"),
    ],
)  # fmt: skip
def test_odd_labels_are_reported(counts: dict[str, int], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    check_classes(counts, where="x")
    assert said in capfd.readouterr().err
