"""Two processes that are signalled, killed, or given different things; launchers; weights that are shared out."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import domains
from suite.errors import CheckpointError
from suite.run_folder import newest_checkpoint
from tests.commands import ROOT
from tests.finetuned import source_of
from tests.forked import free_port, in_processes, rank_variables
from tests.test_distributed import FLAGS, compare, rows
from tests.test_resume import STATUS, digest
from tests.toy.data import SineData

pytestmark = pytest.mark.distributed
DDP = ["--trainer", str(ROOT / "configs" / "trainer" / "ddp.yaml"), "--trainer.devices=2", "--trainer.accelerator=cpu"]
FSDP = ["--trainer", str(ROOT / "configs" / "trainer" / "fsdp.yaml"), *DDP[2:]]


class Ended:
    """A command that ran: its status, what it wrote to standard error, and how long after a signal all had ended.

    ``left`` are processes that were still there ten seconds after the command itself.
    """

    def __init__(self, status: int, err: str, seconds: float, left: list[int]) -> None:
        self.status, self.err, self.seconds, self.left = status, err, seconds, left


def environment(**more: str) -> dict[str, str]:
    """As a shell would have it, with a mark by which the processes of a command can be found."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SUITE_RUN")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SUITE_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def toy(when: str, folder: Path, *flags: str) -> list[str]:
    common = ["--domain=toy", "--runs", str(folder), "--tracking.mode=disabled"]
    return [sys.executable, "-m", "tests.interrupted", when, "fit", *common, *flags]


def both(folder: Path, *flags: str, steps: Path) -> None:
    """Two ranks of the toy domain to their end."""
    arguments = toy("never", folder, "--checkpoint_every=2", *flags, *DDP)[5:]
    ended = in_processes("never", arguments, ranks=2, variables={"STEPS_FILE": str(steps)})
    assert [each.status for each in ended] == [0, 0], "\n".join(each.err for each in ended)


def launch(command: list[str], *, steps: Path | None = None) -> Ended:
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        signalled = Path(folder) / "signalled"
        more = {"SUITE_TEST_MARK": mark, "KILL_FILE": str(signalled), **({"STEPS_FILE": str(steps)} if steps else {})}
        done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=240, cwd=ROOT)
        until = time.monotonic() + 10
        while marked(mark) and time.monotonic() < until:
            time.sleep(0.05)
        seconds = time.time() - signalled.stat().st_mtime if signalled.exists() else 0.0
    left = marked(mark)
    for number in left:
        os.kill(number, signal.SIGKILL)
    return Ended(done.returncode, done.stderr, seconds, left)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    both(folder, "--name=whole", steps=folder / "steps")
    return folder


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


MOMENTS = ("on_train_batch_end:3", "on_train_batch_end:4", "on_train_epoch_end:1", "on_train_epoch_start:2")
CASES = [
    ("on_train_batch_end:2", "SIGTERM", 1),
    ("on_train_batch_end:3", "SIGKILL", 1),
    slow("on_train_batch_end:2", "SIGTERM", 0),
    slow("on_validation_batch_end:1", "SIGTERM", 1),
    *(slow(moment, by, rank) for moment in MOMENTS for by in STATUS for rank in (0, 1)),
]


