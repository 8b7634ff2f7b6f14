"""Which settings depend on others, and the refusal of a given setting that has no effect.

A class of settings declares ``only_with``: for each setting that not every run uses, what must hold for it to be used.
Names are those of the same class, or dotted from the top (``data.mel.bands``). ``refuse_unused`` checks what a user
gave against all declarations of a command.
"""

import dataclasses
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from suite.console import notice
from suite.errors import DataError, UsageError, gather

_OFF: tuple[Any, ...] = (None, False, 0, [])  # to switch off what is not used is no mistake

_OF_EVERY_RUN = {"domain", "task", "seed", "threads"}
"""Settings that the ``config.yaml`` of a run states, and a recipe written by hand hardly all of them."""
Values = Mapping[str, Any]
"""Settings by dotted name."""


@dataclass(frozen=True)
class Needs:
    """What a setting needs to have an effect.

    Args:
        names: settings that decide it. Without the first of them in a command, nothing is decided; others are ``None``.
        holds: called with their values.
        cure: what would give the setting an effect; ``{0}`` is the full name of the first of ``names``.
        why: the reason, if nothing would give it one.
    """

    names: tuple[str, ...]
    holds: Callable[..., bool]
    cure: str = ""
    why: str = ""


Declared = Mapping[str, Needs | Sequence[Needs]]


def one_of(name: str, *values: Any) -> Needs:
    """The setting ``name`` is one of ``values``."""
    shown = [str(value) for value in values]
    text = " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return Needs((name,), lambda value: value in values, f"set {{0}} to {text}")


def is_set(name: str) -> Needs:
    """The setting ``name`` is there: not null, not false, not 0, not an empty list."""
    return Needs((name,), bool, "set {0}")


def above(name: str, least: float) -> Needs:
    """The setting ``name`` is a number above ``least``."""
    return Needs((name,), lambda value: value is not None and value > least, f"set {{0}} above {least:g}")


def any_above_zero(*names: str) -> Needs:
    """One of the settings ``names`` is a number above 0."""
    cure = "set one of " + ", ".join(f"{{{place}}}" for place in range(len(names))) + " above 0"
    return Needs(names, lambda *values: any(value for value in values), cure)


def never(why: str) -> Needs:
    """Nothing gives the setting an effect; ``why`` says it to a person."""
    return Needs((), lambda: False, why=why)


def only_without_source(why: str) -> Needs:
    """The run does not begin with the weights of another."""
    return Needs(("finetune.assets",), lambda _: False, why=why)


def held_out_share(*divided: str) -> Needs:
    """A share of the training items is held out: val or test is not given, or there are folds.

    Args:
        divided: named data sets that bring all three splits.
    """

    def holds(dataset: str, val: Any, test: Any, folds: Any) -> bool:
        return folds is not None or (dataset not in divided and not (dataset == "files" and val and test))

    cure = "leave {1} or {2} out if it is given, or choose a {0} without val and test"
    return Needs(("dataset", "val", "test", "folds"), holds, cure)


def a_table(is_table: Callable[[str], bool]) -> Needs:
    """One of the given files is a table."""

    def holds(dataset: str, *paths: Any) -> bool:
        files = [file for path in paths if path for file in ([path] if isinstance(path, str) else path)]
        return dataset == "files" and any(_is_one(str(file)) for file in files)

    def _is_one(file: str) -> bool:
        try:
            return not os.path.isdir(file) and is_table(file)
        except DataError:  # a missing file: whoever reads it says so
            return True

    return Needs(("dataset", "train", "val", "test"), holds, "use {0} files with a table in {1}, {2} or {3}")


NEW_ASSETS = Needs(("finetune.assets",), lambda assets: assets == "data", "set {0} to data")
"""Vocabularies and labels are made from the data, not taken from the source of a fine-tuning run."""

VALIDATION = Needs(
    ("trainer.limit_val_batches",), lambda limit: limit is None or limit > 0, "set {0} above 0, which validates"
)


