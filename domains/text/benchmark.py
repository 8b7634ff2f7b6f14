"""Text's own rows: loading after the first pass, in tokens a second, for both tasks."""

import time
from collections.abc import Callable
from typing import Any

from domains.text.data import TextData
from domains.text.language_data import LanguageData
from domains.text.tokens import VocabularyConfig
from suite.data import SuiteDataModule
from suite.timing import Row

BAR = 1_000_000  # tokens a second
REVIEWS = 20_000


def measure(*, checkpoint: str | None, load: Callable[[str], Any], rounds: int) -> list[Row]:
    """A row for each task; neither needs a trained model."""
    vocabulary = VocabularyConfig(size=2000)
    texts = TextData(sample_size=REVIEWS, vocabulary=vocabulary, batch_size=64)
    stream = LanguageData(sample_size=REVIEWS, vocabulary=vocabulary, batch_size=64, chunk_length=64)
    return [loading("texts", texts, rounds=rounds), loading("running text", stream, rounds=rounds)]


def loading(name: str, data: SuiteDataModule, *, rounds: int) -> Row:
    """Batches of an epoch as the trainer gets them, against the time that the bar allows for so many tokens."""
    begin = time.perf_counter()
    data.examples("train")
    first = time.perf_counter() - begin
    seconds, tokens = [], 0
    for epoch in range(rounds + 1):
        begin = time.perf_counter()
        tokens = sum(int(batch.lengths.sum()) for batch in data.loader("train", shuffle=True, epoch=epoch))
        seconds.append(time.perf_counter() - begin)
    best = min(seconds[1:])
    note = f"{tokens / best:,.0f} tokens/s; first pass {first:.1f} s for {tokens:,} tokens"
    return Row(f"loading {name}", best, tokens / BAR, best * BAR / tokens, "<= 1", best * BAR <= tokens, note)