@pytest.mark.parametrize(("moment", "by", "rank"), CASES)
def test_two_processes_go_on_exactly(moment: str, by: str, rank: int, whole: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    cut = launch(toy(f"{moment}:{by}:{rank}", tmp_path, "--name=cut", "--checkpoint_every=2", *DDP), steps=before)
    assert not cut.left
    assert 0 < cut.seconds < 10
    folder = tmp_path / "toy" / "cut"
    if by != "SIGKILL":
        assert cut.status == STATUS[by], cut.err
        assert "Traceback" not in cut.err
        assert f"--resume {folder}" in cut.err
    else:  # the one that is left says what happened in a line
        assert cut.status == (1 if rank else -9)  # rank 0 is the command itself
        assert "another process of this run ended" in cut.err
        assert "Traceback" not in cut.err
    last = Path("checkpoints") / "last.ckpt"
    done = _batches(newest_checkpoint(folder))  # killed between two names of a checkpoint, the last is not the newest
    if by != "SIGKILL":  # both processes made the same steps, and the checkpoint has them all
        assert len(before.read_text().splitlines()) == 2 * done
    both(tmp_path, f"--resume={folder}", steps=after)
    assert digest(folder / last) == digest(whole / "toy" / "whole" / last)
    total = len((whole / "steps").read_text().splitlines())
    assert len(after.read_text().splitlines()) == total - 2 * done


def _batches(path: Path) -> int:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"])


@pytest.mark.parametrize("rank", [slow(0), 1])
def test_an_error_in_one_process_ends_both(rank: int, tmp_path: Path) -> None:
    ended = launch(toy(f"on_train_batch_end:2:RAISE:{rank}", tmp_path, "--name=a", *DDP))
    assert ended.status != 0
    assert "raised on purpose" in ended.err
    assert not ended.left
    assert 0 < ended.seconds < 10


def test_another_number_of_processes_is_refused(whole: Path) -> None:
    ended = launch(toy("never", whole, f"--resume={whole / 'toy' / 'whole'}", "--trainer.devices=1"))
    assert ended.status == 2
    assert "trainer.devices (was 2, now 1)" in ended.err


def test_another_world_size_is_refused_by_the_data(tmp_path: Path) -> None:
    """Where the settings are the same (devices auto) on a machine with another number of devices."""
    data = SineData()
    data.trainer = cast(Any, SimpleNamespace(world_size=1, global_rank=0))
    state = {"position": [0, 3], "fingerprint": data.fingerprint(), "world_size": 2}
    with pytest.raises(CheckpointError, match=r"trained by 2 process\(es\) and cannot go on with 1: .* or begin a new"):
        data.load_state_dict(state)
    data.load_state_dict({**state, "world_size": 1})
    assert data.train_dataloader().batch_sampler.start_batch == 3  # type: ignore[union-attr]


def on_ranks(commands: list[list[str]], **more: str) -> list[subprocess.CompletedProcess[str]]:
    """Start each command as one rank, as torchrun or SLURM would, and wait for all."""
    port = free_port()
    processes = []
    for rank, command in enumerate(commands):
        variables = rank_variables(rank, len(commands), port)
        processes.append(
            subprocess.Popen(
                command, env=environment(**variables, **more), cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    finished = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        finished.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return finished


def test_different_settings_on_two_ranks_end_both(tmp_path: Path) -> None:
    flags = ["--name=a", *DDP]
    began = time.monotonic()
    ended = on_ranks([toy("never", tmp_path, *flags), toy("never", tmp_path, *flags, "--optim.lr=0.5", "--seed=3")])
    assert time.monotonic() - began < 60
    assert [each.returncode for each in ended] == [2, 2]
    for each in ended:
        assert "processes were given different settings" in each.stderr
        assert "optim.lr (rank 0: 0.01, rank 1: 0.5)" in each.stderr
        assert "seed (rank 0: 0, rank 1: 3)" in each.stderr
        assert "Traceback" not in each.stderr


def torchrun(folder: Path, *, nodes: int, node: int, port: int, flags: list[str]) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node-rank={node}"]
    command += [f"--nproc-per-node={2 // nodes}", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return [*command, "-m", "tests.toy.command", "fit", "--domain=toy", "--runs", str(folder), *flags]


def test_two_torchrun_nodes_equal_one_launch(whole: Path, tmp_path: Path) -> None:
    port = free_port()
    flags = ["--name=nodes", "--tracking.mode=disabled", "--checkpoint_every=2", *DDP]
    flags += ["--trainer.devices=1", "--trainer.num_nodes=2"]
    started = [
        subprocess.Popen(
            torchrun(tmp_path, nodes=2, node=node, port=port, flags=flags),
            env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    ended = [(process.communicate(timeout=180)[1], process.returncode) for process in started]
    assert [status for _, status in ended] == [0, 0], ended[0][0] + ended[1][0]
    last = Path("checkpoints") / "last.ckpt"
    one, other = (torch.load(run / last, weights_only=True) for run in (tmp_path / "toy/nodes", whole / "toy/whole"))
    assert one["global_step"] == other["global_step"]
    for name, weights in one["state_dict"].items():
        assert torch.equal(weights, other["state_dict"][name]), name


@pytest.mark.slow
def test_a_launcher_needs_a_name(tmp_path: Path) -> None:
    ended = on_ranks([toy("never", tmp_path, *DDP)] * 2)
    assert [each.returncode for each in ended] == [2, 2]
    assert "--name is needed where a launcher starts the processes" in ended[0].stderr


@pytest.mark.parametrize("name", ["toy", *map(slow, domains.available())])
def test_shared_out_weights_make_the_steps_of_one_process(name: str, tmp_path: Path) -> None:
    runs = {}
    for ranks, kind, flags in ((1, "one", ["--data.batch_size=16"]), (2, "two", ["--data.batch_size=8", *FSDP])):
        common = ["--domain", name, "--runs", str(tmp_path), "--name", kind, "--tracking.mode=disabled"]
        common += ["--trainer.accelerator=cpu", "--checkpoint_every=3"]
        ended = in_processes("never", [*common, *FLAGS[name], *flags], ranks=ranks)
        assert [each.status for each in ended] == [0] * ranks, "\n".join(each.err for each in ended)
        runs[kind] = tmp_path / name / kind
    first, second = (torch.load(runs[kind] / "checkpoints" / "last.ckpt", weights_only=True) for kind in runs)
    assert first["global_step"] == second["global_step"] > 0
    for key, weight in first["state_dict"].items():
        torch.testing.assert_close(second["state_dict"][key], weight, rtol=1e-4, atol=1e-5, msg=key)
    compare(rows(runs["one"]), rows(runs["two"]))


@pytest.mark.parametrize("policy", ["epochs", pytest.param("at_once", marks=pytest.mark.slow)])
def test_shared_out_weights_are_fine_tuned_by_group(policy: str, tmp_path: Path) -> None:
    """Sharing weights out replaces every parameter: groups, rates and what is frozen hold for those that took over."""
    source = source_of("toy", [])
    last = {}
    for ranks, kind, flags in ((1, "one", ["--data.batch_size=16"]), (2, "two", ["--data.batch_size=8", *FSDP])):
        argv = ["--domain", "toy", "--runs", str(tmp_path), "--name", kind, "--tracking.mode=disabled", *FLAGS["toy"]]
        argv += ["--trainer.accelerator=cpu", "--source", str(source), f"--finetune.unfreeze={policy}", *flags]
        ended = in_processes("never", [*argv, "--finetune.lr_factor=0.5"], verb="finetune", ranks=ranks)
        assert [each.status for each in ended] == [0] * ranks, "\n".join(each.err for each in ended)
        last[kind] = torch.load(tmp_path / "toy" / kind / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["one"]["global_step"] == last["two"]["global_step"] > 0
    begun = torch.load(source, weights_only=True)["state_dict"]
    for key, weight in last["one"]["state_dict"].items():
        torch.testing.assert_close(last["two"]["state_dict"][key], weight, rtol=1e-4, atol=1e-5, msg=key)
    assert any(not torch.equal(weight, begun[key]) for key, weight in last["two"]["state_dict"].items())


@pytest.mark.slow
def test_shared_out_weights_go_on_after_a_kill(tmp_path: Path) -> None:
    last = Path("checkpoints") / "last.ckpt"
    flags = ["--checkpoint_every=2", *FSDP]
    assert launch(toy("never", tmp_path, "--name=whole", *flags)).status == 0
    assert launch(toy("on_train_batch_end:3:SIGKILL:1", tmp_path, "--name=cut", *flags)).status != 0
    ended = launch(toy("never", tmp_path, f"--resume={tmp_path / 'toy' / 'cut'}", *flags))
    assert ended.status == 0, ended.err
    assert digest(tmp_path / "toy" / "cut" / last) == digest(tmp_path / "toy" / "whole" / last)
    refused = launch(toy("never", tmp_path, "--name=no", "--ema_decay=0.9", *FSDP))
    assert refused.status == 2
    assert "ema_decay needs whole weights" in refused.err
