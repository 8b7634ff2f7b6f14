"""Stopping and going on: the end of a run is bit-identical to that of a run that never stopped."""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import domains
from suite.errors import UsageError
from suite.run_folder import folder_of
from tests.commands import assert_one_line, fit_toy, with_callback
from tests.forked import in_processes

# Small enough to train in a second; the same flags for every domain that is added later, where it has them.
DOMAIN_FLAGS: dict[str, list[str]] = {
    "toy": [],
    "translation": [
        "--data.sample_size=250", "--data.batch_size=32", "--model.embedding_size=16",
        "--model.encoder.hidden_size=16", "--model.decoder.hidden_size=16", "--trainer.max_epochs=2",
        "--decoding.beam_size=1", "--decoding.max_length=10",
    ],
    "video": ["--data.sample_size=60", "--data.batch_size=8", "--model.cnn.width=8", "--trainer.max_epochs=2"],
    "text": [
        "--data.sample_size=250", "--data.batch_size=32", "--model.embedding_size=16",
        "--model.encoder.hidden_size=16", "--trainer.max_epochs=2",
    ],
    "audio": [
        "--data.sample_minutes=0.1", "--data.window=1000", "--data.batch_size=6", "--model.channels=8",
        "--model.num_layers=4", "--model.cycle=3", "--trainer.max_epochs=2",
    ],
}  # fmt: skip
# What has no part in how a run goes on, left out of the matrices: pictures of samples, most of the test at the end.
LEAN = ["--samples=0", "--trainer.limit_test_batches=1"]
# After each of these the process is gone: inside an epoch, in the validation at its end, after it, in the next one.
MOMENTS = ["on_train_batch_end:5", "on_validation_batch_end:1", "on_train_epoch_end:1", "on_train_epoch_start:2"]


STATUS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}


def in_a_process(when: str, arguments: list[str], *, steps: Path, verb: str = "fit") -> int:
    """Run a verb in a process of its own and give its exit status; the steps begun are counted in ``steps``."""
    ended = in_processes(when, arguments, verb=verb, variables={"STEPS_FILE": str(steps)}, seconds=120)[0]
    sys.stderr.write(ended.err)  # pytest shows it where a test fails
    return ended.status


