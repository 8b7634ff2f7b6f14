"""The sample: distinct reviews, balanced words, labels that a bag of words does not give away."""

from collections import Counter

import pytest

from domains.text import sample
from domains.text.baseline import accuracy
from suite.errors import UsageError


def test_splits_share_no_review_and_repeat_none() -> None:
    splits = {name: [text for text, _ in sample.generate(name)] for name in sample.SPLITS}
    assert {name: len(texts) for name, texts in splits.items()} == sample.SIZES
    everything = [text for texts in splits.values() for text in texts]
    assert len(set(everything)) == len(everything)
    other = {text for text, _ in sample.generate("test", seed=5)}
    assert not other & {*splits["train"], *splits["val"]}, "the split of a review depends on the seed"


def test_the_same_call_gives_the_same_reviews_and_a_smaller_one_the_first() -> None:
    assert sample.generate("train", size=50) == sample.generate("train", size=200)[:50]
    assert sample.generate("train", size=50) != sample.generate("train", size=50, seed=1)


def test_labels_are_balanced() -> None:
    counts = Counter(label for _, label in sample.generate("train"))
    assert set(counts) == set(sample.LABELS)
    assert abs(counts["positive"] - counts["negative"]) < 500


def test_exchanging_praise_and_blame_exchanges_the_label() -> None:
    opposite: dict[str, str] = {}
    for good, bad in (
        (sample.PRAISE, sample.BLAME),
        (sample.PRAISE_NOUNS, sample.BLAME_NOUNS),
        (sample.PRAISE_VERBS, sample.BLAME_VERBS),
    ):
        assert len(good) == len(bad)
        opposite |= {**dict(zip(good, bad, strict=True)), **dict(zip(bad, good, strict=True))}

    def polarity(text: str) -> Counter[bool]:
        padded = f" {text} "
        return Counter(
            word in (*sample.PRAISE, *sample.PRAISE_NOUNS, *sample.PRAISE_VERBS)
            for word in opposite
            if f" {word} " in padded
        )

    rows = sample.generate("train", size=3000)
    both = [label for text, label in rows if polarity(text)[True] == polarity(text)[False] == 1]
    assert len(both) > 0.6 * len(rows)
    assert 0.4 < both.count("positive") / len(both) < 0.6


def test_a_bag_of_words_stays_below_65_percent() -> None:
    assert accuracy(sample.generate("train"), sample.generate("test")) < 0.65


def test_the_baseline_can_tell_what_words_tell() -> None:
    rows = [("good film", "positive"), ("bad film", "negative")] * 20
    assert accuracy(rows, rows) == 1.0


def test_errors() -> None:
    with pytest.raises(UsageError, match="'other': the sample has train, val, test"):
        sample.generate("other")
    with pytest.raises(UsageError, match="size is -1"):
        sample.generate("val", size=-1)
