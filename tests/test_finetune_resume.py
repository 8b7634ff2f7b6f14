"""A fine-tuned run that is stopped, before or after an unfreezing point, ends bit-identical to one that never was."""

from pathlib import Path

import pytest
import torch

import domains
from tests.finetuned import source_of
from tests.test_resume import DOMAIN_FLAGS, LEAN, MOMENTS, check, digest, in_a_process

# An epoch of the toy domain has 8 batches, so that steps 5 and 10 are inside the first and the second.
BY_STEPS = ["--finetune.unfreeze=steps", "--finetune.unfreeze_every=5"]
BY_EPOCHS = ["--finetune.unfreeze=epochs"]
# Momentum, decay and statistics of the optimiser would show any update of a frozen part.
COMMON = ["--finetune.lr_factor=0.4", "--optim.weight_decay=0.1", "--optim.schedule=slanted_triangular",
          "--optim.warmup_steps=0"]  # fmt: skip
AROUND = ["on_train_batch_end:4", "on_train_batch_start:6", "on_train_batch_end:6", "on_train_batch_end:7"]


def flags(domain: str, *policy: str) -> list[str]:
    return [f"--source={source_of(domain, DOMAIN_FLAGS.get(domain, []))}", *COMMON, *policy]


@pytest.mark.parametrize("moment", [*MOMENTS, *AROUND])
def test_toy_goes_on_exactly_by_steps(moment: str, tmp_path: Path) -> None:
    check("toy", moment, tmp_path, first=flags("toy", *BY_STEPS), every=1, verb="finetune")


@pytest.mark.parametrize("moment", [*MOMENTS, "on_train_batch_end:9"])
def test_toy_goes_on_exactly_by_epochs(moment: str, tmp_path: Path) -> None:
    check("toy", moment, tmp_path, first=flags("toy", *BY_EPOCHS), verb="finetune")


def test_toy_goes_on_inside_an_accumulation(tmp_path: Path) -> None:
    first = flags("toy", "--finetune.unfreeze=steps", "--finetune.unfreeze_every=4")
    first.append("--trainer.accumulate_grad_batches=3")
    check("toy", "on_train_batch_end:11", tmp_path, first=first, every=1, verb="finetune")


@pytest.mark.parametrize("verb", ["fit", "finetune"])
def test_it_goes_on_by_either_command_and_without_its_source(verb: str, tmp_path: Path) -> None:
    copied = tmp_path / "copied.ckpt"
    copied.write_bytes(source_of("toy", []).read_bytes())
    common = [
        "--domain=toy",
        "--runs",
        str(tmp_path),
        "--tracking.mode=disabled",
        f"--source={copied}",
        *COMMON,
        *BY_STEPS,
    ]
    steps = tmp_path / "steps"
    assert in_a_process("never", [*common, "--name=whole"], steps=steps, verb="finetune") == 0
    assert in_a_process("on_train_epoch_start:2:SIGKILL", [*common, "--name=a"], steps=steps, verb="finetune") == -9
    copied.unlink()
    last = tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)["suite"]["source"]
    resume = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled"]
    resume.append(f"--resume={tmp_path}/toy/a")
    assert in_a_process("never", resume, steps=steps, verb=verb) == 0
    assert digest(last) == digest(tmp_path / "toy" / "whole" / "checkpoints" / "last.ckpt")
    assert torch.load(last, weights_only=True)["suite"]["source"] == before
    assert before["path"] == str(copied)


@pytest.mark.parametrize("name", domains.available())
def test_every_domain_goes_on_exactly(name: str, tmp_path: Path) -> None:
    check(name, MOMENTS[0], tmp_path, first=flags(name, *BY_STEPS), every=3, verb="finetune")


@pytest.mark.slow
@pytest.mark.parametrize("policy", [BY_STEPS, BY_EPOCHS], ids=["steps", "epochs"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("moment", [*MOMENTS, *AROUND, "on_train_batch_end:8", "on_train_batch_start:9"])
@pytest.mark.parametrize("name", ["toy", *domains.available()])
def test_matrix(name: str, moment: str, workers: int, policy: list[str], tmp_path: Path) -> None:
    first = flags(name, *policy, f"--data.num_workers={workers}", *LEAN)
    check(name, moment, tmp_path, first=first, verb="finetune")
