"""How many CPU threads an operation takes: the number asked for, or the fastest of a short trial on this machine."""

import copy
import functools
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from suite.console import notice
from suite.data import SuiteDataModule
from suite.module import SuiteModule

# More threads must be so many times as fast. A trial is of the forward and backward pass alone: loading, optimiser and
# logging gain nothing, and take a core, as others do, that is then missed. With 1.2 a run of 4 minutes became longer.
_GAIN = 1.3
_MOST = 16
_BATCHES = 3
_LEAST, _ROUNDS = 5, 15  # turns of a trial: one alone says nothing, as a machine is quiet now and busy then
_SECONDS, _PATIENCE = 3.0, 30.0  # after how long no further one begins: beyond the least number, and at all
_SUFFERING = 3.0  # times as slow as with one thread: more are not tried


def settle_threads(run: Any, settings: dict[str, Any], *, module: SuiteModule, data: SuiteDataModule) -> None:
    """Put a number in the place of ``auto``, before anything is recorded: a run that goes on has the same number.

    More threads add numbers up in another order, so that the last digits of two runs agree only where their numbers of
    threads do.

    Args:
        run: the instantiated command line of ``fit``; ``threads`` is overwritten.
        settings: the same as plain data; likewise.
        module: what will be trained; it stays as it is.
        data: for a batch of it.
    """
    if run.threads == "auto":
        most = _free_cores(run.trainer, workers=data.num_workers)
        run.threads = settings["threads"] = _find(module, data, run.trainer.precision, most) if most > 1 else 1
    torch.set_num_threads(run.threads)


def _find(module: SuiteModule, data: SuiteDataModule, precision: Any, most: int) -> int:
    with torch.random.fork_rng(devices=[]):  # the run's own draws are the same with a trial and without
        found = fastest(_steps(module, data, precision), most)
    gc.collect()  # the copy of the module refers to itself
    return found


def fastest(steps: Sequence[Callable[[], object]], most: int) -> int:
    """The number of threads, at most ``most``, with which ``steps`` take the least time here and now.

    One thread unless more are worth it. Small operations gain little; and cores that others use too make several
    threads wait for each other, up to hundreds of times longer than the work itself takes: neither can be known from
    the number of cores.
    """
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    if counts[-1] != most:
        counts.append(most)
    before = torch.get_num_threads()
    try:
        counts = _bearable(counts)
        seconds = _trial(steps, counts)
    finally:
        torch.set_num_threads(before)
    best = 1
    for count in counts[1:]:
        if seconds[count] * _GAIN <= seconds[best]:
            best = count
    gain = f", {seconds[1] / seconds[best]:.1f} times as fast as one" if best > 1 else ""
    fixed = f"only a fixed number (--threads {best}) gives the same bits on every run"
    notice(f"threads: {best} of up to {most}{gain} in a short trial; {fixed}")
    return best


def _free_cores(trainer: Any, *, workers: int) -> int:
    """Cores that this process may take for one operation; 1 where several processes share them, or a GPU computes."""
    if trainer.accelerator not in ("auto", "cpu") or trainer.devices not in ("auto", 1, "1", [0]):
        return 1
    if trainer.accelerator == "auto" and torch.accelerator.is_available():
        return 1
    if int(trainer.num_nodes) > 1 or any(os.environ.get(name, "1") != "1" for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    limit = int(asked) if asked.isdecimal() and int(asked) > 0 else _MOST
    return max(1, min(cores - workers, limit, _MOST))


def _bearable(counts: list[int]) -> list[int]:
    """Those numbers of threads with which a tiny layer, some milliseconds on one, does not suffer.

    A step of the module could take minutes with the others, where cores are shared or fewer than they seem.
    """
    layer, inputs = torch.nn.LSTM(128, 128), torch.zeros(16, 64, 128)
    seconds: dict[int, float] = {}
    for count in counts:
        torch.set_num_threads(count)
        layer(inputs)
        begin = time.perf_counter()
        layer(inputs)
        seconds[count] = time.perf_counter() - begin
        if seconds[count] > _SUFFERING * seconds[counts[0]]:
            return counts[: counts.index(count)]
    return counts


def _steps(module: SuiteModule, data: SuiteDataModule, precision: Any) -> list[Callable[[], None]]:
    """Forward and backward pass over each of a few batches, short ones and long ones among them, by a copy."""
    here = copy.copy(data)
    here.num_workers = 0
    batches = list(itertools.islice(here.loader("train", shuffle=True), _BATCHES))
    model = copy.deepcopy(module).train()

    def step(batch: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=str(precision).startswith("bf16")):
            loss = model.compute(batch).loss_sum
        if loss.requires_grad:
            loss.backward()
        model.zero_grad()

    return [functools.partial(step, batch) for batch in batches]


def _trial(steps: Sequence[Callable[[], object]], counts: list[int]) -> dict[int, float]:
    """Seconds of a step with each number of threads, as parts of those with the first.

    The numbers take turns with the same step, so that what comes and goes slows all alike; and the middle turn is
    taken: the best one is of a moment in which nobody else ran, which is not how a training goes.
    """
    for count in counts:  # the first time that a step is made, it makes what later ones find
        torch.set_num_threads(count)
        for step in steps:
            step()
    parts: dict[int, list[float]] = {count: [] for count in counts}
    begin = time.perf_counter()
    for turn in range(_ROUNDS):
        gone = time.perf_counter() - begin
        if turn and gone > (_SECONDS if turn >= _LEAST else _PATIENCE):
            break
        seconds = {}
        for count in counts if turn % 2 == 0 else reversed(counts):  # who comes later finds the batch in the cache
            torch.set_num_threads(count)
            start = time.perf_counter()
            steps[turn % len(steps)]()
            seconds[count] = time.perf_counter() - start
        for count in counts:
            parts[count].append(seconds[count] / seconds[counts[0]])
    return {count: statistics.median(each) for count, each in parts.items()}
