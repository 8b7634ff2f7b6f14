"""Sentence pairs: the embedded sample, own files, Multi30k."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy
from numpy.typing import NDArray
from torch import Tensor

from domains.translation import sample
from domains.translation.pairs import Pair, has_blank, is_blank, read_pairs, report_empty
from domains.translation.remotes import REMOTES
from suite.console import notice
from suite.data import SuiteDataModule
from suite.effects import NEW_ASSETS, Declared, a_table, held_out_share, one_of
from suite.errors import DataError, UsageError
from suite.fingerprints import Fingerprint, digest_texts
from suite.folds import hold_out_parts
from suite.inputs import InputColumns
from suite.sequence import pad_sequences
from suite.sources import data_folder, is_table, read_parallel
from suite.splits import SPLITS, check_sources
from suite.vocabulary import BOS, EOS, PAD, Level, Tokenizer

Language = Literal["en", "de", "fr"]
_MULTI30K = {"train": "train", "val": "val", "test": "test_2016_flickr"}
_SAMPLE = {"train": "train", "val": "validation", **{name: name for name in ("test", "test_unseen", "test_deeper")}}
_MANY_WEIGHTS = 2**28  # of attention, for one pair: 1 GiB in float32
_SHOWN = 40  # characters of a sentence, to find it by


@dataclass(frozen=True)
class VocabularyConfig:
    """How text becomes tokens.

    Args:
        level: Subwords by byte-pair encoding or by a unigram model, whole words, or characters.
        size: Tokens at most, special ones included; for each language where they are separate.
        joint: One vocabulary for both languages.
        lowercase: Lower-case all text; translations are then lower case too.
        min_frequency: Leave out what is seen less often in training.
    """

    level: Level = "bpe"
    size: int = 1000
    joint: bool = True
    lowercase: bool = False
    min_frequency: int = 1


class PairBatch(NamedTuple):
    """A batch of B sentence pairs.

    ``source (B, S)`` ends in EOS; ``target (B, T+1)`` begins with BOS and ends in EOS, and ``target_lengths`` counts
    the T tokens to predict. In prediction ``target`` is BOS and EOS alone.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    indices: list[int]
    sources: list[str]
    references: list[str]


class PairExamples:
    """Encoded pairs of one split."""

    draws = False

    def __init__(self, pairs: Sequence[Pair], *, source: Tokenizer, target: Tokenizer) -> None:
        self.pairs = list(pairs)
        self.source = [[*ids, EOS] for ids in source.encode_batch([pair[0] for pair in pairs])]
        self.target = [[BOS, *ids, EOS] for ids in target.encode_batch([pair[1] for pair in pairs])]
        self.lengths: NDArray[numpy.int64] = numpy.array(
            [(len(target) - 1, len(source)) for source, target in zip(self.source, self.target, strict=True)],
            dtype=numpy.int64,
        ).reshape(-1, 2)

    def fetch(self, index: int, seed: int) -> tuple[int, list[int], list[int], Pair]:
        """Nothing about a pair is random."""
        return index, self.source[index], self.target[index], self.pairs[index]

    def chosen(self, mask: NDArray[numpy.bool_]) -> "PairExamples":
        """The pairs for which ``mask (N,)`` is true."""
        kept = PairExamples.__new__(PairExamples)
        indices = numpy.flatnonzero(mask).tolist()
        kept.pairs = [self.pairs[index] for index in indices]
        kept.source = [self.source[index] for index in indices]
        kept.target = [self.target[index] for index in indices]
        kept.lengths = self.lengths[indices]
        return kept


