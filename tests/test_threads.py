"""The number of threads: asked for, or found by a trial; recorded, and the same for a run that goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from suite import threads
from tests.commands import assert_one_line, fit_toy


def settings(**trainer: Any) -> SimpleNamespace:
    workers = trainer.pop("num_workers", 0)
    plain = {"accelerator": "cpu", "devices": "auto", "num_nodes": 1}
    return SimpleNamespace(
        threads="auto", trainer=SimpleNamespace(**plain | trainer), data=SimpleNamespace(num_workers=workers)
    )


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight free cores of which each makes an operation faster."""
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_trial", lambda counts: {count: 1.0 / count for count in counts})


def chosen(config: SimpleNamespace) -> Any:
    threads.settle_threads(config)
    return config.threads


@pytest.mark.usefixtures("eight_cores")
def test_free_cores_are_taken_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen(settings()) == 8
    assert "threads: 8, 8.0 times as fast as one" in capsys.readouterr().err


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"devices": 2}, 1),
        ({"devices": "2"}, 1),
        ({"devices": "1"}, 8),
        ({"num_nodes": 2}, 1),
        ({"accelerator": "gpu"}, 1),
        ({"num_workers": 3}, 5),
        ({"num_workers": 20}, 1),
    ],
)
def test_cores_are_left_to_other_processes(trainer: dict[str, Any], count: int) -> None:
    assert chosen(settings(**trainer)) == count


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("name", "value", "count"),
    [("OMP_NUM_THREADS", "3", 3), ("OMP_NUM_THREADS", "1", 1), ("WORLD_SIZE", "2", 1), ("SLURM_NTASKS", "4", 1)],
)
def test_the_environment_is_heard(monkeypatch: pytest.MonkeyPatch, name: str, value: str, count: int) -> None:
    monkeypatch.setenv(name, value)
    assert chosen(settings()) == count


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 6: 0.39}, 4),
        ({1: 1.0, 2: 0.9, 4: 0.7, 6: 0.69}, 4),  # two gain too little, four are worth it
        ({1: 1.0, 2: 9.0, 4: 20.0, 6: 300.0}, 1),  # cores that others use too
    ],
)
def test_more_threads_must_be_worth_it(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], count: int) -> None:
    tried: list[list[int]] = []

    def trial(counts: list[int]) -> dict[int, float]:
        tried.append(counts)
        return seconds

    monkeypatch.setattr(threads, "_trial", trial)
    assert threads.fastest(6) == count
    assert tried == [[1, 2, 4, 6]]


def test_a_trial_leaves_nothing_behind() -> None:
    state, before = torch.random.get_rng_state(), torch.get_num_threads()
    assert 1 <= threads.fastest(2) <= 2
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == before
    seconds = threads._trial([1])
    assert seconds[1] > 0
    torch.set_num_threads(before)


def test_a_run_goes_on_with_the_number_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_free_cores", lambda config: 2)
    monkeypatch.setattr(threads, "_trial", lambda counts: {1: 2.0, 2: 1.0})
    place = ("--runs", tmp_path)
    try:
        ran = fit_toy(*place, "--name", "run")
        assert ran.status == 0, ran.err
        assert torch.get_num_threads() == 2
        assert yaml.safe_load((tmp_path / "toy" / "run" / "config.yaml").read_text())["threads"] == 2
        monkeypatch.setattr(threads, "_trial", lambda counts: {1: 1.0, 2: 2.0})  # the cores are busy now
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
