"""The number of threads: asked for, or found by a trial; recorded, and the same for a run that goes on."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from suite import fitting, threads
from suite.data import SuiteDataModule
from suite.module import StepOutput
from tests.cases import Case, data_of, module_of, tasks
from tests.commands import QUIET, assert_one_line, fit_toy, run
from tests.toy.data import SineBatch, SineData
from tests.toy.model import SineModule


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores of which none is busy, but where a test says so."""
    monkeypatch.setattr(threads, "_bearable", lambda counts: counts)


def chosen(*, workers: int = 0, **trainer: Any) -> int:
    """What ``auto`` becomes, in the run and in its settings."""
    plain = {"accelerator": "cpu", "devices": "auto", "num_nodes": 1, "precision": "32-true"}
    run = SimpleNamespace(threads="auto", trainer=SimpleNamespace(**plain | trainer))
    settings: dict[str, Any] = {"threads": "auto"}
    module: Any = torch.nn.Linear(1, 1)
    data: Any = SimpleNamespace(num_workers=workers, loader=lambda split, shuffle: ["batch"])
    before = torch.get_num_threads()
    threads.settle_threads(run, settings, module=module, data=data)
    assert torch.get_num_threads() == run.threads == settings["threads"]
    torch.set_num_threads(before)
    return int(run.threads)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight free cores of which each makes an operation faster."""
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_trial", lambda steps, counts: {count: 1.0 / count for count in counts})


@pytest.mark.usefixtures("eight_cores")
def test_free_cores_are_taken_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen() == 8
    assert "threads: 8 of up to 8, 8.0 times as fast as one in a short trial" in capsys.readouterr().err


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"devices": 2}, 1),
        ({"devices": "2"}, 1),
        ({"devices": "1"}, 8),
        ({"num_nodes": 2}, 1),
        ({"accelerator": "gpu"}, 1),
        ({"workers": 2}, 6),
        ({"workers": 20}, 1),
    ],
)
def test_cores_are_left_to_other_processes(trainer: dict[str, Any], count: int) -> None:
    assert chosen(**trainer) == count


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("name", "value", "count"),
    [("OMP_NUM_THREADS", "3", 3), ("OMP_NUM_THREADS", "1", 1), ("WORLD_SIZE", "2", 1), ("SLURM_NTASKS", "4", 1)],
)
def test_the_environment_is_heard(monkeypatch: pytest.MonkeyPatch, name: str, value: str, count: int) -> None:
    monkeypatch.setenv(name, value)
    assert chosen() == count


@pytest.mark.usefixtures("eight_cores")
def test_cores_of_data_workers_are_not_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert chosen(workers=3) == 3
    assert chosen(workers=6) == 2


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 6: 0.39}, 4),
        ({1: 1.0, 2: 0.9, 4: 0.7, 6: 0.69}, 4),  # two gain too little, four are worth it
        ({1: 1.0, 2: 0.83, 4: 0.8, 6: 0.8}, 1),  # what a trial gains so little is lost in a run
        ({1: 1.0, 2: 9.0, 4: 20.0, 6: 300.0}, 1),  # cores that others use too
    ],
)
def test_more_threads_must_be_worth_it(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], count: int) -> None:
    tried: list[list[int]] = []

    def trial(steps: object, counts: list[int]) -> dict[int, float]:
        tried.append(counts)
        return seconds

    monkeypatch.setattr(threads, "_trial", trial)
    assert threads.fastest([lambda: None], 6) == count
    assert tried == [[1, 2, 4, 6]]


class _Counting(SineModule):
    """With a buffer that moves in training, and a count that is no tensor."""

    def __init__(self, assets: dict[str, Any]) -> None:
        super().__init__(assets)
        self.norm = torch.nn.BatchNorm1d(1)
        self.computed = 0

    def compute(self, batch: SineBatch) -> StepOutput:
        self.computed += 1
        self.norm(batch.values[:, :1])
        return super().compute(batch)


def test_a_trial_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    data = SineData(size=20, batch_size=4, num_workers=2)
    module = _Counting(data.assets).eval()
    workers: list[int] = []

    def make_loader(self: SineData, *arguments: Any) -> Any:
        workers.append(self.num_workers)
        return SuiteDataModule.make_loader(self, *arguments)

    monkeypatch.setattr(SineData, "make_loader", make_loader, raising=False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state, count = torch.random.get_rng_state(), torch.get_num_threads()
    assert 1 <= threads._find(module, data, "32-true", 2) <= 2
    assert (workers, data.num_workers) == ([0], 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == count
    assert (module.computed, module.training) == (0, False)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


class _Steps:
    """Steps that take the seconds that ``cost`` says, by a clock of their own: ``cost(threads, turn, step)``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: Callable[[int, int, int], float], count: int = 1) -> None:
        self.clock, self.made, self.cost = 0.0, [], cost  # type: tuple[float, list[tuple[int, int]], Any]
        self.steps = [lambda number=number: self._step(number) for number in range(count)]
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.clock)

    def _step(self, number: int) -> None:
        count = torch.get_num_threads()
        turn = sum(each[0] == count for each in self.made) - len(self.steps)  # below 0 it is a warm-up
        self.clock += self.cost(count, turn, number)
        self.made.append((count, number))

    def trial(self) -> dict[int, float]:
        try:
            return threads._trial(self.steps, [1, 2])
        finally:
            torch.set_num_threads(1)


