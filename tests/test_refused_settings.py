"""Settings that cannot be meant: each is one line with what was given, what is allowed and what to do."""

from pathlib import Path
from typing import Any

import pytest

from suite.errors import UsageError
from suite.trainer_settings import check_validation_interval
from tests.commands import assert_one_line, fit_toy
from tests.forked import in_processes

INTERVAL = "--trainer.val_check_interval"


def test_a_validation_after_more_batches_than_an_epoch_has_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    parts = (
        "trainer.val_check_interval is 9",
        "an epoch has 8 training batch",
        "1 to 8",
        "check_val_every_n_epoch null",
    )
    assert_one_line(fit_toy("--runs", tmp_path, "--name=a", INTERVAL, 9), 2, *parts)
    assert not (tmp_path / "toy").exists()
    ran = fit_toy("--runs", tmp_path, "--name=a", INTERVAL, 9, "--trainer.check_val_every_n_epoch=null")
    assert ran.status == 0, ran.err


@pytest.mark.parametrize(
    ("interval", "given", "allowed"),
    [
        (8, {}, None),
        (9, {}, 8),
        (9, {"check_val_every_n_epoch": None}, None),
        (9, {"limit_val_batches": 0}, None),
        (1.0, {"limit_train_batches": 3}, None),
        ("00:00:01:00", {}, None),
        (8, {"limit_train_batches": 3}, 3),
        (8, {"limit_train_batches": 30}, None),
        (8, {"limit_train_batches": 0.5}, 4),
    ],
)
def test_which_intervals_are_refused(interval: Any, given: dict[str, Any], allowed: int | None) -> None:
    usual = {"check_val_every_n_epoch": 1, "limit_val_batches": None, "limit_train_batches": None}
    settings = {**usual, **given, "val_check_interval": interval}
    if allowed is None:
        check_validation_interval(settings, 8)
        return
    with pytest.raises(UsageError, match=f"val_check_interval is {interval}, .* allowed is 1 to {allowed}, or"):
        check_validation_interval(settings, 8)


@pytest.mark.distributed
def test_two_processes_have_fewer_batches_each(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--name=a", f"{INTERVAL}=6"]
    flags += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    for ended in in_processes("never", flags, ranks=2):
        assert ended.status == 2, ended.err
        assert "an epoch has 4 training batch(es)" in ended.err
        assert "Traceback" not in ended.err
    assert not (tmp_path / "toy" / "a").exists()
