"""Optional machine code for CPU loops: numba where it is installed, and a word of its own where it is not."""

import importlib.util
from collections.abc import Callable
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
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in
        return numba.njit(**options)(function)


def _copy_row(source: Any, target: Any) -> None:
    for place in range(source.shape[0]):
        target[place] = source[place]


copy_row = kernel(_copy_row, inline=True)
"""``target[: len(source)] = source`` in other kernels: that assignment itself compiles text for its errors, seconds."""
