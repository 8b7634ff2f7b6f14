"""Saving a large checkpoint against one sequential write and fsync of the same bytes."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from suite import checkpoint
from suite.cli import Domains
from suite.errors import SuiteError
from suite.timing import Row, compare

_LAYERS, _SIZE = 25, 2000  # 100 million parameters
_PIECE = 1 << 24
_SETTLE = 0.5  # seconds after a large file was removed, for the disk to be at rest


def measure(*, domains: Domains, domain: str | None, rounds: int) -> list[Row]:
    """A row for 100 million parameters with Adam's state, written below the current folder."""
    try:
        with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as folder:
            return [saving(Path(folder), rounds=rounds)]
    except OSError as error:
        raise SuiteError(f"{Path.cwd()}: cannot write here ({error.strerror}): 2.5 GB are needed for a while") from None


def saving(folder: Path, *, rounds: int, layers: int = _LAYERS, size: int = _SIZE) -> Row:
    """``suite.checkpoint.write`` with its digest, all flushed, against the bare write; each to a name that is free."""
    content = trained(layers, size=size)
    views = [memoryview(cast(Any, tensor.numpy())).cast("B") for tensor in tensors_in(content)]

    def bare(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            for view in views:
                for start in range(0, view.nbytes, _PIECE):
                    file.write(view[start : start + _PIECE])
            os.fsync(file.fileno())

    sides: dict[str, Callable[[Path], None]] = {"ours": lambda path: checkpoint.write(content, path), "reference": bare}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, write in sides.items():
            path = folder / f"{name}-{turn}.ckpt"
            begin = time.perf_counter()
            write(path)
            if turn:
                times[name].append(time.perf_counter() - begin)
            for each in folder.iterdir():
                each.unlink()
            time.sleep(_SETTLE)
    count = layers * size * size
    total = sum(view.nbytes for view in views)
    fastest = {side: [min(seconds)] for side, seconds in times.items()}  # a shared disk stalls now and then
    speed = total / fastest["ours"][0] / 1e9
    name = f"saving {count / 1e6:,.0f} million parameters with Adam's state over one write and fsync"
    note = f"{total / 1e9:.1f} GB, {speed:.2f} GB/s, the fastest of {rounds} rounds each"
    return compare(name, fastest, bar=1.5, note=note)


def trained(layers: int, *, size: int) -> dict[str, Any]:
    """A checkpoint as training writes it: weights, and Adam's two moments of each."""
    module = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(layers)))
    optimizer = torch.optim.Adam(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    weights = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    record = checkpoint.make_record(settings={}, assets={})
    return {"state_dict": weights, "optimizer_states": [optimizer.state_dict()], checkpoint.RECORD_KEY: record}


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        return [value.reshape(-1)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]
