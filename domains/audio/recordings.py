"""The recordings of each split: files that were listed, opened, and the embedded sample's notes."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from domains.audio import sample
from domains.audio.checking import find_faults
from domains.audio.files import ArrayClip, Clip, FileClip, open_clips
from domains.audio.listing import Item, check_choice, choose
from suite.console import notice
from suite.errors import DataError, gather
from suite.splits import ALL, SPLITS, Division, Splits

_SAMPLE_MINUTES = {"val": 0.4, "test": 0.8}


class Recording(NamedTuple):
    """A clip and its ``conditions``, a value for each name."""

    clip: Clip
    conditions: dict[str, str]


class Choice(NamedTuple):
    """Which items are taken: those with the values ``only``, none with ``leave_out``, ``most`` of each combination."""

    only: dict[str, str]
    leave_out: dict[str, str]
    most: int | None


class Recordings:
    """The items of each split that are chosen, opened once.

    Args:
        parts: the items.
        open_items: them as clips, and what is wrong with those that cannot be one.
        choice: which of them are taken.
    """

    def __init__(
        self,
        parts: Splits[Item],
        open_items: Callable[[Sequence[Item]], tuple[Sequence[Clip], list[str]]],
        *,
        choice: Choice,
    ) -> None:
        self.parts, self.open_items, self.choice = parts, open_items, choice
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
        """Look at the items of all these splits before any is used.

        Raises:
            As ``items``, with what is wrong with the files of all of them at once.
        """
        opened: dict[str, tuple[list[Item], Sequence[Clip]]] = {}
        problems: list[str] = []
        for split in splits:
            if split not in self._opened:
                items = self._chosen(split)
                clips, bad = self.open_items(items)
                opened[split] = (items, clips)
                # All of it is read anyway, but windows of training somewhere in the first epoch, and test when there
                # is nothing left to train: a fault that shows in samples alone is looked for now.
                problems += bad + find_faults(clips, split)
        gather(problems, limit=20)
        for split, (items, clips) in opened.items():
            _say_rates(clips, split)
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


def file_recordings(
    read: Callable[[str], list[Item]], *, own: Sequence[str], division: Division, name: str, choice: Choice, rate: int
) -> Recordings:
    """Files at ``rate`` hertz; see ``Splits`` for the rest."""
    parts = Splits(read, own=own, division=division, name=name, key=lambda item: os.path.realpath(item.path))
    return Recordings(parts, lambda items: open_clips([item.path for item in items], rate=rate), choice=choice)


def sample_recordings(*, minutes: float, division: Division, choice: Choice) -> Recordings:
    """The synthesiser's notes with their ``instrument`` and ``pitch``; training has so many ``minutes`` of them."""
    clips: dict[Path, Clip] = {}

    def read(split: str) -> list[Item]:
        items = []
        for number, note in enumerate(
            sample.generate(split, minutes=minutes if split == "train" else _SAMPLE_MINUTES[split])
        ):
            name = f"{split}-{number:04d}-{note.instrument}-{note.pitch}"
            items.append(Item(Path(name), {"instrument": note.instrument, "pitch": note.pitch}))
            clips[items[-1].path] = ArrayClip(note.samples, name=name, rate=sample.RATE)
        return items

    parts = Splits(read, own=SPLITS, division=division, name="dataset sample")
    return Recordings(parts, lambda items: ([clips[item.path] for item in items], []), choice=choice)


def _say_rates(clips: Sequence[Clip], split: str) -> None:
    others = Counter(clip.own_rate for clip in clips if isinstance(clip, FileClip) and clip.own_rate != clip.rate)
    if others:
        rates = ", ".join(f"{count} at {own} Hz" for own, count in sorted(others.items()))
        notice(f"data: of {len(clips)} files in {split}, {rates} are resampled to {clips[0].rate} Hz")
