"""Which checkpoint a run is resumed from, and what happens to the later ones."""

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import suite.fitting
from suite import checkpoint
from suite.errors import UsageError
from suite.rewind import set_later_aside
from suite.run_folder import resumed
from tests.commands import Ran, assert_one_line, fit_toy
from tests.test_resume import digest

FLAGS = ("--trainer.max_epochs=3", "--keep_last=9", "--checkpoint_every=4", "--optim.schedule=constant")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 steps with a checkpoint every 4."""
    folder = tmp_path_factory.mktemp("runs")
    assert fit_toy("--runs", folder, "--name=a", *FLAGS).status == 0
    return folder / "toy" / "a"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, whose earlier checkpoints have the later modification times."""
    folder = tmp_path / "toy" / "a"
    shutil.copytree(finished, folder)
    for path in folder.rglob("*.ckpt"):
        time = 2_000_000_000 - 1000 * step_of(path)
        os.utime(path, (time, time))
    return folder


def step_of(path: Path) -> int:
    return checkpoint.place_of(path).step


def resume(folder: Path, place: Any, *flags: str) -> Ran:
    ran = fit_toy("--resume", place, *FLAGS, *flags)
    assert ran.status == 0, ran.err
    return ran


def steps(folder: Path) -> dict[str, int]:
    return {path.name: step_of(path) for path in sorted((folder / "checkpoints").glob("*.ckpt"))}


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if "per_second" not in key} for row in found]


def test_a_copied_run_is_resumed_from_its_highest_step(run: Path, finished: Path) -> None:
    before = steps(run)
    assert before == {f"step-{step:07d}.ckpt": step for step in range(4, 25, 4)} | {"best.ckpt": 24, "last.ckpt": 24}
    ran = resume(run, run)
    assert f"Going on with {run} from step 24" in ran.err
    assert "nothing was left to train" in ran.err
    assert steps(run) == before
    assert not list(run.glob("after-step-*"))
    assert metrics(run) == metrics(finished)


def test_old_checkpoints_are_deleted_by_their_step_and_not_by_their_time(run: Path) -> None:
    shutil.copyfile(run / "checkpoints" / "step-0000004.ckpt", run / "checkpoints" / "best-of-mine.ckpt")
    ran = fit_toy("--resume", run, *FLAGS[2:], "--keep_last=2", "--trainer.max_epochs=4")
    assert ran.status == 0, ran.err
    assert [name for name in steps(run) if name.startswith("step")] == ["step-0000028.ckpt", "step-0000032.ckpt"]
    assert "best-of-mine.ckpt" in steps(run)


def test_an_earlier_checkpoint_that_is_named_moves_the_later_ones_aside(run: Path, finished: Path) -> None:
    before = metrics(run)
    ran = resume(run, run / "checkpoints" / "step-0000012.ckpt", "--trainer.max_steps=14")
    aside = run / "after-step-0000012"
    assert f"after step 12 to {aside}" in ran.err
    assert steps(aside) == {"best.ckpt": 24, "last.ckpt": 24} | {f"step-{step:07d}.ckpt": step for step in (16, 20, 24)}
    for path in (aside / "checkpoints").glob("*.ckpt"):
        checkpoint.verify(path)
        assert checkpoint.digest_path(path).is_file()
    assert metrics(aside) == before
    assert sorted({int(row["step"]) for row in metrics(run)}) == [2, 4, 6, 8, 10, 12, 14]
    found = steps(run)
    assert (found["last.ckpt"], found["step-0000012.ckpt"]) == (14, 12)
    assert "from step 14" in resume(run, run, "--trainer.max_steps=-1").err
    assert metrics(run) == before
    assert digest(run / "checkpoints" / "last.ckpt") == digest(finished / "checkpoints" / "last.ckpt")
    again = resume(run, aside)
    assert "from step 24" in again.err, "what was moved aside is a run"


def test_the_best_of_the_abandoned_part_is_not_tested(run: Path) -> None:
    """best.ckpt is of step 24; the best by step 12 was that of step 8, whose file remains."""
    ran = resume(run, run / "checkpoints" / "step-0000012.ckpt", "--trainer.max_steps=14")
    assert steps(run)["best.ckpt"] == 8
    assert f"Best checkpoint  {run}/checkpoints/best.ckpt" in ran.out


def test_a_best_checkpoint_that_is_gone_is_forgotten(run: Path) -> None:
    for name in ("step-0000008.ckpt", "step-0000008.ckpt.sha256"):
        (run / "checkpoints" / name).unlink()
    ran = resume(run, run / "checkpoints" / "step-0000012.ckpt", "--trainer.max_steps=14")
    assert "the best checkpoint (step 8) is gone" in ran.err
    assert "best.ckpt" not in steps(run)
    resume(run, run, "--trainer.max_steps=-1")
    assert steps(run)["best.ckpt"] in (16, 24)


