"""Figures of long sequences stay small, and say what they leave out."""

import io
import warnings

import pytest
import torch

from suite import fonts
from suite.confusion import MOST_PAIRS, ClassReport
from suite.figures import LONGEST, MOST_CLASSES, MOST_WORDS, attention_figure, confusion_figure, words_figure
from suite.trainer import quiet_libraries


def test_attention_over_long_sentences_is_drawn_in_part() -> None:
    weights = torch.rand(3, 2400)
    figure = attention_figure(weights, rows=["a"] * 3, columns=["b"] * 2400, title="one")
    axes = figure.axes[0]
    assert axes.images[0].get_array().shape == (3, LONGEST)  # type: ignore[union-attr]
    assert axes.get_title() == f"one (the first {LONGEST} tokens of 2400 read and 3 written)"
    assert figure.get_figwidth() < 25
    whole = attention_figure(weights[:, :5], rows=["a"] * 3, columns=["b"] * 5, title="one").axes[0]
    assert whole.get_title() == "one"
    assert whole.images[0].get_array().shape == (3, 5)  # type: ignore[union-attr]


def test_dollar_signs_are_no_mathematics() -> None:
    names = ["$a_$", "$ #1 $", "$0-$10", r"\frac{"]
    figures = [
        attention_figure(torch.rand(4, 4), rows=names, columns=names, title="$a_$"),
        words_figure([(names, [0.1] * 4, "$a_$")]),
        confusion_figure([[1] * 4] * 4, names=names, title="$a_$"),
    ]
    for figure in figures:
        figure.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for text in figures[2].axes[0].get_xticklabels()] == names


def test_words_of_long_texts_are_drawn_in_part() -> None:
    figure = words_figure([(["word"] * 5000, [0.1] * 5000, "long"), (["two", "words"], [0.4, 0.6], "short")])
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn.count("word") == MOST_WORDS
    assert any(text.startswith(f"long, the first {MOST_WORDS} of 5000 words ") for text in drawn)
    assert any(text.startswith("short   (") for text in drawn)
    assert figure.get_figheight() < 10


def confused(count: int) -> list[list[int]]:
    """Each class is right nine times and taken for the next one once; class 3 is taken for class 1 twenty times."""
    matrix = [[0] * count for _ in range(count)]
    for row in range(count):
        matrix[row][row], matrix[row][(row + 1) % count] = 9, 1
    matrix[3][1] = 20
    return matrix


def test_names_of_many_classes_are_kept_and_the_figure_grows() -> None:
    sizes = []
    for count in (5, 20, 60, 100):
        names = [f"class {number}" for number in range(count)]
        figure = confusion_figure(confused(count), names=names, title="t")
        axes = figure.axes[0]
        assert [text.get_text() for text in axes.get_yticklabels()] == names
        assert [text.get_text() for text in axes.get_xticklabels()] == names
        points = axes.get_position().height * figure.get_figheight() * 72 / count  # of a row
        assert float(axes.get_yticklabels()[0].get_fontsize()) < points, "names do not overlap"
        sizes.append(figure.get_figheight())
    assert sizes[0] < sizes[1]
    assert sizes[2] < sizes[3] < 20


def test_of_a_thousand_classes_those_confused_most_are_drawn() -> None:
    names = [f"class {number}" for number in range(1000)]
    axes = confusion_figure(confused(1000), names=names, title="t").axes[0]
    drawn = [text.get_text() for text in axes.get_yticklabels()]
    assert len(drawn) == MOST_CLASSES
    assert {"class 1", "class 3"} <= set(drawn)
    assert axes.get_title() == f"t (the {MOST_CLASSES} most confused of 1,000 classes)"
    shares = axes.images[0].get_array()
    assert float(shares[drawn.index("class 3"), drawn.index("class 1")]) == pytest.approx(20 / 30)  # type: ignore[index]


def test_pairs_that_are_confused_most_are_listed() -> None:
    names = [f"class {number}" for number in range(7)]
    report = ClassReport(names, confused(7))
    assert report.pairs()[0] == ("class 3", "class 1", 20, pytest.approx(20 / 30))
    lines = report.lines()
    assert "    true class 3 predicted as class 1: 20 (67% of class 3)" in lines
    assert len([line for line in lines if " predicted as " in line]) == MOST_PAIRS
    assert lines[-1] == "    and 3 more pairs"
    assert not [line for line in ClassReport(["a", "b"], [[3, 1], [1, 3]]).lines() if "predicted as" in line]
    assert "confused" not in "".join(ClassReport(["a", "b", "c"], [[1, 0, 0], [0, 1, 0], [0, 0, 0]]).lines())
    assert ClassReport(["a"], [[4]]).pairs() == []


def test_characters_that_no_font_has_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "_families", lambda needed: ((), needed))
    monkeypatch.setattr(fonts, "_reported", set())
    words = ["漢字", "plain", "\U0001f9ff", "é"]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            for figure in (
                attention_figure(torch.rand(4, 4), rows=words, columns=words, title="字"),
                words_figure([(words, [0.1] * 4, "漢")]),
                confusion_figure([[1] * 4] * 4, names=words),
            ):
                figure.savefig(io.BytesIO(), format="png")
    assert not seen
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "plots: 3 character(s) have no glyph in any installed font" in said
    assert "Noto Sans CJK" in said


def test_a_font_that_has_the_characters_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts._families.cache_clear()
    monkeypatch.setattr(fonts, "_candidates", lambda: ("Without", "With"))
    known = {"DejaVu Sans": frozenset("ab"), "Without": frozenset("x"), "With": frozenset("漢")}
    monkeypatch.setattr(fonts, "_characters", known.__getitem__)
    axes = attention_figure(torch.rand(2, 2), rows=["漢", "a"], columns=["b", "a"]).axes[0]
    first, second = axes.get_yticklabels()
    assert first.get_fontfamily() == ["DejaVu Sans", "With"]
    assert "With" not in second.get_fontfamily()
    fonts._families.cache_clear()


def test_a_users_own_warnings_still_show() -> None:
    quiet_libraries()
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)
