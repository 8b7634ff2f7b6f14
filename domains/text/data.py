"""Labelled texts: the embedded sample, named sets, files of one's own."""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from domains.text import corpora
from domains.text.listing import DatasetName, Item, TextColumns, list_items, list_named, named_splits
from domains.text.tokens import VocabularyConfig, encode_texts
from suite.classification import NO_LABEL, count_labels, encode_labels, label_assets
from suite.console import notice, notice_once
from suite.data import SuiteDataModule
from suite.effects import NEW_ASSETS, Declared, a_table, held_out_share, is_set, one_of
from suite.errors import UsageError
from suite.fingerprints import Fingerprint, digest_texts
from suite.flat import FlatSequences
from suite.inputs import InputColumns
from suite.listing import ListingColumns
from suite.sources import is_table, read_lines, read_table
from suite.splits import Division, Splits, check_sources
from suite.vectors import Vectors, read_vectors
from suite.vocabulary import PAD, Labels, Tokenizer

_SHOWN = 60  # characters of a text, to find it by


class TextBatch(NamedTuple):
    """A batch of B texts: ``tokens (B, T)`` end in EOS within ``lengths (B,)``; ``labels (B,)`` are class ids."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    indices: list[int]
    inputs: list[str]


class TextItem(NamedTuple):
    """A text by its ``number`` among ``examples``: a batch takes what it needs of all its texts at once."""

    examples: "TextExamples"
    number: int


class TextExamples:
    """Encoded texts of one split, their labels (class ids) and how they were written."""

    draws = False

    def __init__(self, ids: FlatSequences, labels: Sequence[int], texts: Sequence[str]) -> None:
        self.ids, self.labels, self.texts = ids, list(labels), list(texts)
        self.lengths: NDArray[numpy.int64] = ids.lengths
        self._classes = numpy.asarray(self.labels, dtype=numpy.int64)

    def fetch(self, index: int, seed: int) -> TextItem:
        """Nothing about a text is random."""
        return TextItem(self, index)

    def gather(self, indices: list[int]) -> TextBatch:
        """The texts ``indices`` as a batch: one by one they took a quarter of the loading of short texts."""
        tokens, lengths = self.ids.padded(indices, value=PAD)
        texts = [self.texts[index] for index in indices]
        return TextBatch(tokens, lengths, from_numpy(self._classes[indices]), indices, texts)


class TextData(SuiteDataModule):
    """Labelled texts in batches bucketed by length.

    Args:
        dataset: The embedded sample; SST-2, MR, Subj or CR (SUITE_DATA_DIR or a download); AG News
            (SUITE_DATA_DIR); or files of your own.
        train: With dataset files: a table (.csv, .tsv, .jsonl, .parquet), or a folder with a folder of .txt files for
            each class, or with train, val and test of such.
        val: Likewise, of this split alone; what train has of it, or held_out of its texts, if not given.
        test: Likewise.
        text_columns: Columns of a table that make up a text, joined by spaces.
        label_column: Column with the class.
        group_column: Column with a group, if there is one: texts of a group never stand on both sides of a split.
        split_column: Column that says train, val or test, if there is one.
        delimiter: Character between the fields of .csv and .tsv files, if it is another than usual; fields may then be
            in quotes.
        held_out: Share of the training texts for each of val and test that is not given, the same of each class.
        folds: Cut the training texts into so many folds; test is one of them (scripts/crossvalidate.py does all).
        fold: Which of the folds is tested, from 0.
        sample_size: Training reviews of the embedded sample; 10,000 if not given.
        vocabulary: How text becomes tokens.
        vocabulary_texts: More texts whose words belong to the vocabulary, without their labels: corpora by
            name (reviews, news_and_wiki: what language models are pretrained on for SST-2), or text files.
        vectors: A file of word vectors (GloVe's text format) that embeddings begin with.
        max_length: Longest text in tokens; longer ones are counted and cut.
        batch_size: Texts in a batch of one process, at most.
        max_tokens: Padded tokens in a batch of one process, at most.
        num_workers: Processes that load data.
    """

    begin_settings: ClassVar[frozenset[str]] = frozenset({"vectors"})
    trained_settings: ClassVar[frozenset[str]] = frozenset(
        {"held_out", "folds", "fold", "vocabulary", "vocabulary_texts", "vectors", "max_length", "sample_size"}
    )

    only_with: ClassVar[Declared] = {
        **dict.fromkeys(("text_columns", "label_column", "group_column", "split_column"), a_table(is_table)),
        "held_out": held_out_share("sample", "sst2"),
        "fold": is_set("folds"),
        "sample_size": one_of("dataset", "sample"),
        "vocabulary": NEW_ASSETS,
        "vocabulary_texts": NEW_ASSETS,
    }

    def __init__(
        self,
        *,
        dataset: DatasetName = "sample",
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        text_columns: list[str] = ["text"],  # noqa: B006 (read only; the command line shows it)
        label_column: str = "label",
        group_column: str | None = "group",
        split_column: str | None = "split",
        delimiter: str | None = None,
        held_out: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        sample_size: int | None = None,
        vocabulary: VocabularyConfig = VocabularyConfig(),
        vocabulary_texts: list[str] = [],  # noqa: B006
        vectors: str | None = None,
        max_length: int = 400,
        batch_size: int | None = 32,
        max_tokens: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, max_tokens=max_tokens, num_workers=num_workers, seed=seed, assets=assets
        )
        self.dataset, self.sample_size = dataset, sample_size
        self.paths = {"train": train, "val": val, "test": test}
        form = "a table, or a folder with one for each class"
        check_sources(dataset, self.paths, folds=folds, has_assets=assets is not None, form=form, delimiter=delimiter)
        if not text_columns:
            raise UsageError("data.text_columns is empty: name at least one column")
        if sample_size is not None and sample_size < 1:
            raise UsageError(f"data.sample_size is {sample_size}, allowed is 1 or more")
        if max_length < 1:
            raise UsageError(f"data.max_length is {max_length}, allowed is 1 or more")
        self.columns = TextColumns(text_columns, label_column, ListingColumns(group_column, split_column, delimiter))
        self.parts = Splits(
            self._list,
            own=[split for split, path in self.paths.items() if path] if dataset == "files" else named_splits(dataset),
            # AG News's test split is balanced, and its training subset is not.
            division=Division(held_out, seed, folds, fold, equally=dataset == "ag_news"),
            name=f"dataset {dataset}",
        )
        self.vocabulary, self.vocabulary_texts = vocabulary, vocabulary_texts
        self.vectors, self.max_length = vectors, max_length
        self._tokenizer: Tokenizer | None = None

    def _list(self, split: str) -> list[Item]:
        path = self.paths[split]
        if path is None:
            return list_named(self.dataset, split, sample_size=self.sample_size)
        return list_items(path, self.columns)

    def items(self, split: str) -> list[Item]:
        """The texts of a split, or of all, as they stand in the data.

        Raises:
            UsageError: no such split.
            DataError: a file that cannot be read, or texts that cannot be divided.
        """
        return self.parts.items(split)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, from the training split or a checkpoint."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_state(self.assets["tokenizer"])
        return self._tokenizer

    def make_assets(self) -> dict[str, Any]:
        items = self.items("train")
        more = [text for name in self.vocabulary_texts for text in self._more_texts(name)]
        labels = label_assets((item.label for item in items if item.text.strip()), where="the training texts")
        return {"tokenizer": self.vocabulary.train([*(item.text for item in items), *more]).state(), **labels}

    def _more_texts(self, name: str) -> list[str]:
        """More texts for a vocabulary: a named corpus, the rows of a table, or the lines of a file."""
        if corpora.is_corpus(name):
            return corpora.documents(name)
        if not is_table(name):
            return read_lines(name)
        columns, delimiter = self.columns.texts, self.columns.listing.delimiter
        rows = read_table(name, columns=columns, delimiter=delimiter, flags=self.columns.flags)
        return [" ".join(row) for row in rows]

    def renewed_assets(self) -> dict[str, Any]:
        labels = (item.label for item in self.items("train") if item.text.strip())
        return count_labels(labels, Labels.from_state(self.assets["labels"]))

    def load(self, split: str) -> TextExamples:
        items = self.items(split)
        filled = [item for item in items if item.text.strip()]
        if len(filled) < len(items):
            empty = f"data: {len(items) - len(filled)} of {len(items)}"
            if split == "train":
                notice(f"{empty} training texts are empty and left out")
            else:
                notice(f"{empty} {split} texts are empty; they are evaluated like others")
        items = filled if split == "train" else items
        _report_contradictions(filled, split)
        names = Labels.from_state(self.assets["labels"])
        labels = encode_labels([item.label for item in items], names, where=f"the {split} texts")
        return self._encode([item.text for item in items], labels, what=f"{split} texts")

    @property
    def input_columns(self) -> InputColumns:
        return InputColumns(self.columns.texts, "data.text_columns", self.columns.listing.delimiter)

    def load_inputs(self, inputs: Sequence[str]) -> TextExamples:
        return self._encode(inputs, [NO_LABEL] * len(inputs), what="inputs")

    def _encode(self, texts: Sequence[str], labels: Sequence[int], *, what: str) -> TextExamples:
        encoded = encode_texts(self.tokenizer, texts, limit=self.max_length)
        if encoded.cut:
            notice(
                f"data: {encoded.cut} of {len(texts)} {what} are longer than max_length ({self.max_length} tokens) "
                "and cut there"
            )
        return TextExamples(encoded.ids, labels, texts)

    def take_fingerprint(self, split: str) -> Fingerprint:
        return Fingerprint(digest_texts((item.text, item.label) for item in self.items(split)))

    def earlier_fingerprint(self) -> str:
        digest = hashlib.sha256()
        for item in self.items("train"):
            digest.update(f"{item.text}\0{item.label}\0{item.group}\n".encode())
        return digest.hexdigest()

    def read_vectors(self) -> Vectors | None:
        """Vectors of this vocabulary's words from the file that ``vectors`` names; ``None`` without one.

        Raises:
            DataError: the file cannot be read.
        """
        if self.vectors is None:
            return None
        examples = self.examples("train")
        assert isinstance(examples, TextExamples)
        counts = numpy.bincount(examples.ids.ids, minlength=len(self.tokenizer))
        return read_vectors(self.vectors, self.tokenizer, counts=counts.tolist())

    def collate(self, examples: list[TextItem]) -> TextBatch:
        return examples[0].examples.gather([item.number for item in examples])


def _report_contradictions(items: Sequence[Item], split: str) -> None:
    """Report texts that stand in a split several times, with different labels."""
    labels: dict[str, dict[str, int]] = {}
    for item in items:
        counts = labels.setdefault(item.text.strip(), {})
        counts[item.label] = counts.get(item.label, 0) + 1
    both = {text: counts for text, counts in labels.items() if len(counts) > 1}
    if both:
        text, counts = next(iter(both.items()))
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        rows = sum(sum(each.values()) for each in both.values())
        notice_once(
            f"data: {len(both)} {split} text(s) have several labels ({rows} of {len(items)} texts); the first is "
            f"{shown!r} with {', '.join(map(repr, counts))}"
        )
