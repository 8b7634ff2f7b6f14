"""A disk that is full ends a run with one line and loses nothing, in one process and in two."""

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from tests.commands import with_callback
from tests.forked import Forked, in_processes
from tests.test_resume import digest


class Fill(Callback):
    """A limit on the size of files stands in for a disk without space: writing fails half way in the same manner."""

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 5 and os.environ.get("FILL") and trainer.is_global_zero:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))


@pytest.fixture(autouse=True)
def _filling(monkeypatch: pytest.MonkeyPatch) -> None:
    with_callback(monkeypatch, Fill())


def fit(folder: Path, *flags: str, ranks: int, variables: dict[str, str] | None = None) -> list[Forked]:
    arguments = ["--domain=toy", "--runs", str(folder), "--tracking.mode=disabled", "--checkpoint_every=2", *flags]
    arguments += ["--trainer.accelerator=cpu", "--trainer.max_epochs=2"]
    arguments += ["--trainer.devices=2", "--trainer.strategy=ddp"] if ranks == 2 else []
    return in_processes("never", arguments, ranks=ranks, variables=variables)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.distributed)])
def test_a_full_disk_ends_the_run_and_loses_nothing(ranks: int, tmp_path: Path) -> None:
    first, *others = fit(tmp_path, "--name=cut", ranks=ranks, variables={"FILL": "1"})
    assert first.status == 1
    line = first.err.strip().split("\n")[-1]
    assert "cannot write the checkpoint" in line
    assert "free space" in line
    assert "Traceback" not in first.err
    for other in others:
        assert other.status == 1
        # Rank 0 has printed the reason; a rank that cannot tell in time whether it did says that another one ended.
        assert "cannot write the checkpoint" not in other.err
        assert "Traceback" not in other.err
    folder, last = tmp_path / "toy", Path("checkpoints") / "last.ckpt"
    assert not list((folder / "cut" / "checkpoints").glob("*.tmp"))
    assert digest(folder / "cut" / last)[0] == 4
    for flags in (["--name=whole"], [f"--resume={folder / 'cut'}"]):
        ended = fit(tmp_path, *flags, ranks=ranks)
        assert [each.status for each in ended] == [0] * ranks, "\n".join(each.err for each in ended)
    assert digest(folder / "cut" / last) == digest(folder / "whole" / last)
