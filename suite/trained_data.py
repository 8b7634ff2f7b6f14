"""What a checkpoint knows of the data that it was trained with, and what a later command may do with other data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from suite.console import notice
from suite.data import SuiteDataModule
from suite.errors import CheckpointError, SuiteError
from suite.fingerprints import Difference, Fingerprint, Rows, difference
from suite.splits import ALL, SPLITS

DATA_KEY = "data"
"""Where a checkpoint's record has the fingerprints of its splits."""
# Settings of how data are loaded, which say nothing about what they are.
_LOADING = ("batch_size", "max_tokens", "num_workers", "eval_tracks", "cache")


def make_data_record(data: SuiteDataModule, *, source: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fingerprints of train, val and test as plain data.

    ``source`` is the record of the checkpoint that a fine-tuned model begins with: what that one was trained on is kept
    too.
    """
    record: dict[str, Any] = {"splits": {split: data.fingerprint_of(split).plain() for split in SPLITS}}
    before = _earlier_rows(source or {})
    return record if before is None else {**record, "earlier": torch.from_numpy(before)}


def _earlier_rows(record: Mapping[str, Any]) -> Rows | None:
    """Digests of all that a source and its own sources were trained on."""
    known = record.get(DATA_KEY) or {}
    parts = [known["splits"]["train"]["rows"].numpy()] if known.get("splits", {}).get("train") else []
    parts += [known["earlier"].numpy()] if known.get("earlier") is not None else []
    return numpy.unique(numpy.concatenate(parts)) if parts else None


@dataclass(frozen=True)
class TrainedData:
    """The data of a checkpoint.

    Args:
        path: the checkpoint.
        splits: their fingerprints; none in a checkpoint of an earlier version.
        settings: the data settings that it was trained with.
        earlier: digests of what the sources of a fine-tuned model were trained on.
    """

    path: Path
    splits: dict[str, Fingerprint]
    settings: dict[str, Any]
    earlier: Rows | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any], path: Path) -> "TrainedData":
        """From a checkpoint's record.

        Raises:
            CheckpointError: what it says of its data is not whole.
        """
        known = record.get(DATA_KEY) or {}
        try:
            splits = {name: Fingerprint.from_plain(value) for name, value in known.get("splits", {}).items()}
            earlier = known["earlier"].numpy() if known.get("earlier") is not None else None
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: its fingerprints of the data are not whole ({error!r})") from None
        return cls(path, splits, record["settings"]["data"], earlier)

    def known(self, split: str) -> Fingerprint | None:
        """The fingerprint of a split, or of all splits."""
        if split == ALL and all(name in self.splits for name in SPLITS):
            return self.splits["train"].joined([self.splits["val"], self.splits["test"]])
        return self.splits.get(split)


def refuse_changed(trained: TrainedData, data: SuiteDataModule, *, limited: Collection[str] = ()) -> None:
    """Compare the data of a run with what it began with: the same rows in every split, those of training in order.

    Args:
        trained: what the run's checkpoint knows.
        data: what there is now.
        limited: splits of which only the first batches are used, so that their order matters too.

    Raises:
        CheckpointError: naming the splits that changed, and how.
    """
    if not trained.splits:
        notice(
            f"{trained.path}: an earlier version wrote this checkpoint without fingerprints of val and test: only the "
            "training data are compared"
        )
        return
    problems, found = [], {}
    for split, before in trained.splits.items():
        found[split] = difference(before, data.fingerprint_of(split))
        if not found[split].same_items:
            problems.append(f"{split}: {found[split].describe()}")
        elif found[split].reordered:
            if split == "train" or data.order_matters or split in limited:
                problems.append(f"{split}: {found[split].describe()}")
            else:
                notice(f"data: {split} has the same {before.unit} as before in another order, which changes no metric")
    if problems:
        raise CheckpointError(
            f"the data are not what this run began with ({'; '.join(problems)}): restore them, or begin a new run"
        )


def check_evaluated(
    trained: TrainedData, data: SuiteDataModule, split: str, *, asked: Mapping[str, Any], named: Collection[str]
) -> list[str]:
    """What to report of a split that is evaluated: how much of it the checkpoint was trained on.

    Args:
        trained: what the checkpoint knows.
        data: what there is now.
        split: which is evaluated.
        asked: the data settings of now.
        named: those of them that the command line gives.

    Raises:
        CheckpointError: the split is not the one of training, and nobody asked for another one.
    """
    if not trained.splits:
        notice(
            f"{trained.path}: an earlier version wrote this checkpoint without a fingerprint of its data: whether the "
            "data changed since training is not known"
        )
        return []
    now, then = data.fingerprint_of(split), trained.known(split)
    overlap = _overlap_lines(trained, now, split)
    differing = _differing(trained.settings, asked)
    chosen = [name for name in differing if name not in (*SPLITS, "dataset")]
    if then is not None:
        found = difference(then, now)
        if found.same_items and (not data.order_matters or not found.reordered):
            # Settings that choose other training items say nothing about the source.
            drawn = not chosen and _is_drawn(data, split, asked=asked)
            source = _source_difference(trained, data) if drawn else None
            if source is not None and not source.same_items:
                changed = f"source of the {split} data"
                raise CheckpointError(_wording(trained, changed, source.describe(), asked=asked))
            if found.reordered:
                notice(f"data: {split} has the {now.unit} of training in another order, which changes no metric")
            return overlap if now.count_in(trained.splits["train"].rows) else overlap[1:]
    if _is_other_data(trained, split, asked=asked, named=named):
        return overlap
    if then is None and (split not in SPLITS or not differing):
        return overlap  # a split that only some data sets have, and training does not know
    if then is not None and chosen and not len(difference(then, now).added):
        notice(f"data: {len(now.rows):,} of the {len(then.rows):,} {then.unit} that were {split} in training are taken")
        return overlap
    if split in ("val", "test") and split not in asked and differing and not now.count_in(trained.splits["train"].rows):
        return overlap
    raise CheckpointError(_refusal(trained, data, split, asked=asked, differing=differing))


def _overlap_lines(trained: TrainedData, now: Fingerprint, split: str) -> list[str]:
    what = f"{split} {now.examples}" if split != ALL else now.examples
    what = f"{len(now.rows):,} {what}"
    lines = [
        f"{now.count_in(trained.splits['train'].rows):,} of {what} were training {now.examples} of this checkpoint"
    ]
    if trained.earlier is not None and (count := now.count_in(trained.earlier)):
        lines.append(f"{count:,} of {what} were training {now.examples} of the source that it was fine-tuned from")
    return lines


def _is_other_data(trained: TrainedData, split: str, *, asked: Mapping[str, Any], named: Collection[str]) -> bool:
    """Whether the command line asks for data of its own: another set, or a file that is evaluated as a whole."""
    if asked.get("dataset") != trained.settings.get("dataset"):
        return True
    own = SPLITS if split == ALL else (split,) if split != "train" else ()
    return any(asked.get(name) and (name in named or asked[name] != trained.settings.get(name)) for name in own)


def _is_drawn(data: SuiteDataModule, split: str, *, asked: Mapping[str, Any]) -> bool:
    """Whether a split was taken from the user's own training files, and all of these are compared at little cost."""
    own_files = asked.get("dataset", "files") == "files" and asked.get("train")
    return bool(own_files) and split in ("val", "test") and not asked.get(split) and data.compares_sources


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Settings of what the data are that the command line changed."""
    return [name for name in after if name not in _LOADING and after[name] != before.get(name)]


def _refusal(
    trained: TrainedData, data: SuiteDataModule, split: str, *, asked: Mapping[str, Any], differing: Sequence[str]
) -> str:
    now, then = data.fingerprint_of(split), trained.known(split)
    if then is None:
        what = "training did not have this split"
    elif asked.get(split) and split != "train":
        what = difference(then, now).describe()
    else:
        what = _source_changes(trained, data) or difference(then, now).describe()
    count = now.count_in(trained.splits["train"].rows)
    settings = [f"data.{name} (was {trained.settings.get(name)}, now {asked[name]})" for name in differing]
    because = f"; settings that differ: {', '.join(settings)}" if settings else ""
    drawn = f"; {count:,} of its {len(now.rows):,} {now.examples} were training {now.examples}" if count else ""
    return _wording(trained, f"{split} data", f"{what}{drawn}{because}", asked=asked)


def _wording(trained: TrainedData, part: str, what: str, *, asked: Mapping[str, Any]) -> str:
    more = " --data.dataset files" if asked.get("dataset", "files") != "files" else ""
    other = f", or evaluate other data with{more} --data.test FILE" if "test" in asked else ""
    return f"{trained.path}: the {part} changed since training ({what}): restore what it was trained with{other}"


def _source_changes(trained: TrainedData, data: SuiteDataModule) -> str | None:
    """What became of the source of a held-out split; ``None`` if that cannot be told."""
    found = _source_difference(trained, data)
    if found is None:
        return None
    if found.same_items:
        return f"the same {found.before.unit} in another order or with other labels or groups, so the splits are others"
    return found.describe()


def _source_difference(trained: TrainedData, data: SuiteDataModule) -> Difference | None:
    """What became of all splits together, of which a held-out one is drawn; ``None`` if files of others are missing."""
    before = trained.known(ALL)
    if before is None:
        return None
    try:
        parts = [data.fingerprint_of(name) for name in SPLITS]
    except SuiteError:
        return None
    return difference(before, parts[0].joined(parts[1:]))
