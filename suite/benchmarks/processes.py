"""Two processes that train together against two that train alone, at the same time on the same cores, in turns."""

import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from suite.cli import Domains
from suite.console import notice
from suite.domain import Domain
from suite.errors import SuiteError
from suite.module import SuiteModule
from suite.process import prepare_process
from suite.rehearsal import load_recipe, rehearse
from suite.timing import Row
from suite.tracking import TrackingConfig
from suite.trainer import quiet_libraries
from suite.verb_parsers import default_recipe

_STEPS = 10  # in a turn: short ones, for cores shared with others change their speed within seconds
_TURNS = 4  # in a round
_BAR = 0.85
_WAIT = 300.0  # seconds for a process to answer


def measure(*, domains: Domains, domain: str | None, rounds: int) -> list[Row]:
    """A row for the default recipe of ``domain``, or of each domain where none is named."""
    if (os.cpu_count() or 1) < 2:
        raise SuiteError("two processes need two cores: this machine has one")
    names = [domain] if domain is not None else domains.available()
    return [together(name, domains, rounds=rounds) for name in names]


class Turn(NamedTuple):
    """What a process did in a turn: seconds, and units of weight (tokens, samples)."""

    seconds: float
    weight: float


def together(name: str, domains: Domains, *, rounds: int, steps: int = _STEPS, flags: Sequence[str] = ()) -> Row:
    """Throughput of two processes with one model over the sum of two with a model each.

    All four stay alive and wait for their turn; two work at a time. Each has the recipe's batch size.
    """
    unit = domains.load(name).task(None).module.unit
    turns = _TURNS * rounds + 1  # the first is a warm-up
    work: dict[str, Any] = {"turns": turns, "steps": steps, "flags": flags}
    speeds: list[tuple[float, float]] = []
    with _pair(name, domains, joined=True, **work) as ours, _pair(name, domains, joined=False, **work) as alone:
        for _ in range(turns):
            both, each = _take_turn(ours), _take_turn(alone)
            # The weight of a step that is made together is that of both processes' batches.
            speed = both[0].weight / max(turn.seconds for turn in both)
            speeds.append((speed, sum(turn.weight / turn.seconds for turn in each)))
    warm = speeds[1:]
    ratio = statistics.median(mine / others for mine, others in warm)
    speed, sum_of_speeds = (statistics.median(column) for column in zip(*warm, strict=True))
    note = f"{speed:,.0f} and {sum_of_speeds:,.0f} {unit}/s; seconds are for 1,000 {unit}"
    title = f"{name}: throughput of two processes over the sum of two runs of one process"
    return Row(title, 1000 / speed, 1000 / sum_of_speeds, ratio, f">= {_BAR:g}", ratio >= _BAR, note)


def _take_turn(pair: Sequence[Connection]) -> list[Turn]:
    for process in pair:
        if _answer(process) != "ready":
            raise AssertionError("a process is out of step")
    for process in pair:
        process.send("go")
    return [cast(Turn, _answer(process)) for process in pair]


def _answer(process: Connection) -> Any:
    if not process.poll(_WAIT):
        raise SuiteError(f"benchmark: a process did not answer for {_WAIT:.0f} s")
    try:
        return process.recv()
    except EOFError:
        raise SuiteError("benchmark: a process ended early; what it said stands above") from None


@contextmanager
def _pair(name: str, domains: Domains, *, joined: bool, **work: Any) -> Iterator[list[Connection]]:
    """Two processes, each with a connection to it; they end afterwards, not beside another pair's last turn."""
    context = multiprocessing.get_context("spawn")
    port, started, ends = _free_port(), [], []
    for rank in range(2):
        here, there = context.Pipe()
        arguments = (there, name, domains, joined)
        process = context.Process(target=_work, args=arguments, kwargs=work, daemon=True)
        with _environment(_launcher(rank, port) if joined else {}):
            process.start()
        there.close()
        started.append(process)
        ends.append(here)
    try:
        yield ends
        for end in ends:
            end.send("leave")
        for process in started:
            process.join(_WAIT)
    finally:
        for process in started:
            process.kill()
            process.join()


def _launcher(rank: int, port: int) -> dict[str, str]:
    """What a launcher tells a process about the others."""
    return {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that a process started meanwhile inherits; a launcher's around the benchmark itself are left out."""
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    before = {key: os.environ.pop(key) for key in names & os.environ.keys()}
    os.environ.update(values)
    try:
        yield
    finally:
        for key in values:
            del os.environ[key]
        os.environ.update(before)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class _StoppedError(Exception):
    """The benchmark is gone: nobody waits for this process's turns."""


@contextmanager
def _until_stopped() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, EOFError):
        raise _StoppedError from None


class _Turns(Callback):
    """Waits for each turn, makes its steps, and says how long they took."""

    def __init__(self, parent: Connection, *, turns: int, steps: int) -> None:
        self.parent, self.turns, self.steps = parent, turns, steps
        self.done, self.begin, self.weight = 0, 0.0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.done == 0:
            with _until_stopped():
                self.parent.send("ready")
                self.parent.recv()
            self.begin, self.weight = time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = cast(SuiteModule, pl_module).last_step
        assert step is not None
        self.weight += float(step.weight)
        self.done += 1
        if self.done == self.steps:
            with _until_stopped():
                self.parent.send(Turn(time.perf_counter() - self.begin, self.weight))
                self.done, self.turns = 0, self.turns - 1
                if not self.turns:
                    self.parent.recv()


def _work(
    parent: Connection, name: str, domains: Domains, joined: bool, *, turns: int, steps: int, flags: Sequence[str]
) -> None:
    """The life of one process."""
    quiet_libraries()
    prepare_process(threads=1)
    domain: Domain = domains.load(name)
    many = ["--trainer.devices=2", "--trainer.strategy=ddp"] if joined else ["--trainer.devices=1"]
    recipe = load_recipe(
        domain, defaults=default_recipe(domain, domain.default, domains.configs),
        flags=[
            f"--trainer.max_steps={turns * steps}", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0",
            "--trainer.num_sanity_val_steps=0", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
            *many, *flags,
        ],
    )  # fmt: skip
    module = recipe.module()
    tracking = TrackingConfig(mode="disabled")
    try:
        with rehearse(module, recipe.data, recipe.run, recipe.settings, tracking=tracking) as trainer:
            cast(Any, trainer).callbacks.append(_Turns(parent, turns=turns, steps=steps))
            trainer.fit(module, datamodule=recipe.data)
    except SuiteError as error:
        notice(f"benchmark: {error}")
    except _StoppedError:
        return
