"""A manifest of files to generate: a row a file, with columns for conditions and for what else differs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from suite.console import notice
from suite.errors import DataError
from suite.labels import clean_name
from suite.sources import columns_of, read_table

_COLUMNS = ("seconds", "seed", "output", "prime", "mel_from")


class Wish(NamedTuple):
    """One file to generate, as it was asked for; ``None`` for what was not said.

    ``problem`` is what is wrong with a row, which must not stop the others.
    """

    conditions: dict[str, str]
    seconds: float | None = None
    seed: int | None = None
    output: str | None = None
    prime: Path | None = None
    mel_from: Path | None = None
    problem: str | None = None


def read_wishes(path: Path, *, conditions: Sequence[str]) -> list[Wish]:
    """The rows of a manifest; an empty cell is as good as none. Paths count from the folder of the manifest.

    Columns that are neither a condition of the model nor one of seconds, seed, output, prime and mel_from are reported.

    Raises:
        DataError: a table that cannot be read, or without any column that says something.
    """
    present = columns_of(path)
    meant = {column: clean_name(column) for column in present}
    used = [column for column in present if meant[column] in (*conditions, *_COLUMNS)]
    known = ", ".join((*conditions, *_COLUMNS))
    if not used:
        raise DataError(f"{path}: its columns are {', '.join(present) or 'unknown'}; at least one of {known} is needed")
    others = [column for column in present if column not in used]
    if others:
        notice(f"predict: {path}: columns without a use are left out: {', '.join(others)} (known: {known})")
    names = [meant[column] for column in used]
    rows = read_table(path, columns=used)
    return [
        _wish(path, number, dict(zip(names, map(clean_name, row), strict=True)), conditions)
        for number, row in enumerate(rows, start=1)
    ]


def _wish(path: Path, number: int, row: dict[str, str], conditions: Sequence[str]) -> Wish:
    said = {name: value for name, value in row.items() if value}
    given = {name: said[name] for name in conditions if name in said}
    where = f"{path}, row {number}"
    try:
        seconds = _number(said["seconds"], f"{where}: seconds") if "seconds" in said else None
        seed = int(said["seed"]) if "seed" in said else None
    except ValueError as error:
        problem = str(error) if isinstance(error, DataError) else f"{where}: seed is {said['seed']!r}, not an integer"
        return Wish(given, problem=problem)
    prime, mel_from = (
        path.parent / Path(said[name]).expanduser() if name in said else None for name in ("prime", "mel_from")
    )
    return Wish(given, seconds, seed, said.get("output"), prime, mel_from)


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{name} is {text!r}, not a number")
    return value
