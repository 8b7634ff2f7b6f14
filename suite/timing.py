"""Ratios, not seconds: things to compare are run in turns, so that a busy machine slows each of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One measured ratio: what, the time of each side in seconds, their ratio, and the bar it has to meet."""

    name: str
    ours: float
    reference: float
    ratio: float
    bar: str
    met: bool
    note: str = ""


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 2,
    tidy: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each call, ``rounds`` times each, taken in turns after ``warm_up`` rounds.

    ``tidy`` is called after each call and not timed.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm_up + rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds = time.perf_counter() - begin
            if turn >= warm_up:
                times[name].append(seconds)
            if tidy is not None:
                tidy()
    return times


def compare(name: str, times: Mapping[str, list[float]], *, bar: float, note: str = "") -> Row:
    """A row from the medians of ``ours`` and ``reference``; the bar is the highest ratio allowed."""
    ours, reference = statistics.median(times["ours"]), statistics.median(times["reference"])
    return Row(name, ours, reference, ours / reference, f"<= {bar:g}", ours / reference <= bar, note)


def table(rows: list[Row]) -> list[str]:
    """Rows as Markdown."""
    lines = ["| what | ours | reference | ratio | bar | met |", "|---|---:|---:|---:|---|---|"]
    for row in rows:
        what = f"{row.name} ({row.note})" if row.note else row.name
        shown = f"{_seconds(row.ours)} | {_seconds(row.reference)} | {row.ratio:.2f}"
        lines.append(f"| {what} | {shown} | {row.bar} | {'yes' if row.met else 'no'} |")
    return lines


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 10 else f"{value:.1f} s"