def test_the_first_time_of_each_step_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _Steps(monkeypatch, lambda count, turn, step: 0.1 / count if turn >= 0 else 10.0 * count, count=3)
    assert steps.trial() == pytest.approx({1: 1.0, 2: 0.5})
    assert steps.made[:6] == [(count, step) for count in (1, 2) for step in (0, 1, 2)]
    assert steps.made[6:12] == [(1, 0), (2, 0), (2, 1), (1, 1), (1, 2), (2, 2)]  # in turns, either one first
    assert len(steps.made) == 6 + 2 * threads._ROUNDS


def test_a_quiet_moment_is_not_taken_for_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads are twice as fast now and then, and slower most of the time."""
    steps = _Steps(monkeypatch, lambda count, turn, step: 0.1 if count == 1 else 0.05 if turn % 3 == 0 else 0.12)
    assert steps.trial() == pytest.approx({1: 1.0, 2: 1.2})


def test_numbers_that_suffer_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = [0.0]

    def tick() -> float:
        clock[0] += {1: 1.0, 2: 0.8, 4: 50.0}[torch.get_num_threads()]
        return clock[0]

    monkeypatch.setattr(threads.time, "perf_counter", tick)
    try:
        assert threads._bearable([1, 2, 4, 8]) == [1, 2]
    finally:
        torch.set_num_threads(1)


def test_initial_weights_do_not_depend_on_how_the_number_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    built = fitting.build_module

    def build(*given: Any) -> Any:
        seen.append(torch.get_num_threads())
        return built(*given)

    monkeypatch.setattr(fitting, "build_module", build)
    try:
        assert fit_toy("--runs", tmp_path, "--threads", "2").status == 0
    finally:
        torch.set_num_threads(1)
    assert seen == [1]


@pytest.mark.parametrize(("seconds", "turns"), [(0.1, 15), (0.4, 5), (2.0, 5), (7.0, 3), (60.0, 1)])
def test_long_steps_are_tried_less_often(seconds: float, turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several times all the same, unless that would take minutes: such steps are long enough to be the rule."""
    steps = _Steps(monkeypatch, lambda count, turn, step: seconds)
    steps.trial()
    assert len(steps.made) == 2 * (1 + turns)


def test_a_run_goes_on_with_the_number_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_free_cores", lambda trainer, workers: 2)
    monkeypatch.setattr(threads, "_trial", lambda steps, counts: {1: 2.0, 2: 1.0})
    place = ("--runs", tmp_path)
    try:
        ran = fit_toy(*place, "--name", "run")
        assert ran.status == 0, ran.err
        assert torch.get_num_threads() == 2
        assert yaml.safe_load((tmp_path / "toy" / "run" / "config.yaml").read_text())["threads"] == 2
        monkeypatch.setattr(threads, "_trial", lambda steps, counts: {1: 1.0, 2: 2.0})  # the cores are busy now
        again = ("--resume", tmp_path / "toy" / "run", "--trainer.max_epochs", "2")
        on = fit_toy(*place, *again, "--threads", "auto")
        assert on.status == 0, on.err
        assert torch.get_num_threads() == 2
        other = fit_toy(*place, *again, "--threads", "1")
        assert_one_line(other, 2, "threads (was 2, now 1)")
    finally:
        torch.set_num_threads(1)


def test_no_other_words(tmp_path: Path) -> None:
    assert_one_line(fit_toy("--runs", tmp_path, "--threads", "many"), 2, "threads")
    assert_one_line(fit_toy("--runs", tmp_path, "--threads", "0"), 2, "threads")


@pytest.mark.parametrize("case", tasks(), ids=str)
def test_every_task_can_be_tried(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_ROUNDS", 1)
    module, data = module_of(case), data_of(case)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert 1 <= threads._find(module, data, "32-true", 2) <= 2
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("verb", ["compare", "crossvalidate"])
def test_runs_of_one_command_have_one_number(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([{1: 2.0, 2: 1.0}, {1: 1.0, 2: 2.0}])
    monkeypatch.setattr(threads, "_free_cores", lambda trainer, workers: 2)
    monkeypatch.setattr(threads, "_trial", lambda steps, counts: next(seconds))
    words: dict[str, tuple[object, ...]] = {
        "compare": ("--setting", "model.pooling", "--values", "mean", "max"),
        "crossvalidate": ("--folds", 2),
    }
    small = ("--data.sample_size", 60, "--data.vocabulary.size", 150, "--trainer.max_epochs", 1)
    try:
        ran = run(verb, "--domain", "text", *QUIET, *small, *words[verb], "--runs", tmp_path, "--name", "x")
    finally:
        torch.set_num_threads(1)
    assert ran.status == 0, ran.err
    recorded = [yaml.safe_load(path.read_text())["threads"] for path in tmp_path.glob("text/*/config.yaml")]
    assert recorded == [2, 2]
