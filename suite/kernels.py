"""Optional machine code for CPU loops: numba where it is installed, and a word of its own where it is not."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# Without its compiler numba would run the loops as plain Python, thousands of times slower than torch.
AVAILABLE = importlib.util.find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
# NaN and infinity keep their meaning: a run that diverges must not look healthy.
_FAST = {"contract", "reassoc", "arcp", "nsz"}


def kernel(function: Callable[..., Any], *, inline: bool = False) -> Callable[..., Any]:
    """``function`` compiled at its first call and cached on disk where that can be written; as it is without numba."""
    if not AVAILABLE:
        return function
    import numba

    options: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy", "nogil": True}
    return numba.njit(inline="always", **options)(function) if inline else compiled(function, options)


def compiled(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """``function`` by numba with ``options``, kept on disk where that can be written, for the same sources and CPU.

    Numba asks whether the file of the function itself has changed, not those of the kernels that it calls; and these
    are part of its machine code, which then would write outside its arrays.
    """
    import numba

    try:
        found = numba.njit(cache=True, **options)(function)
        file = found._cache._cache_file
        file._source_stamp = (file._source_stamp, _sources(Path(function.__code__.co_filename).parent))
        return found
    except (RuntimeError, AttributeError):  # no folder to cache in; nothing compiled, or stamps kept elsewhere
        return numba.njit(**options)(function)


@cache
def _sources(folder: Path) -> str:
    """A digest of the modules with kernels beside this one and in ``folder``, and the vectors that there are."""
    import torch

    digest = hashlib.sha256(torch.backends.cpu.get_cpu_capability().encode())
    for place in sorted({Path(__file__).parent, folder}):
        for path in sorted(place.glob("*.py")):
            content = path.read_bytes()
            if b"numba" in content or b"suite.kernels" in content or b"vector_math" in content:
                digest.update(content)
    return digest.hexdigest()


def _copy_row(source: Any, target: Any) -> None:
    for place in range(source.shape[0]):
        target[place] = source[place]


copy_row = kernel(_copy_row, inline=True)
"""``target[: len(source)] = source`` in other kernels: that assignment itself compiles text for its errors, seconds."""
