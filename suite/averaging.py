"""``average``: the mean of the weights of several checkpoints of one run.

The average of the last checkpoints of a run is often better than each of them (Polyak and Juditsky 1992; Izmailov et
al. 2018). It is written as a checkpoint that evaluates, predicts and is a source for fine-tuning; it has no optimiser
state, so no run goes on from it.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from suite import checkpoint as files
from suite.checkpoint import AVERAGED_KEY, RECORD_KEY, digest_path, read, weights_of
from suite.console import notice, report
from suite.errors import CheckpointError, UsageError
from suite.parser import SuiteParser
from suite.resume import changes
from suite.run_folder import CHECKPOINTS
from suite.run_lock import locked

_MODES = ("min", "max")


class Saved(NamedTuple):
    """A checkpoint file of a run: ``monitored`` is name, mode and value, or ``None`` if its record has none."""

    path: Path
    step: int
    monitored: dict[str, Any] | None
    sha256: str


def list_checkpoints(folder: Path) -> list[Saved]:
    """The checkpoints of a run by what their own records say, newest step first, each step once.

    Of several files of one step (the best that is also the last) the one with a monitored value is given. Averages are
    left out.

    Args:
        folder: a run folder, or the folder of its checkpoints.

    Raises:
        CheckpointError: no such folder, no checkpoint in it, or a damaged one.
    """
    inside = folder / CHECKPOINTS if (folder / CHECKPOINTS).is_dir() else folder
    if not inside.is_dir():
        raise CheckpointError(f"{folder}: no folder of a run: give one, such as runs/DOMAIN/NAME")
    by_step: dict[int, Saved] = {}
    for path in sorted(inside.glob("*.ckpt")):
        content = read(path, mmap=True)
        record = content[RECORD_KEY]
        if AVERAGED_KEY in record:
            continue
        saved = Saved(path, _step_of(content, path), _monitored(record, path), _digest(path))
        known = by_step.get(saved.step)
        if known is None or (known.monitored is None and saved.monitored is not None):
            by_step[saved.step] = saved
    if not by_step:
        raise CheckpointError(f"{inside}: there is no checkpoint: train first")
    return sorted(by_step.values(), key=lambda saved: saved.step, reverse=True)


def _step_of(content: dict[str, Any], path: Path) -> int:
    step = content.get("global_step")
    if not isinstance(step, int):
        raise CheckpointError(f"{path}: does not say after how many steps it was written")
    return step


def _monitored(record: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """Name, mode and value; ``None`` without, or where the value was never measured or is not a number."""
    found = record.get("monitored")
    if found is None:
        return None
    if not isinstance(found, dict) or not {"name", "mode", "value"} <= found.keys() or found["mode"] not in _MODES:
        raise CheckpointError(f"{path}: what it says was monitored is not whole: name, mode and value are expected")
    usable = isinstance(found["value"], int | float) and not math.isnan(found["value"])
    return found if usable else None


def _digest(path: Path) -> str:
    """The SHA-256 of a file that was just verified: from the file beside it, or computed where there is none."""
    note = digest_path(path)
    if note.is_file():
        return str(json.loads(note.read_text())["sha256"])
    notice(f"{path}: there is no {note.name} beside it: it cannot be verified")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose(saved: Sequence[Saved], *, by: Literal["last", "best"], count: int | None) -> list[Saved]:
    """The last or the best ``count`` of ``saved``, all of them for ``None``; the best first where ``by`` is best.

    Raises:
        UsageError: fewer than that, or fewer than two.
        CheckpointError: ``best``, and no file says what was monitored, or they do not say the same.
    """
    candidates = sorted(saved, key=lambda each: each.step, reverse=True)
    folder, without = saved[0].path.parent, ""
    if by == "best":
        candidates = _ranked(candidates)
        without = " with a monitored value" if len(candidates) < len(saved) else ""
    if len(candidates) < max(count or 2, 2):
        there = f"{folder}: {len(candidates)} checkpoint(s) of different steps{without}"
        if len(candidates) < 2:
            raise UsageError(f"{there}: an average needs two or more; keep more of them in training")
        raise UsageError(f"{there}, --{by} asks for {count}: use --{by} {len(candidates)}")
    if count == 1:
        raise UsageError(f"--{by} is 1, allowed is 2 or more: the average of one checkpoint is itself")
    return candidates[:count]


def _ranked(saved: Sequence[Saved]) -> list[Saved]:
    """Those with a monitored value, best first; of equals the newer one first."""
    known = [(each, each.monitored) for each in saved if each.monitored is not None]
    if not known:
        raise CheckpointError(f"{saved[0].path.parent}: no checkpoint says what was monitored: use --last")
    kinds = {(monitored["name"], monitored["mode"]) for _, monitored in known}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{name} ({mode})" for name, mode in kinds))
        raise CheckpointError(f"{saved[0].path.parent}: checkpoints monitored different things: {names}; use --last")
    sign = 1.0 if known[0][1]["mode"] == "min" else -1.0
    return [each for each, monitored in sorted(known, key=lambda pair: (sign * pair[1]["value"], -pair[0].step))]


def mean_checkpoint(saved: Sequence[Saved], *, by: str) -> dict[str, Any]:
    """The checkpoint whose floating weights are the means of those of ``saved``.

    Means are taken in float64 (complex128) and cast back; whole numbers and flags are those of the newest. Tensors that
    are one in every file (tied weights) stay one. Memory holds one checkpoint: files are read where they lie.

    Raises:
        CheckpointError: files that are not of one run: other settings, assets, or names, shapes and types of weights;
            or a weight that is not a finite number.
    """
    newest_first = sorted(saved, key=lambda each: each.step, reverse=True)
    contents = [read(each.path, mmap=True) for each in newest_first]
    newest, record = contents[0], contents[0][RECORD_KEY]
    for each in newest_first:
        if _digest(each.path) != each.sha256:
            raise CheckpointError(f"{each.path}: was replaced meanwhile: wait until the run has ended")
    for each, content in zip(newest_first[1:], contents[1:], strict=True):
        _refuse_others(newest_first[0].path, newest, each.path, content)
    weights = _mean([weights_of(content) for content in contents], [each.path for each in newest_first])
    of = [
        {"name": each.path.name, "step": each.step, "sha256": each.sha256, "monitored": each.monitored}
        for each in newest_first
    ]
    kept: dict[str, Any] = {
        key: newest[key] for key in ("epoch", "global_step", "pytorch-lightning_version") if key in newest
    }
    described: dict[str, Any] = {key: value for key, value in record.items() if key != "monitored"}
    return {**kept, "state_dict": weights, RECORD_KEY: {**described, AVERAGED_KEY: {"by": by, "of": of}}}


def _refuse_others(path: Path, first: dict[str, Any], other_path: Path, other: dict[str, Any]) -> None:
    records = [content[RECORD_KEY] for content in (first, other)]
    differences = changes(records[0]["settings"], records[1]["settings"])
    if differences:
        raise CheckpointError(f"{other_path} is not of the run of {path.name}: {', '.join(differences[:3])}")
    if records[0]["assets"] != records[1]["assets"]:
        raise CheckpointError(f"{other_path} is not of the run of {path.name}: its vocabulary or labels are others")
    shapes = [
        {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in content["state_dict"].items()}
        for content in (first, other)
    ]
    odd = [name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)]
    if odd:
        raise CheckpointError(f"{other_path} does not have the weights of {path.name}: {', '.join(sorted(odd)[:3])}")


def _mean(states: Sequence[dict[str, Tensor]], paths: Sequence[Path]) -> dict[str, Tensor]:
    means: dict[str, Tensor] = {}
    shared: dict[Any, Tensor] = {}
    for name in states[0]:
        tensors = [state[name] for state in states]
        place = tuple((tensor.data_ptr(), tensor.shape, tensor.stride()) for tensor in tensors)
        if tensors[0].numel() == 0 or place not in shared:
            shared[place] = _mean_of(tensors, name, paths)
        means[name] = shared[place]
    return means


def _mean_of(tensors: Sequence[Tensor], name: str, paths: Sequence[Path]) -> Tensor:
    kind = tensors[0].dtype
    if not (kind.is_floating_point or kind.is_complex):
        return tensors[0].clone()
    for tensor, path in zip(tensors, paths, strict=True):
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: its weight {name} is not finite: leave this checkpoint out")
    total = tensors[0].to(torch.complex128 if kind.is_complex else torch.float64, copy=True)
    for tensor in tensors[1:]:
        total += tensor
    return (total / len(tensors)).to(kind)


def average(arguments: Sequence[str]) -> None:
    """Average checkpoints of a run and write the result.

    Raises:
        UsageError: flags that cannot be meant, or an output that exists.
        CheckpointError: see ``list_checkpoints``, ``choose`` and ``mean_checkpoint``.
    """
    options = _parser().parse_args(list(arguments))
    if options.last is not None and options.best is not None:
        raise UsageError("--last and --best exclude each other: give one")
    by: Literal["last", "best"] = "last" if options.best is None else "best"
    count = options.last if options.best is None else options.best
    folder = Path(options.run)
    saved = list_checkpoints(folder)
    chosen = choose(saved, by=by, count=None if count is None else int(count))
    output = _output(options.output, saved[0].path.parent, f"average-{by}-{len(chosen)}.ckpt")
    in_a_run = (output.parent / CHECKPOINTS).is_dir()
    with locked(output.parent) if in_a_run else contextlib.nullcontext():
        files.write(mean_checkpoint(chosen, by=by), output)
    for each in chosen:
        value = "" if each.monitored is None else f"  {each.monitored['name']} {each.monitored['value']:.4f}"
        report(f"  {each.path}  step {each.step}{value}")
    report(f"Average of {len(chosen)} checkpoints: {output}")


def _output(given: str | None, inside: Path, name: str) -> Path:
    """Where to write: beside the folder of checkpoints, never into it, where it would pass for one to go on from."""
    output = inside.parent / name if given is None else Path(given)
    if output.resolve().parent == inside.resolve():
        raise UsageError(f"--output {output}: this folder is for what a run goes on from: choose another")
    if output.exists():
        raise UsageError(f"{output}: this file exists: choose another --output")
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no such folder: make it, or choose another --output")
    return output


def _parser() -> SuiteParser:
    parser = SuiteParser(
        prog="average.py", allow_abbrev=False, usage="average.py RUN [--last N | --best K] [--output FILE]",
        description="Average the weights of checkpoints of a run: all that it kept, the last N, or the best K.",
    )  # fmt: skip
    parser.add_argument("run", type=str, help="A run folder.")
    parser.add_argument("--last", type=PositiveInt | None, default=None, help="The newest so many.")
    parser.add_argument(
        "--best", type=PositiveInt | None, default=None, help="The so many with the best monitored value."
    )
    parser.add_argument(
        "--output", type=cast(Any, str | None), default=None,
        help="File to write; average-last-N.ckpt or average-best-K.ckpt in the run folder if not given.",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser
