"""The name that is not known in a message, and the known one that was meant."""

import difflib
import re
from collections.abc import Iterable


def unknown_name(message: str) -> str | None:
    """The dotted name in a message that something is not known; ``None`` in others."""
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message, flags=re.IGNORECASE):
        return found.group(1)
    # In configuration files a key is named without dashes.
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return f"{found.group(1)}.{found.group(2)}"
    found = re.search(r"Option '([\w.]+)' is not accepted", message)
    return found.group(1) if found else None


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that ``given`` was meant to be: alike as a whole, or in its last part (``hiden``, ``lr``)."""
    names = sorted(name for name in known if name and name.split(".")[-1] != "help")
    whole = difflib.get_close_matches(given, names, n=1, cutoff=0.85)
    if whole:
        return whole[0]
    group, _, last = given.rpartition(".")
    inside = [name for name in names if name.rpartition(".")[0] == group] if group else names
    by_part: dict[str, str] = {}
    for name in inside:
        part = name.rpartition(".")[2]
        for word in (part, part.split("_")[0]):
            by_part.setdefault(word, name)
    initials = "".join(word[:1] for word in last.split("_"))
    if "_" in last and initials in by_part:
        return by_part[initials]
    near = difflib.get_close_matches(last, sorted(by_part), n=1, cutoff=0.6)
    if near:
        return by_part[near[0]]
    elsewhere = [name for name in names if name.rpartition(".")[2] == last]
    return elsewhere[0] if len(elsewhere) == 1 else None
