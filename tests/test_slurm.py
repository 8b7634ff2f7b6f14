"""Ranks that SLURM starts: srun's variables, one process each; SIGTERM before the time limit, and the requeued job."""

from pathlib import Path

import pytest

from tests.forked import Forked, in_processes
from tests.test_resume import digest

pytestmark = pytest.mark.distributed
LAST = Path("checkpoints") / "last.ckpt"


def srun(when: str, folder: Path, *flags: str, job: str = "4242") -> list[Forked]:
    """Two tasks on one node, as srun would start them with the flags of docs/distributed.md."""
    arguments = ["--domain=toy", "--runs", str(folder), "--tracking.mode=disabled", "--checkpoint_every=3", *flags]
    arguments += ["--trainer=configs/trainer/ddp.yaml", "--trainer.devices=2", "--trainer.accelerator=cpu"]
    common = {
        "SLURM_JOB_ID": job, "SLURM_JOB_NAME": "large", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
    }  # fmt: skip
    each = [{**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return in_processes(when, arguments, ranks=2, of_rank=each)


def test_two_tasks_are_one_run_and_a_requeued_job_goes_on_exactly(tmp_path: Path) -> None:
    ended = srun("never", tmp_path, "--name=whole")
    assert [each.status for each in ended] == [0, 0], "\n".join(each.err for each in ended)
    whole = tmp_path / "toy" / "whole"
    assert digest(whole / LAST)[0] > 5
    cut = srun("on_train_batch_end:5:SIGTERM", tmp_path, "--name=cut", job="4243")  # --signal=TERM reaches every task
    assert [each.status for each in cut] == [143, 143], "\n".join(each.err for each in cut)
    assert not any("Traceback" in each.err for each in cut)
    assert digest(tmp_path / "toy" / "cut" / LAST)[0] == 6  # the step in whose reduction both learnt of it
    again = srun("never", tmp_path, f"--resume={tmp_path / 'toy' / 'cut'}", job="4243")
    assert [each.status for each in again] == [0, 0], "\n".join(each.err for each in again)
    assert digest(tmp_path / "toy" / "cut" / LAST) == digest(whole / LAST)
