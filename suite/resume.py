"""Going on with a run: which settings may differ from those that it began with."""

from pathlib import Path
from typing import Any

from suite.checkpoint import AVERAGED_KEY
from suite.errors import UsageError
from suite.run_folder import CHECKPOINTS

# None of these touches the order of examples, a random draw or an update. More epochs stretch schedules that end.
MAY_CHANGE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.enable_progress_bar",
    "data.num_workers",
    "tracking.",
    "samples",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_last",
    "keep_best",
    "max_skipped",
)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _is_same(key: str, before: Any, after: Any) -> bool:
    """Whether a setting is unchanged. In settings that count batches, 1 is a single one and 1.0 is all of them."""
    counts = key.startswith(("trainer.limit_", "trainer.val_check_interval"))
    return before == after and (not counts or type(before) is type(after))


def changes(old: dict[str, Any], new: dict[str, Any], *, may_change: tuple[str, ...] = MAY_CHANGE) -> list[str]:
    """The settings that differ between two runs and may not within one, each with both values."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key} (was {before.get(key)}, now {after.get(key)})"
        for key in sorted(before.keys() | after.keys())
        if not _is_same(key, before.get(key), after.get(key)) and not key.startswith(may_change)
    ]


def refuse_changes(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Compare the settings asked for with those that a run began with.

    Raises:
        UsageError: naming each setting that differs and may not.
    """
    changed = changes(old, new)
    if changed:
        raise UsageError(
            f"--resume goes on with the settings of the run; these differ: {', '.join(changed)}. "
            f"Leave them out, or begin a new run; what may change: {', '.join(name.rstrip('.') for name in MAY_CHANGE)}"
        )


def refuse_new_place(resume: str, *, name: str | None, runs: str | None) -> None:
    """A run that goes on keeps its name and its folder.

    Args:
        resume: what goes on: a checkpoint, a run folder, or auto, which looks for one in ``runs``.
        name: of a new run, if one was given.
        runs: folder of all runs, if one was given.

    Raises:
        UsageError: a name, or a folder of runs that the run is not in.
    """
    if name is not None:
        raise UsageError(f"--name {name}: a run that goes on with --resume keeps its name: leave one of both out")
    path = Path(resume).resolve()
    in_a_run = CHECKPOINTS in (path.name, path.parent.name) or (path / CHECKPOINTS).is_dir()
    if runs is not None and resume != "auto" and in_a_run and Path(runs).resolve() not in path.parents:
        raise UsageError(f"--runs {runs}: --resume {resume} is of a run elsewhere, where it goes on: leave --runs out")


def refuse_average(record: dict[str, Any], path: Path) -> None:
    """An average of checkpoints is no place in a run.

    Raises:
        UsageError: ``record`` is that of an average.
    """
    if AVERAGED_KEY in record:
        raise UsageError(
            f"--resume {path}: an average of checkpoints has no optimiser state to go on from: "
            "resume the run itself; evaluate and predict take the average"
        )
