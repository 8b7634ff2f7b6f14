"""The recordings of each split: files that were listed, opened, and the embedded sample's notes."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from domains.audio import sample
from domains.audio.files import ArrayClip, Clip, FileClip, open_clips
from domains.audio.listing import Item, check_choice, choose, label_of
from suite.console import notice
from suite.errors import DataError, gather
from suite.splits import ALL, SPLITS, Division, Splits

_SAMPLE_MINUTES = {"val": 0.4, "test": 0.8}


class Recording(NamedTuple):
    """A clip and its ``conditions``, a value for each name."""

    clip: Clip
    conditions: dict[str, str]
    group: str | None = None
    split: str | None = None

    @property
    def label(self) -> str:
        return label_of(self.conditions)


class Choice(NamedTuple):
    """Which files are taken: those with the values ``only``, none with ``leave_out``, ``most`` of each combination."""

    only: dict[str, str]
    leave_out: dict[str, str]
    most: int | None


def sample_recordings(division: Division, *, minutes: float) -> Splits[Recording]:
    """The synthesiser's notes with their ``instrument`` and ``pitch``; training has so many ``minutes`` of them."""

    def read(split: str) -> list[Recording]:
        notes = sample.generate(split, minutes=minutes if split == "train" else _SAMPLE_MINUTES[split])
        return [
            Recording(
                ArrayClip(note.samples, name=f"{split}-{number:04d}-{note.instrument}-{note.pitch}", rate=sample.RATE),
                {"instrument": note.instrument, "pitch": note.pitch},
            )
            for number, note in enumerate(notes)
        ]

    return Splits(read, own=SPLITS, division=division, name="dataset sample")


class FileRecordings:
    """Files of each split, opened once.

    Args:
        read: the files that are given for train, or for another split by itself.
        own: the splits that are.
        division: of the rest.
        name: of the data set, in messages.
        choice: which files are taken.
        rate: hertz.
    """

    def __init__(
        self,
        read: Callable[[str], list[Item]],
        *,
        own: Sequence[str],
        division: Division,
        name: str,
        choice: Choice,
        rate: int,
    ) -> None:
        self.parts = Splits(read, own=own, division=division, name=name, key=lambda item: os.path.normpath(item.path))
        self.choice, self.rate = choice, rate
        self._opened: dict[str, list[Recording]] = {}

    def items(self, split: str) -> list[Recording]:
        """The recordings of a split.

        Raises:
            UsageError: no such split; a choice of something that no file has.
            DataError: no files are left, or some cannot be read.
        """
        self.open([split])
        return self._opened[split]

    def open(self, splits: Sequence[str]) -> None:
        """Look at the files of all these splits before any is used.

        Raises:
            As ``items``, with what is wrong with the files of all of them at once.
        """
        opened: dict[str, tuple[list[Item], list[FileClip]]] = {}
        problems: list[str] = []
        for split in splits:
            if split not in self._opened:
                items = self._chosen(split)
                clips, bad = open_clips([item.path for item in items], rate=self.rate)
                opened[split] = (items, clips)
                problems += bad
        gather(problems, limit=20)
        for split, (items, clips) in opened.items():
            self._say_rates(clips, split)
            self._opened[split] = [Recording(clip, item.conditions) for clip, item in zip(clips, items, strict=True)]

    def _chosen(self, split: str) -> list[Item]:
        only, leave_out, most = self.choice
        if only or leave_out:
            check_choice(self.parts.items(ALL), [*only.items(), *leave_out.items()])
        items = self.parts.items(split)
        chosen = choose(items, only=only, leave_out=leave_out, most=most if split == "train" else None)
        if not chosen:
            raise DataError(f"the {split} split has no files left after data.only and data.leave_out")
        return chosen

    def _say_rates(self, clips: Sequence[FileClip], split: str) -> None:
        others = Counter(clip.own_rate for clip in clips if clip.own_rate != self.rate)
        if others:
            rates = ", ".join(f"{count} at {own} Hz" for own, count in sorted(others.items()))
            notice(f"data: of {len(clips)} files in {split}, {rates} are resampled to {self.rate} Hz")