def digest(path: Path) -> tuple[int, str]:
    """Steps made, and a hash of weights, optimiser and callbacks."""
    checkpoint = torch.load(path, weights_only=True)
    found = hashlib.sha256()

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                walk(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                walk(part)
        else:
            found.update(repr(value).encode())

    walk([checkpoint.get(key) for key in ("state_dict", "optimizer_states", "callbacks", "average")])
    return checkpoint["global_step"], found.hexdigest()


def check(
    domain: str,
    moment: str,
    tmp_path: Path,
    *,
    first: list[str],
    then: list[str] | None = None,
    every: int = 2,
    by: str = "SIGKILL",
    verb: str = "fit",
) -> None:
    """Compare a run of ``verb`` that is ended at ``moment`` and goes on with one that is not."""
    common = ["--domain", domain, "--tracking.mode=disabled", *DOMAIN_FLAGS.get(domain, [])]
    common += [f"--checkpoint_every={every}", *first]
    whole, batches = uninterrupted(verb, tuple(common))
    flags = [*common, "--runs", str(tmp_path)]
    before, after = (tmp_path / f"{name}.steps" for name in ("before", "after"))
    assert in_a_process(f"{moment}:{by}", [*flags, "--name=cut"], steps=before, verb=verb) == (
        129 if by == "SIGHUP" else STATUS[by]
    )
    run_folder = tmp_path / domain / "cut"
    checkpoint = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    batches_done = _batches_done(checkpoint)
    if by != "SIGKILL":  # a run that can, saves before it ends
        assert batches_done == len(before.read_text().splitlines())
    again = [*flags, *(then or []), f"--resume={run_folder}"]
    assert in_a_process("never", again, steps=after, verb=verb) == 0
    assert digest(run_folder / "checkpoints" / "last.ckpt") == whole
    # Exactly the missing batches were made: none left out, none made twice.
    assert len(after.read_text().splitlines()) == batches - batches_done


@functools.cache
def uninterrupted(verb: str, flags: tuple[str, ...]) -> tuple[tuple[int, str], int]:
    """Digest and number of batches of a run that is not stopped: one for all the moments it is compared with."""
    with tempfile.TemporaryDirectory() as folder:
        steps, runs = Path(folder) / "steps", Path(folder) / "runs"
        assert in_a_process("never", [*flags, "--runs", str(runs), "--name=whole"], steps=steps, verb=verb) == 0
        (last,) = runs.glob("*/whole/checkpoints/last.ckpt")
        return digest(last), len(steps.read_text().splitlines())


def _batches_done(checkpoint: dict[str, Any]) -> int:
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_toy_goes_on_exactly(moment: str, tmp_path: Path) -> None:
    check("toy", moment, tmp_path, first=[])


def test_toy_goes_on_exactly_with_workers(tmp_path: Path) -> None:
    check("toy", MOMENTS[0], tmp_path, first=["--data.num_workers=2"])


def test_another_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    check("toy", MOMENTS[0], tmp_path, first=[], then=["--data.num_workers=2"])


def test_toy_goes_on_inside_an_accumulation(tmp_path: Path) -> None:
    flags = ["--trainer.accumulate_grad_batches=3", "--patience=3", "--optim.schedule=plateau"]
    check("toy", "on_train_batch_end:11", tmp_path, first=flags, every=1)


@pytest.mark.parametrize("moment", ["on_train_batch_end:5", "on_train_batch_end:8", *MOMENTS[1:]])
@pytest.mark.parametrize("by", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_a_run_goes_on_exactly(by: str, moment: str, tmp_path: Path) -> None:
    flags = ["--optim.schedule=plateau", "--optim.plateau_patience=0", "--ema_decay=0.9", "--patience=2"]
    check("toy", moment, tmp_path, first=flags, every=1000, by=by)


@pytest.mark.parametrize("moment", ["on_train_batch_end:4", "on_validation_batch_end:1", "on_validation_end:1"])
def test_a_signal_around_a_validation_inside_an_epoch(moment: str, tmp_path: Path) -> None:
    flags = ["--trainer.val_check_interval=0.5", "--optim.schedule=plateau", "--optim.plateau_patience=0"]
    check("toy", moment, tmp_path, first=flags, every=2, by="SIGTERM")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_moving_average_goes_on_exactly(moment: str, tmp_path: Path) -> None:
    check("toy", moment, tmp_path, first=["--ema_decay=0.99", "--keep_best=2", "--keep_last=3"])


def test_a_moving_average_of_batch_norm_goes_on_exactly(tmp_path: Path) -> None:
    check("video", MOMENTS[0], tmp_path, first=["--ema_decay=0.9", "--model.cnn.norm=batch"])


@pytest.mark.parametrize("name", domains.available())
def test_every_domain_goes_on_exactly(name: str, tmp_path: Path) -> None:
    check(name, MOMENTS[0], tmp_path, first=[])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("moment", [*MOMENTS, "on_train_batch_end:8", "on_train_batch_start:9"])
@pytest.mark.parametrize("validation", ["1.0", "0.5", "off"])
@pytest.mark.parametrize("by", list(STATUS))
@pytest.mark.parametrize("name", ["toy", *domains.available()])
def test_matrix(name: str, by: str, workers: int, moment: str, validation: str, tmp_path: Path) -> None:
    if validation == "off" and "validation" in moment:
        pytest.skip("there is no validation to be killed in")
    limit = "--trainer.limit_val_batches=0" if validation == "off" else f"--trainer.val_check_interval={validation}"
    check(name, moment, tmp_path, first=[f"--data.num_workers={workers}", limit, *LEAN], by=by)


def test_more_epochs_than_first_asked_for(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--optim.schedule=constant"]
    steps = tmp_path / "steps"
    assert in_a_process("never", [*flags, "--name=long", "--trainer.max_epochs=4"], steps=steps) == 0
    assert in_a_process("never", [*flags, "--name=short", "--trainer.max_epochs=2"], steps=steps) == 0
    more = [*flags, f"--resume={tmp_path}/toy/short", "--trainer.max_epochs=4"]
    assert in_a_process("never", more, steps=steps) == 0
    last = Path("checkpoints") / "last.ckpt"
    assert digest(tmp_path / "toy" / "short" / last) == digest(tmp_path / "toy" / "long" / last)
    assert (tmp_path / "toy" / "short" / "config.yaml").read_text().count("max_epochs: 4") == 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_max_steps_ended_inside_an_epoch_goes_on_exactly(accumulate: int, tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--optim.schedule=constant"]
    flags += [f"--trainer.accumulate_grad_batches={accumulate}", "--trainer.max_epochs=9", "--samples=0"]
    steps = {name: tmp_path / f"{name}.steps" for name in ("whole", "short")}
    whole = [*flags, "--name=whole", "--trainer.max_steps=11"]
    assert in_a_process("never", whole, steps=steps["whole"]) == 0
    last = Path("checkpoints") / "last.ckpt"
    for count, more in (("3", "--name=short"), ("5", ""), ("11", "")):  # 8 or 4 steps an epoch
        words = [more or f"--resume={tmp_path}/toy/short", f"--trainer.max_steps={count}"]
        assert in_a_process("never", [*flags, *words], steps=steps["short"]) == 0
        assert digest(tmp_path / "toy" / "short" / last)[0] == int(count)
    assert digest(tmp_path / "toy" / "short" / last) == digest(tmp_path / "toy" / "whole" / last)
    begun = [path.read_text().splitlines() for path in steps.values()]
    assert len(begun[0]) == len(begun[1])


def test_max_steps_goes_on_exactly_from_the_end_of_an_epoch(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--optim.schedule=constant"]
    flags += ["--trainer.max_epochs=3", "--trainer.max_steps=20", "--samples=0"]  # 8 steps an epoch
    steps = {name: tmp_path / f"{name}.steps" for name in ("whole", "cut")}
    assert in_a_process("never", [*flags, "--name=whole"], steps=steps["whole"]) == 0
    assert in_a_process("on_train_epoch_start:3:SIGKILL", [*flags, "--name=cut"], steps=steps["cut"]) == -9
    assert in_a_process("never", [*flags, f"--resume={tmp_path}/toy/cut"], steps=steps["cut"]) == 0
    last = [tmp_path / "toy" / name / "checkpoints" / "last.ckpt" for name in ("whole", "cut")]
    assert digest(last[0])[0] == 20
    assert digest(last[0]) == digest(last[1])
    assert steps["whole"].read_text() == steps["cut"].read_text()


def test_a_checkpoint_that_is_in_no_run_folder_is_refused_and_nothing_is_removed(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path / "runs"), "--tracking.mode=disabled", "--trainer.max_epochs=1"]
    assert in_a_process("never", [*flags, "--name=a"], steps=tmp_path / "steps") == 0
    place = tmp_path / "mine" / "deep"
    place.mkdir(parents=True)
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    for path in (tmp_path / "runs" / "toy" / "a" / "checkpoints").glob("last.ckpt*"):
        (place / path.name).write_bytes(path.read_bytes())
    for given in (place / "last.ckpt", place):
        ended = in_processes("never", [*flags, f"--resume={given}"])[0]
        assert ended.status == 2
        assert "a run goes on in its folder" in ended.err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "irreplaceable"
    assert sorted(path.name for path in place.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_a_signal_to_the_whole_group_saves_with_workers_too(tmp_path: Path) -> None:
    """As ``timeout`` and SLURM send it: the workers must not go before the run has saved."""
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--data.num_workers=2", "--name=a"]
    ended = in_processes("on_train_batch_end:3:SIGTERM", flags, seconds=60, variables={"KILL_GROUP": "1"})[0]
    assert ended.status == 143, ended.err
    assert f"scripts/fit.py --domain toy --task next_value --resume {tmp_path}/toy/a\n" in ended.err
    assert digest(tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt")[0] in (3, 4)


def test_changed_settings_and_data_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--trainer.max_epochs=2"]
    steps = tmp_path / "steps"
    assert in_a_process("on_train_epoch_start:2:SIGKILL", [*flags, "--name=cut"], steps=steps) == -9
    resume = f"--resume={tmp_path}/toy/cut"
    assert in_a_process("never", [*flags, resume, "--optim.lr=0.5", "--data.size=62"], steps=steps) == 2
    message = capfd.readouterr().err
    assert "data.size (was 61, now 62), optim.lr (was 0.01, now 0.5)" in message
    before = (tmp_path / "toy" / "cut" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert in_a_process("never", [*flags[1:], "--domain=toy", "--resume=auto"], steps=steps) == 0
    assert (tmp_path / "toy" / "cut" / "checkpoints" / "last.ckpt").stat().st_mtime_ns > before


def test_damaged_newest_falls_back_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled"]
    steps = tmp_path / "steps"
    first = [*flags, "--name=a", "--checkpoint_every=2"]
    assert in_a_process("on_train_batch_end:13:SIGKILL", first, steps=steps) == -9
    folder = tmp_path / "toy" / "a" / "checkpoints"
    whole = bytearray((folder / "last.ckpt").read_bytes())
    whole[len(whole) // 2] ^= 1
    (folder / "last.ckpt").write_bytes(whole)
    assert in_a_process("never", [*flags, "--resume=auto", "--checkpoint_every=2"], steps=steps) == 0
    error = capfd.readouterr().err
    assert "last.ckpt: damaged" in error
    assert "step-0000012.ckpt: damaged" in error
    assert "from step 10" in error


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_a_run_with_a_way_on(name: str, status: int, tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--name=cut"]
    command = f"import sys; from tests.interrupted import run; sys.exit(run('on_train_batch_end:11:{name}', 'fit', "
    command += f"{flags!r}))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert f"--resume {tmp_path}/toy/cut" in done.stderr
    assert "Traceback" not in done.stderr


class Ends(Callback):
    """Ends a run inside an epoch, after the checkpoints have had their turn, as ``max_time`` or a user may."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 3 and "ENDS" in os.environ:
            trainer.should_stop = True


def test_a_run_that_a_callback_ended_inside_an_epoch_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_callback(monkeypatch, Ends())
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--trainer.limit_val_batches=0"]
    last = Path("checkpoints") / "last.ckpt"
    assert in_processes("never", [*flags, "--name=whole"])[0].status == 0
    assert in_processes("never", [*flags, "--name=cut"], variables={"ENDS": "1"})[0].status == 0
    assert digest(tmp_path / "toy" / "cut" / last)[0] == 3
    ended = in_processes("never", [*flags, f"--resume={tmp_path}/toy/cut"])[0]
    assert ended.status == 0, ended.err
    assert digest(tmp_path / "toy" / "cut" / last) == digest(tmp_path / "toy" / "whole" / last)


def test_the_folder_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a" / "checkpoints"
    place.mkdir(parents=True)
    assert folder_of(place / "last.ckpt") == tmp_path / "a"
    monkeypatch.chdir(tmp_path / "a")
    assert folder_of(Path("checkpoints/last.ckpt")).resolve() == tmp_path / "a"
    monkeypatch.chdir(place)
    assert folder_of(Path("last.ckpt")).resolve() == tmp_path / "a"
    with pytest.raises(UsageError, match="a run goes on in its folder"):
        folder_of(tmp_path / "a" / "last.ckpt")


def test_a_run_that_goes_on_keeps_its_name_and_folder(tmp_path: Path) -> None:
    assert fit_toy("--runs", tmp_path, "--name=a").status == 0
    folder = tmp_path / "toy" / "a"
    last = folder / "checkpoints" / "last.ckpt"
    for place in (folder, last, "auto"):
        ran = fit_toy("--runs", tmp_path, "--name=b", "--resume", place)
        assert_one_line(ran, 2, "--name b", "keeps its name")
    for place in (folder, last):
        ran = fit_toy("--runs", tmp_path / "others", "--resume", place)
        assert_one_line(ran, 2, f"--runs {tmp_path / 'others'}", f"--resume {place}", "elsewhere")
    assert not (tmp_path / "others").exists()
