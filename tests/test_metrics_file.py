"""metrics.csv: one row a step, whole at any moment, and the same after a resume as without one."""

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from suite.errors import SuiteError
from suite.metrics_file import MetricsFile


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def header(folder: Path) -> str:
    return (folder / "metrics.csv").read_text().splitlines()[0]


def log(logger: MetricsFile, step: int | None, **metrics: object) -> None:
    """As Lightning does it: log, then save."""
    logger.log_metrics(metrics, step)
    logger.save()


def test_calls_of_one_step_share_a_row_and_columns_keep_their_order(tmp_path):
    logger = MetricsFile(tmp_path / "run")
    log(logger, 0, loss=0.5, epoch=0)
    log(logger, 1, loss=0.25, epoch=0)
    log(logger, 1, val=2, epoch=0)
    log(logger, 2, other=1.0, loss=0.125)
    assert header(tmp_path / "run") == "step,epoch,loss,val,other"
    rows = read(tmp_path / "run")
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert rows[1] == {"step": "1", "epoch": "0", "loss": "0.25", "val": "2", "other": ""}
    assert [row["loss"] for row in rows] == ["0.5", "0.25", "0.125"]


def test_a_second_value_for_the_same_step_and_name_is_kept_in_its_own_row(tmp_path):
    logger = MetricsFile(tmp_path)
    log(logger, 3, val=1.0)
    log(logger, 3, val=2.0)
    log(logger, None, more=1)
    assert [(row["step"], row["val"], row["more"]) for row in read(tmp_path)] == [("3", "1.0", ""), ("3", "2.0", "1")]


def test_rows_reach_the_disk_with_the_next_step_and_at_the_end(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    logger.log_metrics({"a": 2.0}, 1)
    assert len(read(tmp_path)) == 1
    logger.finalize("failed")
    assert len(read(tmp_path)) == 2


def test_values_of_every_kind(tmp_path):
    logger = MetricsFile(tmp_path)
    numbers = {
        "int": 3,
        "float": 0.1,
        "tensor": torch.tensor(1.5),
        "count": torch.tensor(7),
        "numpy": np.float64(2.5),
        "flag": True,
        "nan": float("nan"),
        "inf": torch.tensor(float("inf")),
        "low": -float("inf"),
        "a,b": 1,
    }
    log(logger, 0, **numbers)
    row = read(tmp_path)[0]
    assert list(row.values()) == ["0", "", "3", "0.1", "1.5", "7", "2.5", "1", "nan", "inf", "-inf", "1"]
    log(logger, 0, nan=float("nan"))
    assert len(read(tmp_path)) == 1


def test_resume_drops_later_rows_and_ends_like_a_run_that_never_stopped(tmp_path):
    def play(logger: MetricsFile, steps: range) -> None:
        for step in steps:
            log(logger, step, loss=1 / (step + 1), epoch=step // 2)
            if step % 2 == 1:
                log(logger, step, val=float(step), epoch=step // 2)

    play(MetricsFile(tmp_path / "whole"), range(6))
    play(MetricsFile(tmp_path / "cut"), range(5))
    resumed = MetricsFile(tmp_path / "cut")
    resumed.resume_from(3)
    assert [row["step"] for row in read(tmp_path / "cut")] == ["0", "1", "2", "3"]
    play(resumed, range(3, 6))  # step 3 comes again: it must not be doubled
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


def test_resume_without_a_file_or_rows_to_keep(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.resume_from(10)
    log(logger, 5, a=1)
    logger.resume_from(2)
    assert read(tmp_path) == []
    log(logger, 3, a=2, b=1)
    log(logger, 4, a=3)
    assert [(row["step"], row["a"], row["b"]) for row in read(tmp_path)] == [("3", "2", "1"), ("4", "3", "")]


def test_a_line_cut_by_a_kill_is_dropped_and_rows_follow_whole(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,loss\n0,0,0.5\n1,0,0.")
    logger = MetricsFile(tmp_path)
    log(logger, 1, loss=0.25, epoch=0)
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch,loss\n0,0,0.5\n1,0,0.25\n"


def test_a_file_saved_by_an_editor_is_continued(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"step,epoch,loss\r\n0,0,0.5\r\n\r\n1,0,0.25\r\n")
    log(MetricsFile(tmp_path), 2, loss=0.125, epoch=1)
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,epoch,loss\n0,0,0.5\n1,0,0.25\n2,1,0.125\n"


def test_an_existing_file_is_continued(tmp_path):
    log(MetricsFile(tmp_path), 7, loss=0.5)
    log(MetricsFile(tmp_path), 0, test=1.0)
    assert [(row["step"], row["loss"], row["test"]) for row in read(tmp_path)] == [("7", "0.5", ""), ("0", "", "1.0")]


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SuiteError, match=r"metrics\.csv: not a metrics file of ours"):
        log(MetricsFile(tmp_path), 0, a=1)


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    logger = MetricsFile(tmp_path)
    log(logger, 0, a=1)
    before = (tmp_path / "metrics.csv").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SuiteError, match=r"metrics\.csv: cannot write the metrics \(No space left"):
        log(logger, 1, b=1)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.csv"]


def test_a_folder_that_cannot_be_made_names_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SuiteError, match=r"file/run/metrics\.csv: cannot write"):
        log(MetricsFile(tmp_path / "file" / "run"), 0, a=1)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = MetricsFile(tmp_path / "run")
    log(logger, 0, a=1)
    logger.resume_from(0)
    logger.finalize("success")
    assert not (tmp_path / "run").exists()


def test_lightning_finds_its_properties(tmp_path):
    logger = MetricsFile(tmp_path / "run")
    assert (logger.name, logger.version, logger.save_dir, logger.root_dir) == (
        "run",
        "",
        str(tmp_path / "run"),
        str(tmp_path / "run"),
    )
