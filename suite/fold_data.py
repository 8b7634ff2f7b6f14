"""The data of the folds of a cross-validation: all of them have to be cut from the same rows in the same order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from suite import run_folder
from suite.checkpoint import RECORD_KEY, read
from suite.console import notice
from suite.data import SuiteDataModule
from suite.errors import CheckpointError, DataError
from suite.fingerprints import Fingerprint, difference
from suite.splits import ALL, SPLITS
from suite.trained_data import TrainedData

Summary = dict[str, dict[str, Any]]


def summarise_data(splits: dict[str, Fingerprint]) -> Summary:
    """Count, digest and sum of rows of each split. Sums tell whether several splits together are the whole."""
    return {
        name: {
            "count": len(split.rows),
            "sha256": split.sha256,
            "sum": int(split.rows.sum(dtype=numpy.int64)),
            "unit": split.unit,
        }
        for name, split in splits.items()
    }


def read_trained(folder: Path) -> TrainedData | None:
    """The data of a fold's run; ``None`` if its checkpoints are gone."""
    try:
        path = run_folder.newest_checkpoint(folder)
        return TrainedData.of(read(path, mmap=True)[RECORD_KEY], path)
    except (CheckpointError, OSError):
        return None


def refuse_other_folds(folds: Sequence[dict[str, Any]], *, complete: int, where: str) -> None:
    """Refuse to put together folds that were cut from different data.

    Args:
        folds: the entries of finished folds, with their ``data``.
        complete: how many folds there are in the end: all together, each row is tested once.
        where: the file of results.

    Raises:
        DataError: naming the fold that differs.
    """
    # Examples of a domain without fingerprints of its own may be augmented in training, so they differ between folds.
    known = [each for each in folds if each.get("data") and each["data"]["test"]["unit"] != "examples"]
    if not known:
        return
    first = _whole(known[0]["data"])
    for each in known[1:]:
        if _whole(each["data"]) != first:
            raise DataError(
                f"{where}: fold {each['fold']} was trained on other data ({_whole(each['data'])[0]:,} rows) than fold "
                f"{known[0]['fold']} ({first[0]:,} rows): the data changed meanwhile; choose another --name"
            )
    tested = _total([each["data"]["test"] for each in known])
    if len(known) == complete and tested != first:
        raise DataError(
            f"{where}: the folds do not test each row once, because the order of the data changed meanwhile: choose "
            "another --name"
        )


def _whole(data: Summary) -> tuple[int, int]:
    return _total([data[name] for name in SPLITS])


def _total(parts: Sequence[dict[str, Any]]) -> tuple[int, int]:
    return sum(part["count"] for part in parts), sum(part["sum"] for part in parts) % 2**64


def refuse_changed_folds(fold: dict[str, Any], data: SuiteDataModule, *, folder: Path, where: str) -> None:
    """Compare the data of a finished fold with the same fold of the data that there are now.

    Args:
        fold: the entry of the finished fold.
        data: the data module of this fold.
        folder: its run folder.
        where: the file of results.

    Raises:
        DataError: what changed.
    """
    trained = read_trained(folder)
    before = fold.get("data") or (summarise_data(trained.splits) if trained and trained.splits else None)
    if before is None:
        notice(f"{where}: the finished folds have no fingerprint of their data: whether it changed is not known")
        return
    now = {name: data.fingerprint_of(name) for name in SPLITS}
    after = summarise_data(now)
    if all(before[name]["sha256"] == after[name]["sha256"] for name in SPLITS):
        return
    whole = trained.known(ALL) if trained else None
    what = f"{_whole(before)[0]:,} rows then, {_whole(after)[0]:,} now"
    if whole is not None:
        found = difference(whole, now["train"].joined([now["val"], now["test"]]))
        what = "the same rows in another order" if found.same_items else found.describe()
    raise DataError(
        f"{where}: the data changed since fold {fold['fold']} was trained ({what}): restore them, or choose another "
        "--name"
    )