class TranslationData(SuiteDataModule):
    """Sentence pairs in batches bucketed by length.

    Args:
        dataset: The embedded sample (made by a grammar), Multi30k (SUITE_DATA_DIR or a download), or your files.
        source_language: What to translate from; sample: en or de.
        target_language: What to translate to.
        train: With dataset files: tables (.csv, .tsv, .jsonl, .parquet), one or several, or two aligned text files
            (source, target). Pairs of which a side is empty are counted and left out of training only.
        val: Likewise; taken from the training pairs by held_out if not given.
        test: Likewise.
        columns: Names of the source and the target column in tables.
        delimiter: Character between the fields of .csv and .tsv files, if it is another than usual; fields may then be
            in quotes.
        held_out: Share of the training pairs for each of val and test that is not given.
        sample_size: Training pairs of the embedded sample, any number; 24,000 if not given.
        vocabulary: How text becomes tokens.
        max_length: Longest sentence in training, in tokens; longer pairs are counted and left out of training alone.
        batch_size: Pairs in a batch of one process, at most.
        max_tokens: Padded source and target tokens in a batch of one process, at most.
        num_workers: Processes that load data.
    """

    trained_settings: ClassVar[frozenset[str]] = frozenset(
        {"source_language", "target_language", "held_out", "vocabulary", "max_length", "sample_size"}
    )

    only_with: ClassVar[Declared] = {
        **dict.fromkeys(("source_language", "target_language"), one_of("dataset", "sample", "multi30k")),
        "columns": a_table(is_table),
        "held_out": held_out_share("sample", "multi30k"),
        "sample_size": one_of("dataset", "sample"),
        "vocabulary": NEW_ASSETS,
    }

    def __init__(
        self,
        *,
        dataset: Literal["sample", "multi30k", "files"] = "sample",
        source_language: Language = "en",
        target_language: Language = "de",
        train: list[str] | str | None = None,
        val: list[str] | str | None = None,
        test: list[str] | str | None = None,
        columns: list[str] = ["source", "target"],  # noqa: B006 (read only; the command line shows it)
        delimiter: str | None = None,
        held_out: float = 0.05,
        sample_size: int | None = None,
        vocabulary: VocabularyConfig = VocabularyConfig(),
        max_length: int = 100,
        batch_size: int | None = None,
        max_tokens: int | None = 4096,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, max_tokens=max_tokens, num_workers=num_workers, seed=seed, assets=assets
        )
        self.dataset, self.languages = dataset, (source_language, target_language)
        given = {"train": train, "val": val, "test": test}
        self.files = {name: [files] if isinstance(files, str) else files for name, files in given.items()}
        self.columns, self.held_out, self.sample_size = columns, held_out, sample_size
        self.delimiter = delimiter
        self.vocabulary, self.max_length = vocabulary, max_length
        self._pairs: dict[str, list[Pair]] = {}
        self._tokenizers: tuple[Tokenizer, Tokenizer] | None = None
        self._check()

    def _check(self) -> None:
        if self.languages[0] == self.languages[1]:
            raise UsageError(f"data.source_language and data.target_language are both {self.languages[0]}")
        if self.dataset == "sample" and "fr" in self.languages:
            raise UsageError("the embedded sample is in en and de; fr is in --data.dataset multi30k")
        form = "tables or two aligned text files"
        has_assets = self._assets is not None
        check_sources(self.dataset, self.files, folds=None, has_assets=has_assets, form=form, delimiter=self.delimiter)
        if len(self.columns) != 2:
            raise UsageError(f"data.columns is {self.columns}, allowed are two names: source and target")
        if self.sample_size is not None and self.sample_size < 1:
            raise UsageError(f"data.sample_size is {self.sample_size}, allowed is 1 or more")
        if self.max_length < 1:
            raise UsageError(f"data.max_length is {self.max_length}, allowed is 1 or more")

    @property
    def splits(self) -> list[str]:
        """What ``--data.split`` may name."""
        return list({"sample": _SAMPLE, "multi30k": _MULTI30K}.get(self.dataset, SPLITS))

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Source and target tokenizer, the same one where joint."""
        if self._tokenizers is None:
            self._tokenizers = tokenizers_from(self.assets)
        return self._tokenizers

    def make_assets(self) -> dict[str, Any]:
        config, pairs = self.vocabulary, self.pairs("train")
        self._need_text(pairs)
        texts = [[pair[side] for pair in pairs] for side in (0, 1)]
        corpora = [texts[0] + texts[1]] if config.joint else texts
        states = [
            Tokenizer.train(
                lines,
                level=config.level,
                size=config.size,
                min_frequency=config.min_frequency,
                lowercase=config.lowercase,
            ).state()
            for lines in corpora
        ]
        return {"source": states[0], "target": None if config.joint else states[1], "languages": list(self.languages)}

    def load(self, split: str) -> PairExamples:
        source, target = self.tokenizers
        pairs = self.pairs(split)
        examples = PairExamples(pairs, source=source, target=target)
        empty = numpy.array([[is_blank(text) for text in pair] for pair in pairs], dtype=bool).reshape(-1, 2)
        empty |= examples.lengths[:, ::-1] <= 1  # nothing but the closing token
        if split != "train":
            report_empty(empty, f"{split} pairs", "they are evaluated like others")
            _say_longest(examples, split)
            return examples
        self._need_text(pairs)
        report_empty(empty, "training pairs", "they are left out of training")
        filled = numpy.count_nonzero(empty, axis=1) == 0
        kept = filled & (numpy.count_nonzero(examples.lengths > self.max_length, axis=1) == 0)
        if dropped := int(filled.sum() - kept.sum()):
            notice(
                f"data: {dropped} of {len(pairs)} training pairs are longer than max_length "
                f"({self.max_length} tokens) and left out of training"
            )
        return examples.chosen(kept)

    def _need_text(self, pairs: Sequence[Pair]) -> None:
        """Refuse training pairs of which none has text on both sides."""
        if all(map(has_blank, pairs)):
            where = " and ".join(self.files["train"] or [self.dataset])
            raise DataError(f"{where}: all {len(pairs)} training pairs have an empty side, so none can be learnt from")

    @property
    def input_columns(self) -> InputColumns:
        return InputColumns(self.columns[:1], "data.columns", self.delimiter)

    def load_inputs(self, inputs: Sequence[str]) -> PairExamples:
        source, target = self.tokenizers
        return PairExamples([(line, "") for line in inputs], source=source, target=target)

    def take_fingerprint(self, split: str) -> Fingerprint:
        return Fingerprint(digest_texts(self.pairs(split)))

    def earlier_fingerprint(self) -> str:
        digest = hashlib.sha256()
        for pair in self.pairs("train"):
            if not has_blank(pair):  # versions that trained on these made other batches of the same file
                digest.update("\0".join(pair).encode() + b"\n")
        return digest.hexdigest()

    def pairs(self, split: str) -> list[Pair]:
        """The sentences of a split as they stand in the data.

        Raises:
            UsageError: no such split.
            DataError: a file that cannot be read.
        """
        if split not in self.splits:
            raise UsageError(f"--data.split {split}: dataset {self.dataset} has {', '.join(self.splits)}")
        if split not in self._pairs:
            if self.dataset == "files":
                self._read_own(split)
            else:
                self._pairs[split] = self._read_named(split)
        return self._pairs[split]

    def _read_named(self, split: str) -> list[Pair]:
        if self.dataset == "sample":
            size = self.sample_size if split == "train" else None
            pairs = sample.generate(_SAMPLE[split], size=size)
            return pairs if self.languages[0] == "en" else [(german, english) for english, german in pairs]
        names = {each: [f"{_MULTI30K[each]}.{language}.gz" for language in self.languages] for each in _MULTI30K}
        remotes = {name: REMOTES["multi30k"][name] for both in names.values() for name in both}
        folder = data_folder("multi30k", files=names[split], remotes=remotes)
        return [(row[0], row[1]) for row in read_parallel([folder / name for name in names[split]])]

    def _read_own(self, split: str) -> None:
        files = self.files[split]
        if split != "train" and files:
            self._pairs[split] = self._read_files(split)
            return
        if not self.files["train"]:
            raise UsageError(f"--data.dataset files needs --data.train or --data.{split}: a table or two text files")
        pairs = self._read_files("train")
        missing = [name for name in ("val", "test") if not self.files[name]]
        try:
            parts = hold_out_parts([""] * len(pairs), missing=missing, held_out=self.held_out, seed=self.seed)
        except (UsageError, DataError) as error:
            raise type(error)(f"{' and '.join(self.files['train'])}: {error}") from None
        for name in ("train", *missing):
            self._pairs[name] = [pairs[index] for index in getattr(parts, name)]

    def _read_files(self, split: str) -> list[Pair]:
        files = self.files[split] or []
        return read_pairs(files, columns=self.columns, delimiter=self.delimiter, setting=f"data.{split}")

    def collate(self, examples: list[Any]) -> PairBatch:
        indices, sources, targets, pairs = (list(column) for column in zip(*examples, strict=True))
        source, source_lengths = pad_sequences(sources, value=PAD)
        target, target_lengths = pad_sequences(targets, value=PAD)
        texts, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return PairBatch(source, source_lengths, target, target_lengths - 1, indices, texts, references)


def _say_longest(examples: PairExamples, split: str) -> None:
    """Say that a pair may need more memory than there is: whoever is killed for it could not tell why."""
    if not len(examples.lengths):
        return
    weights = examples.lengths.prod(axis=1)
    place = int(weights.argmax())
    target, source = examples.lengths[place].tolist()
    if weights[place] > _MANY_WEIGHTS:
        notice(
            f"data: a pair of {split} has {source:,} source and {target:,} target tokens, of which attention takes "
            f"{weights[place] * 4 / 2**30:,.1f} GiB or more (max_length holds in training alone): leave it out or "
            f"shorten it if memory does not suffice. It begins {examples.pairs[place][0][:_SHOWN]!r}"
        )


def tokenizers_from(assets: dict[str, Any]) -> tuple[Tokenizer, Tokenizer]:
    """Source and target tokenizer as they travel with a model."""
    source = Tokenizer.from_state(assets["source"])
    return source, source if assets["target"] is None else Tokenizer.from_state(assets["target"])
