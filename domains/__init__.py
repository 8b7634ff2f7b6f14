"""The domains, found by folder. Standard library only: this runs before torch is imported."""

import importlib
from pathlib import Path
from typing import Any


def available() -> list[str]:
    """Names of the domains: the folders here that hold a package."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))


def load(name: str) -> Any:
    """The ``suite.domain.Domain`` of that name; imports it, and torch with it."""
    return importlib.import_module(f"domains.{name}").DOMAIN