@dataclass(frozen=True)
class Given:
    """What a user gave by itself, as opposed to defaults.

    Args:
        layers: settings by dotted name: of each recipe, in their order, and last those of the command line.
        base: the settings without all of them.
        decided: settings that a command varies itself: they count as given after all others.
    """

    layers: Sequence[Values]
    base: Values
    decided: Collection[str] = ()

    def last(self, name: str) -> int:
        """The last layer that gives ``name``; -1 for none."""
        if name in self.decided:
            return len(self.layers)
        return max((place for place, layer in enumerate(self.layers) if name in layer), default=-1)


def declared(kind: type, prefix: str = "", *, skip: Collection[str] = ()) -> Iterator[tuple[str, str, Needs]]:
    """Full name, prefix and need of each setting that ``kind`` and the dataclasses among its arguments declare.

    ``skip`` names arguments that are no settings.
    """
    for name, needs in getattr(kind, "only_with", {}).items():
        for need in [needs] if isinstance(needs, Needs) else needs:
            yield f"{prefix}{name}", prefix, need
    for name, parameter in inspect.signature(kind).parameters.items():
        inner = parameter.annotation
        if name not in skip and isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from declared(inner, f"{prefix}{name}.")


class Unused(NamedTuple):
    """Given settings without effect: ``problems`` by name, and those of a choice that something later undid."""

    problems: dict[str, str]
    undone: dict[str, list[str]]


def find_unused(values: Values, given: Given, needs: Collection[tuple[str, str, Needs]]) -> Unused:
    """What a user gave and the command does not use.

    A recipe may be written for several choices: its settings that a later recipe or a flag switches off are no mistake.
    The same holds for a recipe that states everything, such as a run's own, if the value is the default.

    Args:
        values: the settings in force, by dotted name.
        given: which of them a user gave.
        needs: as ``declared`` yields them.
    """
    problems: dict[str, str] = {}
    undone: dict[str, list[str]] = {}
    top = len(given.layers)
    for declared_name, prefix, need in needs:
        names = [_full(each, prefix, values) for each in need.names]
        if (names and names[0] not in values) or need.holds(*(values.get(each) for each in names)):
            continue
        because = need.why or " and ".join(
            [f"{each} is {_shown(values[each])}" for each in names if values.get(each) is not None]
            or [f"{each} is not set" for each in names]
        )
        decides = max((given.last(each) for each in names), default=-1)
        for name in values:
            layer = given.last(name)
            if layer < 0 or not f"{name}.".startswith(f"{declared_name}.") or values[name] in _OFF:
                continue
            recipe = layer < top - 1
            if recipe and decides == layer and values[name] == given.base.get(name):
                continue
            of_a_run = recipe and given.layers[layer].keys() >= _OF_EVERY_RUN
            if (of_a_run and decides == layer) or (decides > layer and (recipe or decides == top)):
                undone.setdefault(because, []).append(name)
            else:
                cure = f"{need.cure.format(*names)}, or leave" if need.cure else "leave"
                problem = f"{name} is {_shown(values[name])}, which has no effect because {because}: {cure} {name} out"
                problems.setdefault(name, problem)
    return Unused(problems, undone)


def refuse_unused(values: Values, given: Given, needs: Collection[tuple[str, str, Needs]]) -> None:
    """Refuse what ``find_unused`` finds, and report what was undone.

    Raises:
        UsageError: each setting with the reason and what to do.
    """
    problems, undone = find_unused(values, given, needs)
    gather([*problems.values()], error=UsageError)
    for because, names in undone.items():
        notice(f"settings: {because}, so these given settings are not used: {', '.join(names)}")


def _full(name: str, prefix: str, values: Values) -> str:
    """``name`` in the group of its declaration if there is such a setting, else as it stands."""
    return f"{prefix}{name}" if f"{prefix}{name}" in values or name not in values else name


def _shown(value: Any) -> str:
    """A value as YAML spells it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
