"""Tokenizers and label sets that travel with the model as plain data.

A piece of text that follows a space carries that space as its first character (SentencePiece's "▁", which is how
``tokens`` shows it); so the text comes back exactly when the pieces are joined. Inside, the space stays a space:
a marker character could also stand in the text and would not come back.
"""

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, get_args

# Without a value, the library warns in every forked loader worker; with "true", a forked worker can wait for ever
# for threads that the fork did not copy. One thread encodes 100,000 sentences in seconds.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from suite.console import notice
from suite.errors import CheckpointError, DataError, UsageError

Level = Literal["bpe", "unigram", "word", "char"]
PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
UNKNOWN_TEXT = "⁇"

# Every punctuation mark is a piece of its own, so no piece of a text can ever spell "<pad>" or another special.
_WORDS = Regex(r" ?[\p{L}\p{M}\p{N}]+| ?[^ \p{L}\p{M}\p{N}]")
_LETTERS = Regex(r" ?[\p{L}\p{M}]+| ?[^ \p{L}\p{M}]")  # Digits one by one, too.
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = str.maketrans({" ": "▁", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_KIND = "suite.tokenizer"
_SLACK = 16
LONGEST_LEARNED = 1_000
"""Characters of a word that sub-words are learned from as a whole; a longer one is learned from in such parts."""


class Tokenizer:
    """Text to ids and back, at one of four levels. Ids 0 to 3 are padding, unknown, begin and end at every level.

    ``bpe`` (Sennrich et al., 2016) and ``unigram`` (Kudo, 2018) learn sub-word pieces, ``word`` takes words and single
    punctuation marks, ``char`` characters. Text is brought to Unicode NFC, and to lower case if so trained; at every
    level but ``char``, a run of white space becomes one space and the ends are stripped (``normalize``).
    ``decode(encode(text)) == normalize(text)`` holds whenever no symbol is unknown. Unknown symbols become ``UNK``:
    a word at level ``word``, a character at the others (a run of them at ``unigram``); ``decode`` shows it as "⁇".
    Special tokens spelled out in a text are ordinary text. A word may be of any length: learning looks at longer ones
    than ``LONGEST_LEARNED`` in parts, encoding takes them whole. Copies and pickles are made by way of ``state``.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        *,
        level: Level,
        lowercase: bool = False,
        merges: Sequence[Sequence[str]] = (),
        scores: Sequence[float] = (),
    ) -> None:
        """``pieces`` in the order of their ids, specials first; ``merges`` for bpe; ``scores`` for unigram."""
        self.level: Level = level
        self.lowercase = lowercase
        self.pieces = tuple(pieces)
        self._merges = [(left, right) for left, right in merges]
        self._scores = [float(score) for score in scores]
        self._ids = {piece: index for index, piece in enumerate(self.pieces)}
        self._backend = None if level == "char" else self._build()
        # At word level the lost word had its space with it; below, the space is a piece of its own.
        unknown = f" {UNKNOWN_TEXT}" if level == "word" else UNKNOWN_TEXT
        self._surfaces = ("", unknown, "", "", *self.pieces[len(SPECIALS) :])

    @classmethod
    def train(
        cls, lines: Iterable[str], *, level: Level, size: int, min_frequency: int = 1, lowercase: bool = False
    ) -> "Tokenizer":
        """Learn a vocabulary of at most ``size`` tokens (the four specials included); the same lines give the same.

        Left out are characters (at level ``word``: words) and merges seen fewer than ``min_frequency`` times.
        ``word`` and ``char`` take the most frequent, ties alphabetically; ``bpe`` and ``unigram`` hold every character
        left, and say how many runs of letters were longer than they learn from as a whole.
        Raises DataError for text without any symbol, UsageError for settings that cannot be, among them a
        ``size`` with no room for the specials and the characters.
        """
        _check_settings(level, size, min_frequency)
        texts = [text for line in lines if (text := normalize(line, level=level, lowercase=lowercase))]
        counts = Counter("".join(texts))
        if level != "char":
            counts[" "] += len(texts)  # Every text starts with one.
            texts = [f" {text}" for text in texts]
        known = sorted((c for c, count in counts.items() if count >= min_frequency), key=lambda c: (-counts[c], c))
        if not texts or (not known and level != "word"):
            raise DataError(f"the training text holds no symbol that occurs at least {min_frequency} time(s)")
        if level == "char":
            return cls([*SPECIALS, *known[: size - len(SPECIALS)]], level=level, lowercase=lowercase)
        if level == "word":
            return _train_words(texts, size=size, min_frequency=min_frequency, lowercase=lowercase)
        least = len(SPECIALS) + len(known)
        if size < least:
            raise UsageError(
                f"vocabulary size {size} is too small for level {level!r}: the text has {len(known)} characters, "
                f"with the special tokens {least}; raise the size or min_frequency"
            )
        if len(known) < len(counts):
            texts = _without(texts, frozenset(counts).difference(known))
        texts = _in_parts(texts)
        learn = _train_bpe if level == "bpe" else _train_unigram
        return learn(texts, known, size=size, min_frequency=min_frequency, lowercase=lowercase)

    def normalize(self, text: str) -> str:
        """The form of ``text`` that is encoded and that ``decode`` gives back."""
        return normalize(text, level=self.level, lowercase=self.lowercase)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without begin and end; an empty text has none."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as ``encode``, each distinct word in one call of the library (no piece crosses a space)."""
        normal = [self.normalize(text) for text in texts]
        if self._backend is None:
            return [[self._ids.get(character, UNK) for character in text] for text in normal]
        split = [text.split(" ") if text else [] for text in normal]
        words = list(dict.fromkeys(chain.from_iterable(split)))
        encoded = self._backend.encode_batch_fast([f" {word}" for word in words], add_special_tokens=False)
        ids = {word: encoding.ids for word, encoding in zip(words, encoded, strict=True)}
        return [[index for word in each for index in ids[word]] for each in split]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without padding, begin and end. Raises DataError for an id that there is not."""
        text = "".join([self._surfaces[self._checked(index)] for index in ids])
        return text if self.level == "char" else text.removeprefix(" ")

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids, as ``decode``."""
        return [self.decode(ids) for ids in batch]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """One printable piece for each id, specials too, with "▁" for a space: the ticks of an attention plot."""
        return [self.pieces[self._checked(index)].translate(_SHOWN) for index in ids]

    def state(self) -> dict[str, Any]:
        """Everything ``from_state`` needs, of plain JSON types (loads with ``weights_only=True``)."""
        return {
            "kind": _KIND,
            "level": self.level,
            "lowercase": self.lowercase,
            "pieces": list(self.pieces),
            "merges": [list(pair) for pair in self._merges],
            "scores": list(self._scores),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Tokenizer":
        """The tokenizer that ``state`` was taken from; CheckpointError if it is damaged or something else."""
        problem = _state_problem(state)
        if problem:
            raise CheckpointError(f"the stored tokenizer cannot be used: {problem}; take another checkpoint")
        fields = {name: state[name] for name in ("level", "lowercase", "merges", "scores")}
        try:
            return cls(state["pieces"], **fields)
        except Exception as error:  # The library has no error class of its own.
            raise CheckpointError(f"the stored tokenizer cannot be used: {error}; take another checkpoint") from None

    def __len__(self) -> int:
        return len(self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.from_state, (self.state(),)

    def _build(self) -> Backend:
        """The library's tokenizer around our vocabulary, with no added tokens: those would match inside a text."""
        model: models.Model
        if self.level == "bpe":
            model = models.BPE(vocab=self._ids, merges=self._merges, unk_token=SPECIALS[UNK])
        elif self.level == "unigram":
            model = models.Unigram(vocab=list(zip(self.pieces, self._scores, strict=True)), unk_id=UNK)
        else:
            model = models.WordLevel(vocab=self._ids, unk_token=SPECIALS[UNK])
        return _backend(model, level=self.level)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.pieces):
            raise DataError(f"token id {index} is not in the vocabulary, which has ids 0 to {len(self.pieces) - 1}")
        return index


class Labels:
    """Class names and their ids, 0 onwards in the order given."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises DataError for no name at all and for one that is there twice."""
        self.names = tuple(names)
        self._ids = {name: index for index, name in enumerate(self.names)}
        if not self.names:
            raise DataError("there are no labels: at least one is needed")
        if len(self._ids) < len(self.names):
            twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
            raise DataError(f"labels must differ; more than once: {', '.join(twice)}")

    @classmethod
    def collect(cls, values: Iterable[str]) -> "Labels":
        """The distinct ``values``, sorted: by number if all are whole numbers, else alphabetically."""
        names = sorted(set(values))
        if all(re.fullmatch(r"-?[0-9]{1,15}", name) for name in names):
            names.sort(key=int)
        return cls(names)

    def encode(self, name: str) -> int:
        """Id of ``name``. Raises DataError, listing the labels there are, for another."""
        return self.encode_batch([name])[0]

    def encode_batch(self, names: Iterable[str]) -> list[int]:
        """Ids of ``names``. Raises DataError with all that are unknown, and lists the labels there are."""
        given = list(names)
        unknown = sorted(set(given).difference(self._ids))
        if unknown:
            listed = ", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            known = ", ".join(map(repr, self.names[:20])) + (f" and {len(self) - 20} more" if len(self) > 20 else "")
            raise DataError(f"unknown label {listed}; allowed are {known}")
        return [self._ids[name] for name in given]

    def decode(self, index: int) -> str:
        """Name of an id. Raises DataError for an id that there is not."""
        if not 0 <= index < len(self.names):
            raise DataError(f"label id {index} is not one of 0 to {len(self.names) - 1}")
        return self.names[index]

    def state(self) -> list[str]:
        """The names as a list, for a checkpoint."""
        return list(self.names)

    @classmethod
    def from_state(cls, state: Sequence[str]) -> "Labels":
        """The labels that ``state`` was taken from; CheckpointError if it is something else."""
        if not _are_strings(state) or not state or len(set(state)) < len(state):
            raise CheckpointError("the stored labels are not a list of different names; take another checkpoint")
        return cls(state)

    def __len__(self) -> int:
        return len(self.names)


def normalize(text: str, *, level: Level, lowercase: bool = False) -> str:
    """NFC, lower case if asked; at every level but ``char``, runs of white space as one space and none at the ends.

    Half of a surrogate pair, which is no character, becomes U+FFFD.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", _SURROGATE.sub("\ufffd", text))
    if lowercase:
        text = unicodedata.normalize("NFC", text.lower())
    return text if level == "char" else " ".join(text.split())


def _backend(model: models.Model, *, level: Level) -> Backend:
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Split(_WORDS if level == "word" else _LETTERS, "isolated")
    return backend


def _learned(texts: Sequence[str], model: models.Model, trainer: trainers.Trainer, *, level: Level) -> dict[str, Any]:
    """The trained model as the library writes it to JSON."""
    backend = _backend(model, level=level)
    backend.train_from_iterator(texts, trainer)
    return json.loads(backend.to_str())["model"]


def _train_words(texts: Sequence[str], *, size: int, min_frequency: int, lowercase: bool) -> Tokenizer:
    trainer = trainers.WordLevelTrainer(
        vocab_size=size - len(SPECIALS), min_frequency=min_frequency, special_tokens=[], show_progress=False
    )
    learned = _learned(texts, models.WordLevel(), trainer, level="word")
    if not learned["vocab"]:
        raise DataError(f"the training text holds no word that occurs at least {min_frequency} time(s)")
    words = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    return Tokenizer([*SPECIALS, *words], level="word", lowercase=lowercase)


def _train_bpe(
    texts: Sequence[str], known: Sequence[str], *, size: int, min_frequency: int, lowercase: bool
) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIALS),
        min_frequency=min_frequency,
        initial_alphabet=list(known),
        special_tokens=[],
        show_progress=False,
    )
    learned = _learned(texts, models.BPE(), trainer, level="bpe")
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    return Tokenizer([*SPECIALS, *pieces], level="bpe", lowercase=lowercase, merges=learned["merges"])


def _train_unigram(
    texts: Sequence[str], known: Sequence[str], *, size: int, min_frequency: int, lowercase: bool
) -> Tokenizer:
    # Every character is given once by itself. So the training never drops one; else it could neither cut the pieces
    # around that character nor stop (tokenizers 0.23 then loops for ever), and would score it in random order.
    room = size - len(SPECIALS)
    trainer = trainers.UnigramTrainer(vocab_size=max(room, len(known) + _SLACK), special_tokens=[], show_progress=False)
    learned = _learned([*texts, *known], models.Unigram(), trainer, level="unigram")["vocab"]
    # The library adds up in the order of a hash table that differs from run to run, so that scores differ in the last
    # bits: rounding, and an order by score and spelling, leave nothing of it.
    scored = sorted(((piece, round(score, 6)) for piece, score in learned), key=lambda pair: (-pair[1], pair[0]))
    longer = [pair[0] for pair in scored if len(pair[0]) > 1][: room - len(known)]
    kept = frozenset(known).union(longer)
    pieces, scores = zip(*(pair for pair in scored if pair[0] in kept), strict=True)
    zeros = [0.0] * len(SPECIALS)
    return Tokenizer([*SPECIALS, *pieces], level="unigram", lowercase=lowercase, scores=[*zeros, *scores])


def _in_parts(texts: list[str]) -> list[str]:
    """``texts`` with each run of letters beyond ``LONGEST_LEARNED`` in parts, texts of their own; how many is said.

    The library counts pairs again along the whole of every word that a merge changes: the time to learn from one word
    grows with the square of its length (41 s for one of 300,000 letters, 0.6 s for its parts).
    """
    split = pre_tokenizers.Split(_LETTERS, "isolated")
    found, lengths = [], []
    for text in texts:
        if len(text) <= LONGEST_LEARNED or max(map(len, text.split(" "))) <= LONGEST_LEARNED:
            found.append(text)
            continue
        for piece, _ in split.pre_tokenize_str(text):
            letters = piece.removeprefix(" ")
            if len(letters) <= LONGEST_LEARNED:
                found.append(piece)
                continue
            lengths.append(len(letters))
            parts = [letters[start : start + LONGEST_LEARNED] for start in range(0, len(letters), LONGEST_LEARNED)]
            found += [piece[: len(piece) - len(letters)] + parts[0], *parts[1:]]
    if lengths:
        notice(
            f"vocabulary: {len(lengths):,} run(s) of more than {LONGEST_LEARNED:,} letters (up to {max(lengths):,}) "
            "without a space or punctuation are learned from in parts of so many"
        )
    return found


def _without(texts: Sequence[str], rare: frozenset[str]) -> list[str]:
    """``texts`` without the words that hold a rare character: its neighbours must not be joined over the gap."""
    return ["".join(f" {word}" for word in text[1:].split(" ") if rare.isdisjoint(word)) for text in texts]


def _check_settings(level: str, size: int, min_frequency: int) -> None:
    if level not in get_args(Level):
        raise UsageError(f"level {level!r} is not known; allowed are {', '.join(get_args(Level))}")
    if size <= len(SPECIALS):
        raise UsageError(f"vocabulary size {size} is too small: at least {len(SPECIALS) + 1}, four are special tokens")
    if min_frequency < 1:
        raise UsageError(f"min_frequency must be 1 or more, not {min_frequency}")


def _state_problem(state: Any) -> str | None:
    """What is wrong with a tokenizer's state, or None."""
    if not isinstance(state, Mapping) or state.get("kind") != _KIND:
        return "it is not the state of one"
    missing = [name for name in ("level", "lowercase", "pieces", "merges", "scores") if name not in state]
    if missing:
        return f"it lacks {', '.join(missing)}"
    pieces, level = state["pieces"], state["level"]
    if level not in get_args(Level) or not isinstance(state["lowercase"], bool):
        return f"level {level!r} or its letter case is not known"
    if not _are_strings(pieces) or tuple(pieces[: len(SPECIALS)]) != SPECIALS or len(set(pieces)) < len(pieces):
        return "its pieces are not the special tokens followed by different texts"
    scores = state["scores"]
    if level == "unigram" and (not isinstance(scores, list) or len(scores) != len(pieces)):
        return "it has not one score for each piece"
    if not isinstance(state["merges"], list) or not all(_are_strings(p) and len(p) == 2 for p in state["merges"]):
        return "its merges are not pairs"
    return None


def _are_strings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
