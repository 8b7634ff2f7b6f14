"""Word vectors in GloVe's text format: those of a vocabulary, how much they cover, and which lines are damaged."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from suite.errors import DataError
from suite.sources import read_lines
from suite.vocabulary import SPECIALS, UNK, Tokenizer

_SHOWN = 5
_LOOK = 1000  # lines that tell how many numbers belong to a word
_LARGEST = torch.finfo(torch.float32).max


class Vectors(NamedTuple):
    """``weight (V, D)`` where ``found (V,)`` is True, what was covered, and what was wrong with the file.

    ``damaged`` has a text for each line that is left out; ``odd`` is about the file as a whole.
    """

    weight: Tensor
    found: Tensor
    text_share: float
    damaged: list[str]
    path: str
    odd: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The coverage report, and damaged lines: how many, and the first few by number."""
        found, size = int(self.found.sum()), len(self.found) - len(SPECIALS)
        report = [
            f"vectors: {self.path}: {self.weight.size(1)} features; {found:,} of {size:,} tokens found "
            f"({found / max(size, 1):.1%}), {self.text_share:.1%} of the training text"
        ]
        report += [f"vectors: {self.path}: {text}" for text in self.odd]
        if self.damaged:
            more = f"; and {len(self.damaged) - _SHOWN} more" if len(self.damaged) > _SHOWN else ""
            shown = "; ".join(self.damaged[:_SHOWN])
            report.append(f"vectors: {self.path}: {len(self.damaged)} damaged line(s) left out: {shown}{more}")
        return report


def read_vectors(path: str | os.PathLike[str], tokenizer: Tokenizer, *, counts: Sequence[int]) -> Vectors:
    """Vectors of the tokens that the file has: as they are written, else in lower case.

    Args:
        path: a word and its D numbers a line, with single spaces; plain or ``.gz``; a header (word2vec's: how many
            words, how many numbers) is compared with what follows.
        tokenizer: whose tokens.
        counts: how often each token stands in the training text.

    Raises:
        DataError: the file cannot be read, or has not one line of the right form.
    """
    file = Path(path)
    if file.suffix == ".bin":
        raise DataError(f"{file}: word2vec's binary format is not read; save the vectors as text (binary=False)")
    lines = read_lines(file)
    begin = 1 if _is_header(lines[0]) else 0
    size = _dimension(lines[begin : begin + _LOOK])
    if size < 1:
        raise DataError(f"{file}: no line is a word and its numbers with single spaces between: not a file of vectors")
    words = [piece.strip() for piece in tokenizer.pieces]
    wanted = set(words[len(SPECIALS) :])
    wanted |= {word.lower() for word in wanted}
    rows: dict[str, list[float]] = {}
    damaged: list[str] = []
    for number, word, numbers in _rows(lines, begin, size, damaged):
        if word in rows:
            damaged.append(f"line {number}: {word!r} is there already")
        elif word in wanted:
            rows[word] = numbers
    damaged.sort(key=lambda text: int(text.removeprefix("line ").split(":")[0]))
    chosen = [None] * len(SPECIALS) + [rows.get(word, rows.get(word.lower())) for word in words[len(SPECIALS) :]]
    found = torch.tensor([row is not None for row in chosen])
    weight = torch.tensor([row if row is not None else [0.0] * size for row in chosen])
    total = counts[UNK] + sum(counts[len(SPECIALS) :])  # a word that the vocabulary lacks is not covered either
    covered = sum(count for count, there in zip(counts, found.tolist(), strict=True) if there)
    odd = _check_header(lines[0], count=len(lines) - 1, size=size) if begin else ()
    return Vectors(weight, found, covered / max(total, 1), damaged, str(path), odd)


def _rows(lines: Sequence[str], begin: int, size: int, damaged: list[str]) -> Iterator[tuple[int, str, list[float]]]:
    """Line numbers, words and vectors; what is wrong with other lines goes into ``damaged``."""
    for number, line in enumerate(lines[begin:], start=begin + 1):
        fields = line.rstrip().split(" ")
        word = unicodedata.normalize("NFC", " ".join(fields[:-size]).strip())  # some words hold spaces themselves
        if len(fields) <= size or not word or all(map(_is_number, fields[1:-size] or ["no"])):
            damaged.append(f"line {number}: {_count(fields)} numbers where {size} are needed, or no word")
            continue
        try:
            numbers = [float(field) for field in fields[-size:]]
        except ValueError:
            numbers = []
        if not numbers or any("_" in field for field in fields[-size:]):  # Python reads 1_0 as ten
            damaged.append(f"line {number}: not {size} numbers after the word")
            continue
        if all(-_LARGEST <= value <= _LARGEST for value in numbers):  # false for NaN too
            yield number, word, numbers
        else:
            damaged.append(f"line {number}: {word!r} has a number that is not finite")


def _count(fields: Sequence[str]) -> int:
    return sum(_is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_header(line: str) -> bool:
    fields = line.split()
    return len(fields) == 2 and all(field.isdigit() for field in fields)


def _check_header(line: str, *, count: int, size: int) -> tuple[str, ...]:
    """How a header and the lines below it disagree, as in a file that was cut short."""
    words, numbers = map(int, line.split())
    odd = []
    if words != count:
        odd.append(f"the header announces {words:,} words, and the file has {count:,} lines below it")
    if numbers != size:
        odd.append(f"the header announces {numbers} numbers for a word, and most lines have {size}")
    return tuple(odd)


def _dimension(lines: Sequence[str]) -> int:
    """How many numbers most lines have after their word."""
    counts = Counter(len(line.rstrip().split(" ")) - 1 for line in lines if line.strip())
    return counts.most_common(1)[0][0] if counts else 0