def test_two_rewinds_to_one_step_have_folders_of_their_own(run: Path) -> None:
    for _ in range(2):
        resume(run, run / "checkpoints" / "step-0000004.ckpt", "--trainer.max_steps=6")
    assert sorted(path.name for path in run.glob("after-*")) == ["after-step-0000004", "after-step-0000004-2"]
    assert steps(run / "after-step-0000004-2") == {"last.ckpt": 6, "step-0000006.ckpt": 6}


def test_damaged_later_checkpoints_are_reported_and_moved_aside(run: Path) -> None:
    for name in ("last.ckpt", "best.ckpt", "step-0000024.ckpt", "step-0000020.ckpt"):
        path = run / "checkpoints" / name
        with path.open("r+b") as file:
            file.truncate(1000)
    ran = resume(run, run, "--trainer.max_steps=17")
    assert "from step 16" in ran.err
    for name in ("last.ckpt", "best.ckpt", "step-0000024.ckpt", "step-0000020.ckpt"):
        assert f"{name}: damaged: 1000 bytes" in ran.err
        assert (run / "after-step-0000016" / "checkpoints" / name).stat().st_size == 1000
    assert steps(run)["last.ckpt"] == 17


def test_what_is_refused_moves_nothing(run: Path) -> None:
    before = sorted(run.rglob("*"))
    path = run / "checkpoints" / "step-0000008.ckpt"
    assert_one_line(fit_toy("--resume", path, *FLAGS, "--optim.lr=0.5"), 2, "optim.lr")
    missing = fit_toy("--resume", run / "checkpoints" / "step-0000009.ckpt", *FLAGS)
    assert_one_line(missing, 1, "there is no such checkpoint")
    assert sorted(run.rglob("*")) == before


def test_samples_after_the_step_are_moved_aside_too(tmp_path: Path) -> None:
    state = {"global_step": 4, checkpoint.RECORD_KEY: {"format": 1, "settings": {}, "assets": {}}}
    for step in (4, 8):
        checkpoint.write({**state, "global_step": step}, tmp_path / "checkpoints" / f"step-{step:07d}.ckpt")
        (tmp_path / "samples").mkdir(exist_ok=True)
        for name in (f"step-{step:07d}.jsonl", f"step-{step:07d}-1.wav", "val.png"):
            (tmp_path / "samples" / name).write_text(str(step))
    aside = set_later_aside(tmp_path, step=4)
    assert aside is not None
    assert sorted(path.name for path in (aside / "samples").iterdir()) == ["step-0000008-1.wav", "step-0000008.jsonl"]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-0000004-1.wav", "step-0000004.jsonl", "val.png"
    ]  # fmt: skip
    assert set_later_aside(tmp_path, step=4) is None


def test_auto_takes_the_run_that_saved_last_by_its_own_record(tmp_path: Path) -> None:
    def write(name: str, step: int, time: float, saved_at: float | None) -> None:
        record: dict[str, Any] = {"format": 1, "settings": {}, "assets": {}}
        record |= {} if saved_at is None else {checkpoint.SAVED_AT_KEY: saved_at}
        path = tmp_path / "toy" / name / "checkpoints" / "last.ckpt"
        checkpoint.write({"global_step": step, checkpoint.RECORD_KEY: record}, path)
        os.utime(path, (time, time))

    def chosen() -> str:
        with resumed("auto", tmp_path, "toy") as path:
            return path.parents[1].name

    write("copied_later", 900, 3000, 1000.0)
    write("newest", 10, 1000, 2000.0)
    assert chosen() == "newest"
    write("earlier_version", 5, 2500, None)
    assert chosen() == "earlier_version", "its file's time is all there is"
    torch.save({}, tmp_path / "toy" / "newest" / "checkpoints" / "other.ckpt")
    shutil.rmtree(tmp_path / "toy" / "earlier_version")
    assert chosen() == "newest"


def test_a_resume_that_is_refused_late_moves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker and the trainer may refuse a run after its checkpoint was chosen."""
    before, metrics = steps(run), (run / "metrics.csv").read_bytes()

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UsageError("no network")

    monkeypatch.setattr(suite.fitting, "build_trainer", refuse)
    ran = fit_toy("--resume", run / "checkpoints" / "step-0000012.ckpt", *FLAGS)
    assert_one_line(ran, 2, "no network")
    assert steps(run) == before
    assert (run / "metrics.csv").read_bytes() == metrics


def test_metrics_that_are_not_utf8_are_one_line(run: Path) -> None:
    with (run / "metrics.csv").open("ab") as file:
        file.write(b"2,0,\xff\xfe\n")
    before = steps(run)
    ran = fit_toy("--resume", run / "checkpoints" / "step-0000012.ckpt", *FLAGS)
    assert_one_line(ran, 1, "metrics.csv", "is not UTF-8", "move it away")
    assert steps(run) == before
