"""How checkpoints are written: the digest is that of the file, and no second copy is made in memory."""

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from suite import checkpoint
from suite.errors import CheckpointError

MEMORY = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def content(*sizes: int) -> dict[str, Any]:
    record = checkpoint.make_record(settings={"domain": "toy"}, assets={})
    tensors = {str(number): torch.randint(0, 255, (size,), dtype=torch.uint8) for number, size in enumerate(sizes)}
    return {"state_dict": tensors, checkpoint.RECORD_KEY: record}


def test_the_digest_is_that_of_the_file_for_small_and_large_tensors(tmp_path: Path) -> None:
    piece, path = checkpoint._PIECE, tmp_path / "last.ckpt"
    least = checkpoint._WORTH_A_THREAD
    written = content(0, 1, 4095, least - 1, least, least + 1, piece - 1, piece, 2 * piece + 17)
    checkpoint.write(written, path)
    note = json.loads(checkpoint.digest_path(path).read_text())
    assert note == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
    read = checkpoint.read(path)["state_dict"]
    for name, tensor in written["state_dict"].items():
        assert torch.equal(read[name], tensor)


class _TakesLittle(io.RawIOBase):
    """A file that takes at most a thousand and one bytes at a time, as files may."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def write(self, data: Any) -> int:
        part = bytes(memoryview(data)[:1001])
        self.taken += part
        return len(part)

    def fileno(self) -> int:
        return -1  # nothing that can be flushed early


@pytest.mark.parametrize("size", [10, 5000, checkpoint._WORTH_A_THREAD + 5])
def test_a_file_that_takes_less_than_given_gets_all_of_it(size: int) -> None:
    data, file = bytes(range(256)) * (size // 256 + 1), _TakesLittle()
    with ThreadPoolExecutor(max_workers=1) as hasher:
        writer = checkpoint._DigestWriter(cast(Any, file), hasher)
        assert writer.write(data) == len(data) == writer.size
    assert bytes(file.taken) == data
    assert writer.hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_in_a_large_tensor_is_one_line_and_torch_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        checkpoint.write(content(2 * checkpoint._PIECE), tmp_path / "last.ckpt")
    assert torch.serialization.get_crc32_options() is True
    assert not (tmp_path / "last.ckpt").exists()


def _peak() -> int:
    line = next(line for line in MEMORY[1].read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not MEMORY[0].exists(), reason="needs Linux to measure the peak of memory")
def test_no_second_copy_in_memory(tmp_path: Path) -> None:
    written = content(*[1 << 25] * 4)
    checkpoint.write(content(1 << 25), tmp_path / "first.ckpt")
    MEMORY[0].write_text("5")  # forget the peak so far
    before = _peak()
    checkpoint.write(written, tmp_path / "last.ckpt")
    assert _peak() - before < 1 << 24, "an eighth of what was written"
    # The measure itself would see a copy.
    copied = [tensor.clone() for tensor in written["state_dict"].values()]
    assert _peak() - before > 1 << 26, len(copied)
