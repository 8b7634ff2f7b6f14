"""Waveforms: the embedded sample, own folders and manifests, Free Spoken Digits, LJ Speech."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from domains.audio import sample
from domains.audio.fingerprints import fingerprint_recordings
from domains.audio.listing import CONDITIONS, Item, list_items, list_named
from domains.audio.mel import MelConfig
from domains.audio.recordings import Choice, Recording, Recordings, file_recordings, sample_recordings
from domains.audio.requests import GenerationBatch, Request, RequestExamples, add_arguments, read_requests
from domains.audio.windows import WaveExamples, Window
from suite.console import notice
from suite.data import Examples, SuiteDataModule
from suite.effects import Declared, a_table, held_out_share, is_set, one_of
from suite.errors import DataError, UsageError
from suite.fingerprints import Fingerprint
from suite.labels import clean_name
from suite.listing import ListingColumns
from suite.mu_law import silence
from suite.sequence import pad_sequences
from suite.sources import is_table
from suite.splits import SPLITS, Division, check_sources


class WaveBatch(NamedTuple):
    """B windows of T steps at most.

    ``codes (B, T+1)`` are mu-law classes, the first of which is only seen; of the ``lengths (B,)`` steps that follow
    the first ``contexts (B,)`` are not scored. ``conditions (B, K)`` are classes, ``local (B, M, F)`` spectrum frames.
    """

    codes: Tensor
    lengths: Tensor
    contexts: Tensor
    conditions: Tensor
    local: Tensor | None
    indices: list[int]
    names: list[str]


class AudioData(SuiteDataModule):
    """Windows of waveforms, read from their files by seeking.

    Args:
        dataset: The embedded sample (a synthesiser), Free Spoken Digits (SUITE_DATA_DIR), LJ Speech
            (SUITE_DATA_DIR or a download), or your files.
        train: With dataset files: a folder of wav, flac, ogg or mp3, or a manifest (.csv, .tsv, .jsonl, .parquet).
        val: Likewise, of this split alone; what train has of it, or held_out of its files, if not given.
        test: Likewise.
        path_column: Column of a manifest with the paths, which count from its own folder.
        group_column: Column with a group, if there is one: files of a group never stand on both sides of a split.
        split_column: Column that says train, val or test, if there is one.
        delimiter: Character between the fields of .csv and .tsv files, if it is another than usual; fields may then be
            in quotes.
        conditions: What the model is conditioned on: columns of a manifest, or folder; a named set's own if not given.
        only: Take files with these values alone, such as speaker=jackson.
        leave_out: Leave files with these values out.
        most: Training files for each combination of conditions, at most.
        held_out: Share of the training files for each of val and test that is not given; groups stay whole.
        folds: Cut all files into so many folds; test is one of them (scripts/crossvalidate.py does all).
        fold: Which of the folds is tested, from 0.
        sample_rate: Hertz; files of another rate are resampled.
        sample_minutes: Minutes of training notes in the embedded sample.
        mel: The local condition.
        window: Samples predicted in an example, at most.
        context: Samples before a window that the model sees; as many as its receptive field make figures exact.
        batch_size: Windows in a batch of one process, at most.
        max_tokens: Padded samples in a batch of one process, at most.
        num_workers: Processes that load data.
    """

    trained_settings: ClassVar[frozenset[str]] = frozenset(
        {"held_out", "folds", "fold", "conditions", "sample_rate", "mel", "sample_minutes"}
    )
    prediction_usage: ClassVar[str] = "--seconds 1 --count 4 --output generated"
    prediction_steps: ClassVar[int | None] = None

    only_with: ClassVar[Declared] = {
        **dict.fromkeys(("path_column", "group_column", "split_column"), a_table(is_table)),
        "held_out": held_out_share("sample", "fsdd", "ljspeech"),
        "fold": is_set("folds"),
        "sample_minutes": one_of("dataset", "sample"),
    }

    def __init__(
        self,
        *,
        dataset: Literal["sample", "files", "fsdd", "ljspeech"] = "sample",
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        path_column: str = "path",
        group_column: str | None = "group",
        split_column: str | None = "split",
        delimiter: str | None = None,
        conditions: list[str] | None = None,
        only: list[str] = [],  # noqa: B006 (read only; the command line shows it)
        leave_out: list[str] = [],  # noqa: B006
        most: int | None = None,
        held_out: float = 0.05,
        folds: int | None = None,
        fold: int = 0,
        sample_rate: int = 8000,
        sample_minutes: float = 10.0,
        mel: MelConfig = MelConfig(),
        window: int = 4096,
        context: int = 0,
        batch_size: int | None = 8,
        max_tokens: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, max_tokens=max_tokens, num_workers=num_workers, seed=seed, assets=assets
        )
        self.dataset, self.paths = dataset, {"train": train, "val": val, "test": test}
        form = "a folder or a manifest"
        check_sources(dataset, self.paths, folds=folds, has_assets=assets is not None, form=form, delimiter=delimiter)
        self.most, self.sample_rate, self.sample_minutes, self.mel = most, sample_rate, sample_minutes, mel
        self.window, self.context = window, context
        self.path_column, self.listing = path_column, ListingColumns(group_column, split_column, delimiter)
        self.names = self._condition_names(conditions)
        self._check()
        choice = Choice(pairs_of("data.only", only), pairs_of("data.leave_out", leave_out), most)
        self.recordings = self._recordings(Division(held_out, seed, folds, fold), choice)

    def _recordings(self, division: Division, choice: Choice) -> Recordings:
        if self.dataset == "sample":
            return sample_recordings(minutes=self.sample_minutes, division=division, choice=choice)
        own = [split for split, path in self.paths.items() if path] if self.dataset == "files" else ["train"]
        name = f"dataset {self.dataset}"
        return file_recordings(self._list, own=own, division=division, name=name, choice=choice, rate=self.sample_rate)

    def _list(self, split: str) -> list[Item]:
        path = self.paths[split]
        if path is None:
            return list_named(self.dataset)
        return list_items(path, conditions=self.names, path_column=self.path_column, listing=self.listing)

    def _condition_names(self, given: list[str] | None) -> list[str]:
        given = None if given is None else [clean_name(name) for name in given]
        if self.dataset == "files":
            return given or []
        names = list(CONDITIONS[self.dataset]) if given is None else given
        unknown = [name for name in names if name not in CONDITIONS[self.dataset]]
        if unknown:
            there = ", ".join(CONDITIONS[self.dataset]) or "none"
            raise UsageError(f"data.conditions {', '.join(unknown)}: dataset {self.dataset} has {there}")
        return names

    def _check(self) -> None:
        if self.dataset == "sample" and self.sample_rate != sample.RATE:
            raise UsageError(f"data.sample_rate is {self.sample_rate}; the embedded sample is at {sample.RATE}")
        limits = {"window": self.window, "sample_rate": self.sample_rate, "most": self.most or 1}
        for name, value in {**limits, "context": self.context + 1}.items():
            if value < 1:
                raise UsageError(f"data.{name} is {getattr(self, name)}: too small")
        if self.sample_minutes <= 0:
            raise UsageError(f"data.sample_minutes is {self.sample_minutes}, allowed is more than 0")
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"data.conditions are {self.names}: each may stand there once")
        self.mel.check()
        if self.mel.bands and self.window % self.mel.hop:
            raise UsageError(
                f"data.window is {self.window}: with a spectrum it must be a multiple of data.mel.hop, {self.mel.hop}"
            )

    def make_assets(self) -> dict[str, Any]:
        if self.dataset == "sample":  # all there are, also where a short sample does not have them
            every = {"instrument": list(sample.INSTRUMENTS), "pitch": [str(each) for each in sample.PITCHES]}
            return self._assets_with({name: every[name] for name in self.names})
        self.recordings.open(SPLITS)  # what is wrong with any file is said before there is a run
        found = {
            name: sorted({recording.conditions[name] for recording in self.items("train")}, key=_natural)
            for name in self.names
        }
        for name, values in found.items():
            if len(values) == 1:
                notice(f"data: {name} is {values[0]} in every training file: it tells nothing apart here")
        return self._assets_with(found)

    def _assets_with(self, found: dict[str, list[str]]) -> dict[str, Any]:
        mel = {"bands": self.mel.bands, "hop": self.mel.hop, "window": self.mel.window} if self.mel.bands else None
        return {"sample_rate": self.sample_rate, "classes": 256, "conditions": found, "mel": mel}

    def load(self, split: str) -> WaveExamples:
        assets = self.assets
        return WaveExamples(
            self._known(self.items(split), split),
            conditions=assets["conditions"],
            size=self.window,
            context=self.context,
            shift=split == "train",
            classes=assets["classes"],
            mel=self.mel if self.mel.bands else None,
        )

    def _known(self, recordings: list[Recording], split: str) -> list[Recording]:
        """The recordings, with only values that the model knows.

        Raises:
            DataError: another value, with those that are allowed.
        """
        recordings = [self._as_trained(each) for each in recordings]
        for name, allowed in self.assets["conditions"].items():
            there = {each.conditions[name] for each in recordings}
            others = sorted(there - set(allowed), key=_natural)
            if others:
                raise DataError(
                    f"the {split} split has {name} {', '.join(others[:8])}, which the model does not know; allowed: "
                    f"{', '.join(allowed)}; leave such files out (--data.leave_out), or finetune to them"
                )
            absent = [each for each in allowed if each not in there]
            if split != "train" and self.dataset == "files" and absent:
                shown = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
                notice(f"data: the {split} split has no file of {name} {shown}: no figure of its own")
        return recordings

    def _as_trained(self, recording: Recording) -> Recording:
        """With values as the model has them: those of older checkpoints are not in their clean form."""
        spelt = {
            name: {clean_name(value): value for value in reversed(allowed)} | {value: value for value in allowed}
            for name, allowed in self.assets["conditions"].items()
        }
        found = {name: spelt.get(name, {}).get(value, value) for name, value in recording.conditions.items()}
        return recording._replace(conditions=found)

    def items(self, split: str) -> list[Recording]:
        """The recordings of a split, or of all.

        Raises:
            UsageError: no such split.
            DataError: files that cannot be read or divided.
        """
        return self.recordings.items(split)

    def take_fingerprint(self, split: str) -> Fingerprint:
        return fingerprint_recordings(self.items(split))

    def earlier_fingerprint(self) -> str:
        return self._digest(whole=self.dataset == "files")  # the folder of a named set may be moved

    def is_known_as(self, fingerprint: str) -> bool:
        # Whole paths counted for named sets too once.
        return super().is_known_as(fingerprint) or fingerprint == self._digest(whole=True)

    def _digest(self, *, whole: bool) -> str:
        """Of the training files' beginnings, lengths and conditions, with their ``whole`` paths or their names."""
        digest = hashlib.sha256()
        for recording in self.items("train"):
            clip = recording.clip
            name = clip.name if whole else os.path.basename(clip.name)
            ends = clip.read(0, min(256, clip.frames)).tobytes()
            digest.update(repr((name, clip.frames, sorted(recording.conditions.items()))).encode() + ends)
        return digest.hexdigest()

    def collate(self, examples: list[Any]) -> WaveBatch | GenerationBatch:
        if isinstance(examples[0], Request):
            return GenerationBatch(examples)
        windows: list[Window] = examples
        quiet = silence(self.assets["classes"])
        codes, lengths = pad_sequences([window.codes for window in windows], value=quiet)
        frames = [window.local for window in windows if window.local is not None]
        local = None
        if frames:
            local = pad_sequences([part.t() for part in frames])[0].transpose(1, 2)
        return WaveBatch(
            codes,
            lengths - 1,
            torch.tensor([window.context for window in windows]),
            torch.tensor([window.conditions for window in windows], dtype=torch.long).view(len(windows), -1),
            local,
            [window.number for window in windows],
            [window.name for window in windows],
        )

    @classmethod
    def add_prediction_arguments(cls, parser: Any) -> None:
        add_arguments(parser)

    def prediction_inputs(self, options: Any, *, processes: int) -> Sequence[Request]:
        """One request for each file to generate.

        Raises:
            UsageError: conditions that the model does not have, or settings that mean nothing.
            DataError: files that cannot be read, or an output folder that cannot be made.
        """
        self.batch_size, self.max_tokens = options.streams, None
        return read_requests(options, self.assets)

    def load_inputs(self, inputs: Sequence[Any]) -> Examples:
        return RequestExamples(inputs)


def pairs_of(flag: str, given: Sequence[str]) -> dict[str, str]:
    """``name=value`` texts as a dictionary.

    Raises:
        UsageError: a text of another form, or a name twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value or name in found:
            raise UsageError(f"{flag} {text}: allowed are NAME=VALUE, each name once")
        found[name] = value
    return {clean_name(name): clean_name(value) for name, value in found.items()}


def _natural(value: str) -> tuple[int, int, str]:
    """Whole numbers in their order, ahead of words."""
    return (0, int(value), value) if value.isdigit() and len(value) < 10 else (1, 0, value)
