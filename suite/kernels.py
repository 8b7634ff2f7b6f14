"""Optional machine code for CPU loops: numba where it is installed, and a word of its own where it is not."""

import hashlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

AVAILABLE = importlib.util.find_spec("numba") is not None
# NaN and infinity keep their meaning: a run that diverges must not look healthy.
_FAST = {"contract", "reassoc", "arcp", "nsz"}


def kernel(function: Callable[..., Any], *, inline: bool = False) -> Callable[..., Any]:
    """``function`` compiled at its first call and cached on disk where that can be written; as it is without numba."""
    if not AVAILABLE:
        return function
    import numba

    options: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy", "nogil": True}
    if inline:
        return numba.njit(inline="always", **options)(function)
    try:
        return stamped(numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder to cache in
        return numba.njit(**options)(function)


def stamped(compiled: Any) -> Any:
    """``compiled``, a cached kernel, so that what is on disk counts only for the same sources and kind of CPU.

    Numba asks whether the file of the function itself has changed, not those of the kernels that it calls; and these
    are part of its machine code, which then would write outside its arrays.
    """
    file = compiled._cache._cache_file
    file._source_stamp = (file._source_stamp, _sources(Path(compiled.py_func.__code__.co_filename).parent))
    return compiled


@cache
def _sources(folder: Path) -> str:
    """A digest of all modules beside this one and in ``folder``, and the vectors that there are."""
    import torch

    digest = hashlib.sha256(torch.backends.cpu.get_cpu_capability().encode())
    for place in (Path(__file__).parent, folder):
        for path in sorted(place.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _copy_row(source: Any, target: Any) -> None:
    for place in range(source.shape[0]):
        target[place] = source[place]


copy_row = kernel(_copy_row, inline=True)
"""``target[: len(source)] = source`` in other kernels: that assignment itself compiles text for its errors, seconds."""
