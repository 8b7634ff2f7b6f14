"""Vocabulary settings of both tasks, and texts as flat ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from suite.flat import FlatSequences
from suite.vocabulary import EOS, Level, Tokenizer


@dataclass(frozen=True)
class VocabularyConfig:
    """How text becomes tokens.

    Args:
        level: Whole words, subwords by byte-pair encoding or by a unigram model, or characters.
        size: Tokens at most, special ones included.
        lowercase: Lower-case all text.
        min_frequency: Leave out what is seen less often.
    """

    level: Level = "word"
    size: int = 20_000
    lowercase: bool = True
    min_frequency: int = 1

    def train(self, texts: Sequence[str]) -> Tokenizer:
        """Learn a vocabulary from ``texts``."""
        return Tokenizer.train(
            texts, level=self.level, size=self.size, min_frequency=self.min_frequency, lowercase=self.lowercase
        )


class Encoded(NamedTuple):
    """Texts as ids, and how many of them were ``cut``."""

    ids: FlatSequences
    cut: int


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, limit: int | None = None) -> Encoded:
    """Each text as its ids, the first ``limit`` of them, and EOS."""
    rows = tokenizer.encode_batch(texts)
    cut = 0 if limit is None else sum(len(ids) > limit for ids in rows)
    return Encoded(FlatSequences.pack([*ids[:limit], EOS] for ids in rows), cut)
