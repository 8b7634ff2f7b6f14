"""Digests of nested values of any kind: what an example holds, with types and shapes."""

import dataclasses
import enum
import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

SIZE = 8
"""Bytes of a digest."""


def digest_value(value: Any, *, skipped: Collection[Any] = ()) -> bytes:
    """A digest of a nested value, with types and shapes; ``skipped`` fields at its top do not count."""
    hasher = hashlib.blake2b(digest_size=SIZE)
    _feed(hasher, value, skipped=skipped, inside=())
    return hasher.digest()


def _feed(hasher: Any, value: Any, *, skipped: Collection[Any] = (), inside: tuple[int, ...]) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.to_dense() if value.layout != torch.strided else value
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)}\0".encode())
        hasher.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    elif isinstance(value, numpy.ndarray) and value.dtype != object:
        hasher.update(f"array {value.dtype.str} {value.shape}\0".encode() + numpy.ascontiguousarray(value).tobytes())
    elif isinstance(value, str | bytes | bytearray | Path):
        content = bytes(value) if isinstance(value, bytes | bytearray) else str(value).encode("utf-8", "surrogatepass")
        hasher.update(f"{type(value).__name__} {len(content)}\0".encode() + content)
    elif value is None or isinstance(value, bool | int | float | complex | numpy.generic | enum.Enum):
        hasher.update(f"{type(value).__name__} {value!r}\0".encode())
    elif isinstance(value, type) or hasattr(value, "__qualname__"):
        hasher.update(f"{value.__qualname__}\0".encode())
    elif id(value) in inside:
        hasher.update(b"again\0")
    elif isinstance(value, dict):
        _feed_fields(hasher, value.items(), kind="dict", skipped=skipped, inside=(*inside, id(value)))
    elif isinstance(value, tuple | list | numpy.ndarray):
        kind = "sequence" if isinstance(value, tuple | list) else f"objects {value.shape}"
        parts = value.reshape(-1) if isinstance(value, numpy.ndarray) else value
        _feed_fields(hasher, enumerate(parts), kind=kind, skipped=skipped, inside=(*inside, id(value)))
    elif isinstance(value, set | frozenset):
        hasher.update(f"set {len(value)}\0".encode() + b"".join(sorted(digest_value(part) for part in value)))
    elif hasattr(value, "__array__"):  # a picture of PIL, say
        _feed(hasher, numpy.asarray(value), inside=inside)
    elif dataclasses.is_dataclass(value) or getattr(value, "__dict__", None):
        kind = type(value).__qualname__
        _feed_fields(hasher, vars(value).items(), kind=kind, skipped=skipped, inside=(*inside, id(value)))
    else:
        _feed_fields(
            hasher,
            enumerate(_parts_of(value)),
            kind=type(value).__qualname__,
            skipped=(),
            inside=(*inside, id(value)),
        )


def _feed_fields(
    hasher: Any, fields: Iterable[tuple[Any, Any]], *, kind: str, skipped: Collection[Any], inside: tuple[int, ...]
) -> None:
    fields = list(fields)
    hasher.update(f"{kind} {len(fields)}\0".encode())
    for key, part in fields:
        hasher.update(f"{key!r}\0".encode())
        if key in skipped:
            hasher.update(b"index\0")
        else:
            _feed(hasher, part, inside=inside)


def _parts_of(value: Any) -> list[Any]:
    """What an object of another kind would be copied from; nothing of one that cannot be copied, as an open file."""
    try:
        parts = value.__reduce_ex__(2)
    except Exception:
        return []
    return [parts] if isinstance(parts, str) else [list(part) if isinstance(part, Iterator) else part for part in parts]
