"""Running text for language models: the embedded sample, corpora by name, files of one's own."""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy
from numpy.typing import NDArray
from torch import Tensor

from domains.text import corpora, sample
from domains.text.tokens import VocabularyConfig, encode_texts
from suite.console import notice_once
from suite.data import Examples
from suite.effects import NEW_ASSETS, Declared, a_table, held_out_share, is_set, one_of
from suite.errors import DataError, UsageError
from suite.fingerprints import Fingerprint, fingerprint_documents
from suite.flat import FlatSequences, Ids, pad_ids
from suite.folds import fold_parts, hold_out_parts
from suite.inputs import InputColumns
from suite.sources import is_table, read_lines, read_table
from suite.splits import SPLITS, check_sources
from suite.stream import Chunk, ChunkKey, Chunks, StreamDataModule
from suite.vocabulary import EOS, PAD, Tokenizer


class StreamBatch(NamedTuple):
    """B chunks of text: ``tokens (B, T+1)``, of which the last ``lengths (B,)`` are predicted; see ``suite.stream``.

    ``indices`` are -1 for rows in which nothing is left. In prediction a row is EOS and a text to continue.
    """

    tokens: Tensor
    lengths: Tensor
    indices: list[int]
    begins: bool
    inputs: list[str]


class StreamItem(NamedTuple):
    """One chunk."""

    number: int
    ids: Ids
    begins: bool
    text: str


class TokenStream:
    """Documents one after the other, each ending in EOS (a text without documents has no end), cut into chunks."""

    def __init__(self, ids: Ids, *, tokenizer: Tokenizer, chunk_length: int, seed: int | None) -> None:
        self.ids = numpy.concatenate([numpy.array([EOS], numpy.int32), ids])  # what the first token is predicted from
        self.tokenizer = tokenizer
        self.chunks = Chunks(len(ids), chunk_length=chunk_length, seed=seed)
        self.lengths: NDArray[numpy.int64] = self.chunks.lengths
        self.training = seed is not None

    def fetch(self, index: int, seed: int) -> StreamItem:
        """A chunk by itself, as cut in the first epoch."""
        return self.fetch_chunk(self.chunks.at(ChunkKey(0, index, True)))

    def fetch_chunk(self, chunk: Chunk) -> StreamItem:
        """The tokens of a chunk and the one before; none at all where nothing is left."""
        if chunk.start == chunk.stop:
            return StreamItem(-1, self.ids[:0], chunk.begins, "")
        ids = self.ids[chunk.start : chunk.stop + 1]
        text = "" if self.training else self.tokenizer.decode(ids[1:].tolist()).strip(" ")
        return StreamItem(chunk.number, ids, chunk.begins, text)


class Prompts:
    """Texts to continue, each after an EOS: the beginning of a document."""

    def __init__(self, ids: FlatSequences, texts: Sequence[str]) -> None:
        self.ids, self.texts = ids, list(texts)
        self.lengths: NDArray[numpy.int64] = ids.lengths

    def fetch(self, index: int, seed: int) -> StreamItem:
        """EOS and the text's tokens."""
        return StreamItem(index, self.ids[index], True, self.texts[index])


