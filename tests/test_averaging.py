"""Averages of checkpoints: equal to the mean taken by hand, of one run only, and no place to resume from."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from suite import averaging, checkpoint
from suite.averaging import choose, list_checkpoints, mean_checkpoint
from suite.errors import CheckpointError
from tests import toy
from tests.commands import TOY_CONFIGS, Ran, assert_one_line, fit_toy, run, shared

SHAPE = (3, 5)


def state(seed: int) -> dict[str, Tensor]:
    """Weights of each kind: two of one memory, one that float32 cannot add up exactly, a counter, a flag, nothing."""
    generator = torch.Generator().manual_seed(seed)
    tied = torch.randn(SHAPE, generator=generator)
    return {
        "embedding": tied,
        "output": tied,
        "half": torch.randn(SHAPE, generator=generator).to(torch.bfloat16),
        "far": torch.tensor([1e8 if seed == 1 else 0.25 * seed]),
        "complex": torch.randn(2, generator=generator, dtype=torch.complex64),
        "steps": torch.tensor(seed * 10),
        "flag": torch.tensor(seed % 2 == 0),
        "empty": torch.zeros(0, 4),
    }


def write(
    folder: Path,
    name: str,
    *,
    step: int,
    weights: dict[str, Tensor] | None = None,
    value: float | None = None,
    mode: str = "max",
    settings: dict[str, Any] | None = None,
    assets: dict[str, Any] | None = None,
) -> Path:
    record = checkpoint.make_record(settings={"domain": "toy", **(settings or {})}, assets=assets or {})
    if value is not None:
        record["monitored"] = {"name": "val/score", "mode": mode, "value": value}
    content = {
        "state_dict": weights or state(step),
        "global_step": step,
        "epoch": step // 2,
        checkpoint.RECORD_KEY: record,
    }
    path = folder / "checkpoints" / f"{name}.ckpt"
    checkpoint.write({**content, "optimizer_states": [{}], "loops": {}}, path)
    return path


def average(*argv: Any) -> Ran:
    return run("average", *argv, application=toy, configs=TOY_CONFIGS)


def test_the_mean_is_that_of_a_plain_loop_in_float64(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, f"step-{step}", step=step)
    ran = average(tmp_path)
    assert ran.status == 0, ran
    result = checkpoint.read(tmp_path / "average-last-3.ckpt")
    states = [state(step) for step in (1, 2, 3)]
    for name in ("embedding", "output", "half", "far"):
        kind = states[0][name].dtype
        rows = zip(*(each[name].double().flatten().tolist() for each in states), strict=True)
        expected = torch.tensor([math.fsum(row) / 3 for row in rows], dtype=torch.float64).to(kind)
        torch.testing.assert_close(result["state_dict"][name].flatten(), expected, rtol=0, atol=0)
    # In float32 the small numbers would be lost beside the large one.
    assert float(result["state_dict"]["far"]) == float(torch.tensor((1e8 + 0.5 + 0.75) / 3))
    complexes = torch.stack([each["complex"].to(torch.complex128) for each in states]).mean(dim=0)
    torch.testing.assert_close(result["state_dict"]["complex"], complexes.to(torch.complex64), rtol=0, atol=0)
    assert int(result["state_dict"]["steps"]) == 30
    assert bool(result["state_dict"]["flag"]) is False
    assert result["state_dict"]["empty"].shape == (0, 4)


def test_tied_weights_stay_tied_and_there_is_no_optimiser(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, f"step-{step}", step=step, value=0.5 * step)
    result = mean_checkpoint(list_checkpoints(tmp_path), by="last")
    assert result["state_dict"]["embedding"] is result["state_dict"]["output"]
    assert result.keys() == {"state_dict", "global_step", "epoch", checkpoint.RECORD_KEY}
    assert (result["global_step"], result["epoch"]) == (2, 1)
    record = result[checkpoint.RECORD_KEY]
    assert "monitored" not in record
    files = [tmp_path / "checkpoints" / f"step-{step}.ckpt" for step in (2, 1)]
    assert record[checkpoint.AVERAGED_KEY]["of"] == [
        {
            "name": path.name,
            "step": step,
            "sha256": json.loads(checkpoint.digest_path(path).read_text())["sha256"],
            "monitored": {"name": "val/score", "mode": "max", "value": 0.5 * step},
        }
        for step, path in zip((2, 1), files, strict=True)
    ]


def test_steps_are_read_from_the_files_and_each_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "zz", step=2)
    write(tmp_path, "last", step=10)
    write(tmp_path, "best", step=10, value=0.7)
    write(tmp_path, "aa", step=9)
    found = list_checkpoints(tmp_path)
    assert [(saved.step, saved.path.stem) for saved in found] == [(10, "best"), (9, "aa"), (2, "zz")]
    assert list_checkpoints(tmp_path / "checkpoints") == found
    assert [saved.step for saved in choose(found, by="last", count=2)] == [10, 9]


@pytest.mark.parametrize(("mode", "order"), [("max", [3, 5, 1]), ("min", [1, 5, 3])])
def test_the_best_by_what_was_monitored(mode: str, order: list[int], tmp_path: Path) -> None:
    for step, value in ((1, 0.1), (2, float("nan")), (3, 0.9), (4, None), (5, 0.5)):
        write(tmp_path, f"x{step}", step=step, value=value, mode=mode)
    found = list_checkpoints(tmp_path)
    assert [saved.step for saved in choose(found, by="best", count=None)] == order
    assert [saved.step for saved in choose(found, by="best", count=2)] == order[:2]
    assert_one_line(average(tmp_path, "--best", 4), 2, "3 checkpoint(s)", "with a monitored value", "use --best 3")


def test_of_equals_the_newer_is_better(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, f"x{step}", step=step, value=0.5)
    assert [saved.step for saved in choose(list_checkpoints(tmp_path), by="best", count=2)] == [3, 2]


def test_files_of_another_run_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", step=1, settings={"optim": {"lr": 0.1}, "trainer": {"max_epochs": 2}})
    path = write(tmp_path, "b", step=2, settings={"optim": {"lr": 0.2}, "trainer": {"max_epochs": 3}})
    ran = average(tmp_path)
    assert_one_line(ran, 1, "a.ckpt is not of the run of b.ckpt", "optim.lr (was 0.2, now 0.1)")
    assert "max_epochs" not in ran.err, "a run may be asked for more epochs"
    path.unlink()
    write(tmp_path, "b", step=2, assets={"labels": ["x"]}, settings={"optim": {"lr": 0.1}})
    assert_one_line(average(tmp_path), 1, "a.ckpt", "vocabulary or labels")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda weights: weights.pop("half"), "half"),
        (lambda weights: weights.update(more=torch.zeros(1)), "more"),
        (lambda weights: weights.update(half=torch.zeros(SHAPE)), "half"),
        (lambda weights: weights.update(half=torch.zeros(5, 3, dtype=torch.bfloat16)), "half"),
        (lambda weights: weights["half"].fill_(math.inf), "half is not finite"),
    ],
)
def test_weights_that_do_not_agree_are_one_line(change: Any, part: str, tmp_path: Path) -> None:
    odd = state(1)
    change(odd)
    write(tmp_path, "a", step=1, weights=odd)
    write(tmp_path, "b", step=2)
    assert_one_line(average(tmp_path), 1, "a.ckpt", part)
    assert not list(tmp_path.glob("average*"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for step in (1, 2):
        path = write(tmp_path, f"step-{step}", step=step)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_one_line(average(tmp_path), 1, "step-2.ckpt: damaged", "SHA-256")


def test_a_file_without_a_digest_is_said(tmp_path: Path) -> None:
    for step in (1, 2):
        path = write(tmp_path, f"step-{step}", step=step)
    digest = json.loads(checkpoint.digest_path(path).read_text())["sha256"]
    checkpoint.digest_path(path).unlink()
    ran = average(tmp_path)
    assert ran.status == 0
    assert "step-2.ckpt: there is no step-2.ckpt.sha256 beside it" in ran.err
    record = checkpoint.read(tmp_path / "average-last-2.ckpt")[checkpoint.RECORD_KEY]
    assert record[checkpoint.AVERAGED_KEY]["of"][0]["sha256"] == digest


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, f"step-{step}", step=step)
    found = list_checkpoints(tmp_path)
    write(tmp_path, "step-2", step=2, weights=state(7))
    with pytest.raises(CheckpointError, match=r"step-2.ckpt: was replaced meanwhile"):
        mean_checkpoint(found, by="last")


def test_what_cannot_be_meant_is_one_line(tmp_path: Path) -> None:
    assert_one_line(average(), 2, "run")
    assert_one_line(average(tmp_path / "nowhere"), 1, "nowhere", "no folder of a run")
    assert_one_line(average(tmp_path), 1, "there is no checkpoint")
    write(tmp_path, "a", step=1)
    assert_one_line(average(tmp_path), 2, "1 checkpoint(s)", "an average needs two or more")
    write(tmp_path, "b", step=2)
    assert_one_line(average(tmp_path, "--last", 3), 2, "2 checkpoint(s)", "--last asks for 3: use --last 2")
    assert_one_line(average(tmp_path, "--last", 1), 2, "--last is 1, allowed is 2 or more")
    assert_one_line(average(tmp_path, "--last", 0), 2, "last")
    assert_one_line(average(tmp_path, "--last", 2, "--best", 2), 2, "exclude each other")
    assert_one_line(average(tmp_path, "--best", 2), 1, "no checkpoint says what was monitored: use --last")
    assert_one_line(average(tmp_path, "--lats", 2), 2, "did you mean --last?")
    assert_one_line(average(tmp_path, "--output", tmp_path / "checkpoints" / "c.ckpt"), 2, "choose another")
    assert_one_line(average(tmp_path, "--output", tmp_path / "no" / "c.ckpt"), 2, "no such folder")
    assert average(tmp_path).status == 0
    assert_one_line(average(tmp_path), 2, "average-last-2.ckpt: this file exists")


def test_different_things_monitored_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", step=1, value=1.0, mode="min")
    write(tmp_path, "b", step=2, value=1.0, mode="max")
    assert_one_line(average(tmp_path, "--best", 2), 1, "val/score (max), val/score (min)", "use --last")


def _train(folder: Path) -> None:
    """A run of two epochs that kept a checkpoint of each."""
    for epochs, name in ((1, "first"), (2, "run")):
        ran = fit_toy("--runs", folder, "--name", name, "--optim.schedule", "constant", "--trainer.max_epochs", epochs)
        assert ran.status == 0, ran
    first = folder / "toy" / "first" / "checkpoints" / "last.ckpt"
    checkpoint.duplicate(first, folder / "toy" / "run" / "checkpoints" / "epoch-1.ckpt")


def test_an_average_evaluates_and_is_no_place_to_resume_from(tmp_path: Path) -> None:
    trained = shared("averaged", _train) / "toy" / "run"
    output = tmp_path / "mean.ckpt"
    ran = average(trained, "--last", 2, "--output", output)
    assert ran.status == 0, ran
    assert "epoch-1.ckpt  step 8" in ran.out
    states = [checkpoint.read(each.path)["state_dict"] for each in averaging.list_checkpoints(trained)]
    mean = checkpoint.read(output)["state_dict"]
    for name in states[0]:
        torch.testing.assert_close(mean[name], torch.stack([each[name] for each in states]).mean(dim=0))
        assert not torch.equal(states[0][name], states[1][name]), "the two say something different"
    evaluated = run("evaluate", "--checkpoint", output, application=toy, configs=TOY_CONFIGS)
    assert evaluated.status == 0, evaluated
    resumed = fit_toy("--resume", output, "--trainer.max_epochs", 3)
    assert_one_line(resumed, 2, "mean.ckpt", "no optimiser state to go on from")
    again = average(trained, "--last", 2)
    assert again.status == 0
    assert (trained / "average-last-2.ckpt").is_file()
    assert [each.step for each in list_checkpoints(trained)] == [16, 8], "the average is not among them"
