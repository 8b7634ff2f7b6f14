"""Short reviews written from our own patterns; whether one is good or bad depends on order, negation and distance.

Almost every review holds as many words of praise as of blame (or one of them, and a negation that may or may not be
about it), and the same review with the two exchanged has the other label: a bag of words tells next to nothing. A few
plain reviews say which words are praise. A hash of the text decides which split a review belongs to, so that none is
in two of them whatever the seed.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from suite.errors import UsageError

SPLITS = ("train", "val", "test")
SIZES = {"train": 10_000, "val": 500, "test": 1_000}
LABELS = ("negative", "positive")
_SHARES = {"train": range(0, 80), "val": range(80, 90), "test": range(90, 100)}
_TRIES = 200  # a review that is not of the split, or there already, is written anew at most so often

PRAISE = (
    "brilliant", "charming", "moving", "funny", "gripping", "clever", "superb", "warm", "elegant", "fresh", "witty",
    "tender", "honest", "dazzling", "thoughtful", "delightful", "lively", "subtle", "touching", "graceful",
)  # fmt: skip
BLAME = (
    "dull", "clumsy", "tedious", "shallow", "lifeless", "silly", "dreadful", "cold", "stale", "hollow", "lazy",
    "tiresome", "forced", "bland", "pointless", "annoying", "messy", "crude", "weary", "wooden",
)  # fmt: skip
PRAISE_NOUNS = ("a gem", "a triumph", "a joy", "a masterpiece", "a delight", "a wonder")
BLAME_NOUNS = ("a mess", "a failure", "a bore", "a disaster", "a letdown", "a chore")
PRAISE_VERBS = ("loved", "adored", "enjoyed", "admired", "treasured")
BLAME_VERBS = ("hated", "loathed", "disliked", "resented", "despised")
_WORKS = ("film", "novel", "play", "concert", "series", "musical", "album", "show", "story", "comedy")
_PARTS = ("plot", "acting", "music", "ending", "dialogue", "pace", "first half", "second act", "cast", "staging")
_PEOPLE = (
    "my brother",
    "my sister",
    "our neighbour",
    "the critic",
    "my teacher",
    "a colleague",
    "the usher",
    "my aunt",
)
_MAKERS = ("director", "author", "composer", "producer", "writer")
_ASIDES = (
    "we saw it on a rainy tuesday .", "the hall was half empty .", "it runs for two hours .", "we were four people .",
    "tickets were easy to get .", "it opened here last week .", "there was an interval .", "we sat near the back .",
    "the doors closed at eight .", "my phone was off the whole time .", "it has four parts .",
    "not many people came that night .", "i do not go out often .",
)  # fmt: skip
_BETWEEN = (
    "which we talked about for most of the way home", "as i told everyone at work the next morning",
    "and i have thought about this for more than a week", "whatever the poster at the station may say",
    "after all that had been written about it", "with my notes from the evening in front of me",
)  # fmt: skip
_NEUTRAL_NOT = (
    "it was not raining that evening , and", "i had not read about it , and", "we did not sit together , and",
    "it is not a long evening , and", "it was not my first visit , and",
)  # fmt: skip


class Words(NamedTuple):
    """The words that decide (``main``) and their opposites (``other``), of one polarity each."""

    main: tuple[str, ...]
    other: tuple[str, ...]
    main_nouns: tuple[str, ...]
    other_nouns: tuple[str, ...]
    main_verbs: tuple[str, ...]
    other_verbs: tuple[str, ...]


_FOR = {
    "positive": Words(PRAISE, BLAME, PRAISE_NOUNS, BLAME_NOUNS, PRAISE_VERBS, BLAME_VERBS),
    "negative": Words(BLAME, PRAISE, BLAME_NOUNS, PRAISE_NOUNS, BLAME_VERBS, PRAISE_VERBS),
}
Pattern = Callable[[random.Random, Words], str]


def _contrast(draw: random.Random, words: Words) -> str:
    """What comes after "but" decides; what "although" and "even if" bring in does not."""
    parts = draw.sample(_PARTS, 2)
    won = f"the {parts[0]} was {draw.choice(words.main)}"
    lost = f"the {parts[1]} was {draw.choice(words.other)}"
    link = draw.choice(("although", "even if", "though"))
    between = f" , {draw.choice(_BETWEEN)}" if draw.random() < 0.3 else ""
    return draw.choice(
        (f"{lost}{between} , but {won} .", f"{link} {lost}{between} , {won} .", f"{won}{between} , {link} {lost} .")
    )


def _not_but(draw: random.Random, words: Words) -> str:
    """ "Not this but that", either way round."""
    work = draw.choice(_WORKS)
    lost, won = draw.choice(words.other), draw.choice(words.main)
    between = f" , {draw.choice(_BETWEEN)} ," if draw.random() < 0.3 else ""
    return draw.choice(
        (
            f"the {work}{between} is not {lost} but {won} .",
            f"the {work}{between} is {won} and not {lost} .",
            f"i would call the {work}{between} {won} , not {lost} .",
            f"i would not call the {work}{between} {lost} , rather {won} .",
        )
    )


def _negated(draw: random.Random, words: Words) -> str:
    """One word, with a negation that is about it, or about something else."""
    work = draw.choice(_WORKS)
    denial = draw.choice(("i cannot say that", "it is not true that", "nobody would claim that", "i do not think that"))
    between = f" , {draw.choice(_BETWEEN)} ," if draw.random() < 0.5 else ""
    if draw.random() < 0.5:
        return f"{denial} the {work}{between} was {draw.choice(words.other)} ."
    if draw.random() < 0.5:
        return f"{draw.choice(_NEUTRAL_NOT)} the {work}{between} was {draw.choice(words.main)} ."
    return f"{denial} the {work}{between} was not {draw.choice(words.main)} ."


def _expected(draw: random.Random, words: Words) -> str:
    """What was expected does not count, what came does."""
    lost, won = draw.choice(words.other_nouns), draw.choice(words.main_nouns)
    work = draw.choice(_WORKS)
    return draw.choice(
        (
            f"i expected {lost} and got {won} .",
            f"i got {won} where i had expected {lost} .",
            f"the {work} , announced as {lost} , turned out to be {won} .",
            f"what looked like {lost} from outside was {won} in the end .",
        )
    )


def _reported(draw: random.Random, words: Words) -> str:
    """What others felt does not count, what the writer felt does."""
    person, work = draw.choice(_PEOPLE), draw.choice(_WORKS)
    theirs, mine = draw.choice(words.other_verbs), draw.choice(words.main_verbs)
    return draw.choice(
        (
            f"{person} {theirs} the {work} , i {mine} it .",
            f"i {mine} the {work} that {person} {theirs} .",
            f"the {work} that {person} {theirs} is one i {mine} .",
            f"unlike {person} , who {theirs} every minute of the {work} , i {mine} it .",
            f"unlike {person} , who {theirs} it , i {mine} the {work} .",
            f"i {mine} it , unlike {person} , who {theirs} the {work} .",
        )
    )


def _aside(draw: random.Random, words: Words) -> str:
    """A clause about another work stands between the subject and its verb."""
    maker, work, older = draw.choice(_MAKERS), *draw.sample(_WORKS, 2)
    lost, won = draw.choice(words.other), draw.choice(words.main)
    return draw.choice(
        (
            f"the {work} by the {maker} whose last {older} was so {lost} is {won} .",
            f"the {maker} whose {older} everyone had found {lost} has made a {won} {work} .",
            f"next to the {lost} {older} of the same {maker} , this {work} is {won} .",
            f"this {work} is {won} , next to which the {older} of the same {maker} was {lost} .",
        )
    )


def _plain(draw: random.Random, words: Words) -> str:
    """Says what it means."""
    return draw.choice(
        (
            f"the {draw.choice(_WORKS)} was {draw.choice(words.main)} and {draw.choice(words.main)} .",
            f"i {draw.choice(words.main_verbs)} the {draw.choice(_WORKS)} .",
            f"the {draw.choice(_WORKS)} is {draw.choice(words.main_nouns)} .",
        )
    )


_PATTERNS: tuple[Pattern, ...] = (
    *(_contrast, _contrast, _contrast, _not_but, _not_but, _negated, _negated),
    *(_expected, _expected, _reported, _reported, _aside, _aside, _plain),
)


def generate(split: str, *, size: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
    """``size`` distinct (text, label) pairs of a split; ``SIZES[split]`` where none is given.

    The same call gives the same reviews in every process, and a smaller size the first of a larger one.

    Raises:
        UsageError: a split that is not in ``SPLITS``, a negative size, or one that the patterns cannot fill.
    """
    if split not in SPLITS:
        raise UsageError(f"split {split!r}: the sample has {', '.join(SPLITS)}")
    wanted = SIZES[split] if size is None else size
    if wanted < 0:
        raise UsageError(f"the sample's size is {size}, allowed is 0 or more")
    found: list[tuple[str, str]] = []
    for pair in _reviews(split, seed):
        if len(found) == wanted:
            break
        found.append(pair)
    return found


def _reviews(split: str, seed: int) -> Iterator[tuple[str, str]]:
    draw = random.Random(f"reviews {split} {seed}")
    seen: set[str] = set()
    while True:
        label = draw.choice(LABELS)
        for _ in range(_TRIES):
            text = _write(draw, _FOR[label])
            if text not in seen and _share(text) in _SHARES[split]:
                break
        else:
            raise UsageError(f"the sample has no more than {len(seen):,} different reviews: ask for fewer")
        seen.add(text)
        yield text, label


def _write(draw: random.Random, words: Words) -> str:
    """A review: the sentence that decides, at times with sentences about nothing before or after it."""
    sentences = [draw.choice(_PATTERNS)(draw, words)]
    if draw.random() < 0.4:
        sentences.insert(draw.randint(0, 1), draw.choice(_ASIDES))
    if draw.random() < 0.2:
        sentences.insert(draw.randint(0, len(sentences)), draw.choice(_ASIDES))
    return " ".join(sentences)


def _share(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") % 100
