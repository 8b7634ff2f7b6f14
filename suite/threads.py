"""How many CPU threads an operation takes: the number asked for, or the fastest of a short trial on this machine."""

import os
import statistics
import time
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import nn

from suite.console import notice

Threads = PositiveInt | Literal["auto"]
"""A setting: a number, or ``auto``."""
_GAIN = 1.2  # more threads must be so many times as fast: less is soon lost when something else begins to run
_MOST = 16
_ROUNDS = 7
_BATCH, _STEPS, _SIZE = 64, 16, 256  # a recurrent layer as many have it: 30 to 50 ms on one thread


def settle_threads(config: Any) -> None:
    """Put a number in the place of ``auto``, before anything is recorded: a run that goes on has the same number.

    More threads add numbers up in another order, so that the last digits of two runs agree only where their numbers of
    threads do.

    Args:
        config: the settings of ``fit``; ``threads`` is overwritten.
    """
    if config.threads != "auto":
        return
    most = _free_cores(config)
    config.threads = fastest(most) if most > 1 else 1


def fastest(most: int) -> int:
    """The number of threads, at most ``most``, with which a small recurrent layer trains fastest here and now.

    One thread unless more are worth it. Cores that others use too make several threads wait for each other, up to
    hundreds of times longer than the work itself takes: this cannot be known from the number of cores.
    """
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    if counts[-1] != most:
        counts.append(most)
    before = torch.get_num_threads()
    try:
        seconds = _trial(counts)
    finally:
        torch.set_num_threads(before)
    best = 1
    for count in counts[1:]:
        if seconds[count] * _GAIN <= seconds[best]:
            best = count
    if best > 1:
        gain = seconds[1] / seconds[best]
        notice(f"threads: {best}, {gain:.1f} times as fast as one in a short trial; --threads fixes their number")
    return best


def _free_cores(config: Any) -> int:
    """Cores that this process may take for one operation; 1 where several processes share them, or a GPU computes."""
    trainer = config.trainer
    if trainer.accelerator not in ("auto", "cpu") or trainer.devices not in ("auto", 1, "1", [0]):
        return 1
    if trainer.accelerator == "auto" and torch.accelerator.is_available():
        return 1
    if int(trainer.num_nodes) > 1 or any(os.environ.get(name, "1") != "1" for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        cores = min(cores, int(asked))
    return max(1, min(cores - int(config.data.num_workers), _MOST))


def _trial(counts: list[int]) -> dict[int, float]:
    """Seconds of forward and backward pass with each number of threads, in turns: a busy machine slows all alike."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.LSTM(_SIZE, _SIZE)
        inputs = torch.zeros(_STEPS, _BATCH, _SIZE)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for turn in range(_ROUNDS + 1):
        for count in counts:
            torch.set_num_threads(count)
            begin = time.perf_counter()
            layer(inputs)[0].sum().backward()
            if turn:  # the first is a warm-up
                seconds[count].append(time.perf_counter() - begin)
    return {count: statistics.median(each) for count, each in seconds.items()}
