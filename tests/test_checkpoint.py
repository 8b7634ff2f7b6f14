"""Checkpoint files: whole or not there, verified, plain."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from suite import checkpoint, run_folder
from suite.errors import CheckpointError


def content(value: float) -> dict[str, Any]:
    record = checkpoint.make_record(settings={"domain": "toy"}, assets={})
    return {"state_dict": {"weight": torch.full((50,), value)}, checkpoint.RECORD_KEY: record}


def weight(path: Path) -> float:
    return float(checkpoint.read(path)["state_dict"]["weight"][0])


def test_written_and_read_back_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.ckpt"
    checkpoint.write(content(1.0), path)
    checkpoint.write(content(2.0), path)
    assert weight(path) == 2.0
    assert sorted(each.name for each in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.write(content(1.0), path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"last.ckpt: cannot write .*No space left on device"):
        checkpoint.write(content(2.0), path)
    monkeypatch.undo()
    assert weight(path) == 1.0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_write_that_fails_in_the_middle_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    (tmp_path / "last.ckpt.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        checkpoint.write(content(1.0), path)
    assert not path.exists()


def test_killed_between_writing_and_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.write(content(1.0), path)

    def stop(*names: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(content(2.0), path)
    monkeypatch.undo()
    assert weight(path) == 1.0


def test_a_second_name_survives_the_first(tmp_path: Path) -> None:
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    checkpoint.write(content(1.0), best)
    checkpoint.duplicate(best, last)
    checkpoint.write(content(2.0), last)
    assert (weight(best), weight(last)) == (1.0, 2.0)
    checkpoint.duplicate(best, last)
    assert weight(last) == 1.0


def test_where_links_are_not_to_be_had_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: Any) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.write(content(1.0), tmp_path / "best.ckpt")
    checkpoint.duplicate(tmp_path / "best.ckpt", tmp_path / "last.ckpt")
    assert weight(tmp_path / "last.ckpt") == 1.0


def test_later_formats_and_hyper_parameters_are_refused(tmp_path: Path) -> None:
    later = content(1.0)
    later[checkpoint.RECORD_KEY]["format"] = checkpoint.FORMAT + 1
    checkpoint.write(later, tmp_path / "later.ckpt")
    with pytest.raises(CheckpointError, match="newer than this version reads"):
        checkpoint.read(tmp_path / "later.ckpt")
    checkpoint.write({**content(1.0), "hyper_parameters": {"_instantiator": "os.system"}}, tmp_path / "poisoned.ckpt")
    with pytest.raises(CheckpointError, match="carries hyper-parameters"):
        checkpoint.read(tmp_path / "poisoned.ckpt")


def at_step(step: int, *, batches: int | None = None, **record: Any) -> dict[str, Any]:
    """A checkpoint of a run after ``step`` steps."""
    found = content(float(step))
    found[checkpoint.RECORD_KEY] |= record
    total = {"processed": step if batches is None else batches}
    return {**found, "global_step": step, "loops": {"fit_loop": {"epoch_loop.batch_progress": {"total": total}}}}


def test_the_newest_that_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / run_folder.CHECKPOINTS
    for step, name in ((4, "best"), (8, "last")):
        checkpoint.write(at_step(step), folder / f"{name}.ckpt")
        os.utime(folder / f"{name}.ckpt", (1000 - step, 1000 - step))  # the last has the earlier time
    assert run_folder.newest_checkpoint(tmp_path).name == "last.ckpt"
    with (folder / "last.ckpt").open("r+b") as file:
        file.truncate(100)
    assert run_folder.newest_checkpoint(tmp_path).name == "best.ckpt"
    assert "last.ckpt: damaged: 100 bytes" in capsys.readouterr().err


def test_of_one_step_the_newest_has_more_batches_and_then_is_the_last(tmp_path: Path) -> None:
    checkpoint.write(at_step(4, batches=9), tmp_path / "best.ckpt")
    checkpoint.write(at_step(4, batches=8), tmp_path / "last.ckpt")
    assert run_folder.newest_checkpoint(tmp_path).name == "best.ckpt"
    checkpoint.write(at_step(4, batches=9), tmp_path / "last.ckpt")
    assert run_folder.newest_checkpoint(tmp_path).name == "last.ckpt"


def test_averages_and_foreign_files_are_not_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.write(at_step(4), tmp_path / "step-0000004.ckpt")
    assert checkpoint.AVERAGED_KEY == "averaged"
    checkpoint.write(at_step(9, averaged={}), tmp_path / "average-last-2.ckpt")
    torch.save({"state_dict": {}, "global_step": 99}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert run_folder.newest_checkpoint(tmp_path).name == "step-0000004.ckpt"
    error = capsys.readouterr().err
    assert "other.ckpt: not a checkpoint of a run of this suite" in error
    assert "text.ckpt: cannot be read as a checkpoint (not a file of torch.save)" in error
    assert "average-last-2" not in error


def test_the_place_is_read_without_the_tensors(tmp_path: Path) -> None:
    large = {**at_step(7), "state_dict": {"weight": torch.zeros(1 << 24)}}  # 64 MiB
    checkpoint.write(large, tmp_path / "a.ckpt")
    for _ in range(2):
        begin = time.perf_counter()
        place = checkpoint.place_of(tmp_path / "a.ckpt")
        seconds = time.perf_counter() - begin
    assert (place.step, place.batches, place.averaged) == (7, 7, False)
    begin = time.perf_counter()
    checkpoint.verify(tmp_path / "a.ckpt")
    assert seconds < 0.5 * (time.perf_counter() - begin)


def test_a_copied_file_is_verified_by_its_own_digest(tmp_path: Path) -> None:
    """Without the file beside it that holds its digest; torch itself loads changed tensors."""
    path = tmp_path / "last.ckpt"
    checkpoint.write(content(1.0), path)
    checkpoint.digest_path(path).unlink()
    assert weight(path) == 1.0
    data = path.read_bytes()
    place = data.index(torch.full((50,), 1.0).numpy().tobytes())
    path.write_bytes(data[:place] + b"\0\0\0\x40" + data[place + 4 :])
    assert float(torch.load(path, weights_only=True)["state_dict"]["weight"][0]) == 2.0
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged: its SHA-256 is not the one at its end"):
        checkpoint.read(path)


def test_a_damaged_digest_is_an_error_and_a_missing_one_is_none(tmp_path: Path) -> None:
    """A file that torch loaded and saved again has none, and files of earlier versions have none either."""
    path = tmp_path / "last.ckpt"
    checkpoint.write(content(1.0), path)
    checkpoint.digest_path(path).unlink()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="damaged: the digest at its end"):
        checkpoint.read(path)
    torch.save(content(2.0), path)
    assert weight(path) == 2.0
    older = content(3.0)
    del older[checkpoint.RECORD_KEY][checkpoint.SEALED_KEY]
    torch.save(older, path)
    assert weight(path) == 3.0