class LanguageData(StreamDataModule):
    """Running text in parallel tracks.

    Args:
        dataset: The embedded sample; tinyshakespeare; reviews (SST-2's training sentences and CR) or
            news_and_wiki (AG News's training subset and WikiText-2's valid part), both without what shares text with
            SST-2's val and test (all in SUITE_DATA_DIR, or downloaded, but for AG News); or files of your own.
        train: With dataset files: text files (.txt, a document a line; with characters as tokens a file is one
            document), or tables.
        val: Likewise; taken from the training documents by held_out if not given.
        test: Likewise.
        text_column: Column of a table that holds the text.
        delimiter: Character between the fields of .csv and .tsv files, if it is another than usual; fields may then be
            in quotes.
        held_out: Share of the training text for each of val and test that is not there; with folds of val alone.
        folds: Cut the training documents into so many folds; test is one of them (scripts/crossvalidate.py does all).
        fold: Which, from 0.
        sample_size: Reviews of the embedded sample in training; 10,000 if not given.
        vocabulary: How text becomes tokens.
        chunk_length: Tokens that back-propagation goes through; the state is carried on.
        batch_size: Tracks of one process: chunks of text that are read side by side.
        eval_tracks: Tracks of all processes together in evaluation; each begins without context.
        num_workers: Processes that load data.
    """

    trained_settings: ClassVar[frozenset[str]] = frozenset({"held_out", "folds", "fold", "vocabulary", "sample_size"})

    only_with: ClassVar[Declared] = {
        "text_column": a_table(is_table),
        "held_out": held_out_share("sample"),
        "fold": is_set("folds"),
        "sample_size": one_of("dataset", "sample"),
        **dict.fromkeys(("vocabulary.size", "vocabulary.lowercase", "vocabulary.min_frequency"), NEW_ASSETS),
    }

    def __init__(
        self,
        *,
        dataset: Literal["sample", "tinyshakespeare", "reviews", "news_and_wiki", "files"] = "sample",
        train: list[str] | str | None = None,
        val: list[str] | str | None = None,
        test: list[str] | str | None = None,
        text_column: str = "text",
        delimiter: str | None = None,
        held_out: float = 0.05,
        folds: int | None = None,
        fold: int = 0,
        sample_size: int | None = None,
        vocabulary: VocabularyConfig = VocabularyConfig(),
        chunk_length: int = 64,
        batch_size: int = 32,
        eval_tracks: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, eval_tracks=eval_tracks, num_workers=num_workers, seed=seed, assets=assets
        )
        given = {"train": train, "val": val, "test": test}
        self.files = {name: [files] if isinstance(files, str) else files for name, files in given.items()}
        self.dataset, self.held_out = dataset, held_out
        self.text_column, self.delimiter = text_column, delimiter
        self.folds, self.fold = folds, fold
        self.sample_size, self.vocabulary, self.chunk_length = sample_size, vocabulary, chunk_length
        self._documents: dict[str, list[str]] = {}
        self._tokenizer: Tokenizer | None = None
        form = "text files or tables"
        check_sources(dataset, self.files, folds=folds, has_assets=assets is not None, form=form, delimiter=delimiter)
        if sample_size is not None and sample_size < 1:
            raise UsageError(f"data.sample_size is {sample_size}, allowed is 1 or more")
        if chunk_length < 1:
            raise UsageError(f"data.chunk_length is {chunk_length}, allowed is 1 or more")

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, from the training text or a checkpoint."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_state(self.assets["tokenizer"])
        return self._tokenizer

    def make_assets(self) -> dict[str, Any]:
        return {"tokenizer": self.vocabulary.train(self.documents("train")).state()}

    def load(self, split: str) -> TokenStream:
        documents = self.documents(split)
        ids = encode_texts(self.tokenizer, documents).ids.ids
        if len(documents) == 1:
            ids = ids[:-1]  # a single text has no end that could be learnt
        if not len(ids):
            raise DataError(f"the {split} text has no tokens")
        seed = self.seed if split == "train" else None
        return TokenStream(ids, tokenizer=self.tokenizer, chunk_length=self.chunk_length, seed=seed)

    @property
    def input_columns(self) -> InputColumns:
        return InputColumns([self.text_column], "data.text_column", self.delimiter)

    def load_inputs(self, inputs: Sequence[str]) -> Examples:
        rows = self.tokenizer.encode_batch(inputs)
        return Prompts(FlatSequences.pack([EOS, *ids] for ids in rows), inputs)

    def take_fingerprint(self, split: str) -> Fingerprint:
        return fingerprint_documents(self.documents(split))

    def earlier_fingerprint(self) -> str:
        digest = hashlib.sha256()
        for text in self.documents("train"):
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()

    def documents(self, split: str) -> list[str]:
        """The documents of a split as they stand in the data.

        Raises:
            UsageError: no such split.
            DataError: a file that cannot be read.
        """
        if split not in SPLITS:
            raise UsageError(f"--data.split {split}: dataset {self.dataset} has {', '.join(SPLITS)}")
        if split not in self._documents:
            files = self.files[split]
            if self.dataset == "sample" and self.folds is None:
                self._documents[split] = self._sample(split)
            elif split != "train" and files:
                self._documents[split] = self._read(files)
            else:
                self._cut(self._whole())
        return self._documents[split]

    def _sample(self, split: str) -> list[str]:
        size = self.sample_size if split == "train" else None
        return [text for text, _ in sample.generate(split, size=size)]

    def _whole(self) -> list[str]:
        """The training documents before anything is taken from them."""
        if self.dataset == "sample":
            return self._sample("train")
        if self.dataset != "files":
            return corpora.documents(self.dataset)
        files = self.files["train"]
        if not files:
            raise DataError("data.train is needed: what is missing is taken from it")
        return self._read(files)

    def _read(self, files: list[str]) -> list[str]:
        documents: list[str] = []
        for file in files:
            if not is_table(file) and self.vocabulary.level == "char":
                documents.append("\n".join(read_lines(file)) + "\n")
                continue
            texts = self._texts(file)
            filled = [text for text in texts if text.strip()]
            if len(filled) < len(texts):
                notice_once(f"data: {file}: {len(texts) - len(filled)} of {len(texts)} texts are empty and left out")
            documents += filled
        return documents

    def _texts(self, file: str) -> list[str]:
        """The rows of a table, or the lines of a text file."""
        if not is_table(file):
            return read_lines(file)
        flags = {self.text_column: "--data.text_column"}
        rows = read_table(file, columns=[self.text_column], delimiter=self.delimiter, flags=flags)
        return [row[0] for row in rows]

    def _cut(self, documents: list[str]) -> None:
        """Take what is missing from the training documents: some of them, or the end of each where a file is one."""
        missing = [split for split in ("val", "test") if not self.files[split]]
        tables = any(map(is_table, self.files["train"] or ()))
        files = self.dataset == "files" and self.vocabulary.level == "char" and not tables
        if self.folds is not None:
            self._cut_fold(documents, texts=len(documents) == 1 or files)
            return
        if len(documents) == 1 or files:
            kept = [part for document in documents for part in self._cut_text(document, missing)]
        else:
            labels = [""] * len(documents)
            parts = hold_out_parts(labels, missing=missing, held_out=self.held_out, seed=self.seed)
            for split in missing:
                self._documents[split] = [documents[index] for index in getattr(parts, split)]
            kept = [documents[index] for index in parts.train]
        self._documents["train"] = kept

    def _cut_fold(self, documents: list[str], *, texts: bool) -> None:
        if texts:
            raise UsageError("data.folds: a fold is made of whole documents, and this is running text: leave it out")
        parts = fold_parts(
            [""] * len(documents), folds=self.folds or 0, fold=self.fold, seed=self.seed, held_out=self.held_out
        )
        for split, part in zip(SPLITS, parts, strict=True):
            self._documents[split] = [documents[index] for index in part]

    def _cut_text(self, text: str, missing: list[str]) -> list[str]:
        if not 0 < self.held_out * len(missing) < 1 and missing:
            raise UsageError(f"data.held_out is {self.held_out}, allowed is more than 0, less than {1 / len(missing)}")
        share = round(len(text) * self.held_out)
        end = len(text) - share * len(missing)
        for place, split in enumerate(missing):
            part = text[end + place * share : end + (place + 1) * share]
            self._documents.setdefault(split, []).append(part)
        return [text[:end]]

    def collate(self, examples: list[StreamItem]) -> StreamBatch:
        # In the last batch of an epoch a process may have nothing but empty rows: they are a step wide.
        tokens, lengths = pad_ids([each.ids for each in examples], value=PAD, width=2)
        numbers, inputs = [each.number for each in examples], [each.text for each in examples]
        return StreamBatch(tokens, (lengths - 1).clamp_min(0), numbers, examples[0].begins, inputs)
