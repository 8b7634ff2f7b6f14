"""From plain settings to objects and back, typed by the constructors' own signatures."""

import dataclasses
import enum
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from suite.errors import CheckpointError


def plain(value: Any) -> Any:
    """Settings as JSON types: what goes into checkpoints, config files and trackers."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part) for part in value]
    if isinstance(value, enum.Enum):
        return plain(value.value)
    # Restricted numbers are subclasses of int and float, which safe YAML and weights_only refuse.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def build(kind: type, settings: dict[str, Any], *, source: str | Path, **fixed: Any) -> Any:
    """Make a ``kind`` from ``settings``, checked against its signature, and from the ``fixed`` arguments as they are.

    Raises:
        CheckpointError: a setting that ``kind`` does not have, or of the wrong type; ``source`` is the checkpoint.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "settings", skip=set(fixed), instantiate=False)
    try:
        parsed = parser.instantiate(parser.parse_object({"settings": settings}))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(misfit(source, f"'s {kind.__name__}", reason)) from None
    try:
        return kind(**fixed, **vars(parsed.settings))
    except CheckpointError as error:  # of what travels with the settings, which knows no file
        raise CheckpointError(f"{source}: {error}") from None


def misfit(source: str | Path, part: str, reason: str) -> str:
    """What is said of the checkpoint ``source`` whose settings are not such as this version (``part`` of it) has."""
    return (
        f"{source}: its settings do not fit this version{part} ({reason}): use the version it was trained with, or "
        "another checkpoint"
    )
