"""Optional Numba kernels for loops on a CPU, with a fallback when Numba is missing."""

import ast
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

    Numba asks whether the file of the function itself has changed. Kernels and constants of other modules are part of
    its machine code too: with old ones it would compute something else, or write outside its arrays.
    """
    import numba

    try:
        found = numba.njit(cache=True, **options)(function)
        file = found._cache._cache_file
        file._source_stamp = (file._source_stamp, _sources(function.__module__, Path(function.__code__.co_filename)))
        return found
    except (RuntimeError, AttributeError):  # no folder to cache in; nothing compiled, or stamps kept elsewhere
        return numba.njit(**options)(function)


@cache
def _sources(module: str, file: Path) -> str:
    """A digest of all modules that a kernel of ``module`` in ``file`` can be compiled from, and of the CPU's vectors.

    These are the module, the modules of the project that it imports, those that they import, and so on.
    """
    import torch

    digest = hashlib.sha256(torch.backends.cpu.get_cpu_capability().encode())
    for path in sorted(_imported(module, file) | {Path(__file__)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _imported(module: str, file: Path) -> set[Path]:
    """``file`` and the files of the project's modules that it imports, directly or not.

    The project is this package, the domains and the package of ``module``. Imports are found in the source text,
    wherever they stand in it; nothing is imported.
    """
    package = file.parents[module.count(".")] if file.stem != "__init__" else file.parents[module.count(".") + 1]
    roots = {Path(__file__).parents[1], package}
    names = {"suite", "domains", module.split(".")[0]}
    found: set[Path] = set()
    waiting = [(module, file)]
    while waiting:
        name, path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for other in _names_imported(name, path):
            if other.split(".")[0] in names:
                waiting += [(other, each) for root in roots if (each := _file_of(root, other)) is not None]
    return found


@cache
def _names_imported(module: str, path: Path) -> frozenset[str]:
    """Dotted names that may be modules, of each import in the source of ``module``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") + (["__init__"] if path.stem == "__init__" else [])
            above = parts[: len(parts) - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{each.name}" for each in node.names)}
    return frozenset(names)


def _file_of(root: Path, module: str) -> Path | None:
    """The source of a module under ``root``; ``None`` if there is none."""
    place = root.joinpath(*module.split("."))
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _copy_row(source: Any, target: Any) -> None:
    for place in range(source.shape[0]):
        target[place] = source[place]


copy_row = kernel(_copy_row, inline=True)
"""``target[: len(source)] = source`` in other kernels: that assignment itself compiles text for its errors, seconds."""
