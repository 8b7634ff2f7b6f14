"""Figures of long sequences stay small, and say what they leave out."""

import io

import torch

from suite.figures import LONGEST, MOST_WORDS, attention_figure, confusion_figure, words_figure


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
