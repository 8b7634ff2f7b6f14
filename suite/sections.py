"""The sections of a diagnosis: time, padding, gradients by layer and by time lag, memory.

Another section is a function from ``Observed`` to ``Section``, or to ``None`` where it does not apply, in ``SECTIONS``.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from suite.data import SuiteDataModule
from suite.module import SuiteModule
from suite.probe import UNKNOWN, Padding, Probe, layers_of
from suite.recurrent.gradient_watch import Watch
from suite.step_profile import PARTS, StepProfile, StepTimes

_BATCHES = 2000  # of the first epoch whose padding is counted
_LAGS, _LAG_ROWS = (0, 1, 2, 5, 10, 20, 50, 100, 200), 32


class Observed(NamedTuple):
    """A recipe that was run for some steps.

    ``module`` and ``batch`` (the last one) are on the same device, ``trainer`` has stopped, ``folder`` is its run
    folder. The first ``warm_up`` steps of ``profile`` are not to be counted.
    """

    module: SuiteModule
    data: SuiteDataModule
    trainer: Trainer
    profile: StepProfile
    probe: Probe
    batch: Any
    folder: Path
    warm_up: int

    @property
    def steps(self) -> list[StepTimes]:
        """Times of the measured steps; all of them where a run ended in its warm-up."""
        return self.profile.steps[self.warm_up :] or self.profile.steps


class Column(NamedTuple):
    """A column by name, and how its values are shown."""

    name: str
    show: Callable[[Any], str] = str


class Section(NamedTuple):
    """A table: ``rows`` hold plain values in the order of ``columns``; ``None`` is shown as a dash."""

    name: str
    columns: Sequence[Column]
    rows: list[tuple[Any, ...]]
    notes: Sequence[str] = ()

    def values(self) -> list[dict[str, Any]]:
        """Rows by name of column: what is written to a file."""
        return [dict(zip((column.name for column in self.columns), row, strict=True)) for row in self.rows]

    def lines(self) -> list[str]:
        """The table as text: words to the left, figures to the right."""
        cells = [[column.name for column in self.columns]]
        for row in self.rows:
            cells.append(
                ["-" if value is None else column.show(value) for column, value in zip(self.columns, row, strict=True)]
            )
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.columns))]
        first, *others = widths
        lines = [
            "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
            for row in cells
        ]
        return [*(line.rstrip() for line in lines), *(f"({note})" for note in self.notes)]


def _milliseconds(value: float) -> str:
    return f"{value:,.2f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _megabytes(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def _figure(value: float) -> str:
    return f"{value:.3g}"


def _count(value: int) -> str:
    return f"{value:,}"


def time_section(seen: Observed) -> Section:
    """Mean time of a batch in each part, and its share. ``tracking`` is all callbacks, loggers and checkpoints."""
    steps = seen.steps
    total = sum(step.total for step in steps) / len(steps)
    rows: list[tuple[Any, ...]] = []
    for part in PARTS:
        mean = sum(step.parts[part] for step in steps) / len(steps)
        rows.append((part, 1000 * mean, mean / total))
    rows.append(("total", 1000 * total, 1.0))
    warm = len(seen.profile.steps) > seen.warm_up
    note = f"means of {len(steps)} batches" + ("" if warm else ", the run's first, which are slower")
    columns = (Column("time"), Column("ms a batch", _milliseconds), Column("share", _share))
    return Section("time", columns, rows, [note])


def padding_section(seen: Observed) -> Section:
    """Share of padding by part of a batch, and over the first epoch by the lengths that batches are cut by."""
    rows: list[tuple[Any, ...]] = [
        (name, found.valid, found.padded, found.share) for name, found in seen.probe.padding.items()
    ]
    whole, batches = epoch_padding(seen.data)
    rows.append((f"first {batches} batches" if batches == _BATCHES else "first epoch", *whole, whole.share))
    columns = (Column("padding"), Column("steps", _count), Column("with padding", _count), Column("share", _share))
    note = (
        f"by part of a batch in the {seen.probe.seen} batches seen; then {batches} batches by the lengths of examples"
    )
    return Section("padding", columns, rows, [note])


def epoch_padding(data: SuiteDataModule) -> tuple[Padding, int]:
    """Padding of the training batches of the first epoch, all parts added up, and how many batches were looked at."""
    table = torch.as_tensor(data.examples("train").lengths)
    table = table.reshape(len(table), -1)
    found = Padding()
    sampler: Any = data.loader("train", shuffle=True).batch_sampler
    batches = list(islice(sampler, _BATCHES))
    for keys in batches:
        indices = torch.tensor([key[1] for key in keys])
        lengths = table[indices.clamp_min(0)] * (indices >= 0).unsqueeze(1)  # a row without an example is padding
        for part in lengths.unbind(dim=1):
            found = found.plus(part)
    return found, len(batches)


def layer_section(seen: Observed) -> Section:
    """Gradient norms by layer, over optimiser steps: of the mean loss, before penalties and clipping."""
    parameters = list(seen.module.parameters())
    norms = torch.stack(seen.probe.norms) if seen.probe.norms else torch.full((1, len(parameters)), UNKNOWN)
    rows: list[tuple[Any, ...]] = []
    for name, places in [*layers_of(seen.module).items(), ("all", list(range(len(parameters))))]:
        chosen = [parameters[place] for place in places]
        weight = _total([parameter.detach().double().norm() for parameter in chosen])
        gradient, note = _layer_norm(norms[:, places]), ""
        if not any(parameter.requires_grad for parameter in chosen):
            note = "frozen"
        elif gradient is None:
            note = "no gradient"
        elif not torch.isfinite(gradient).all():
            note = "not finite"
        elif not gradient.any():
            note = "zero"
        mean, most = (None, None) if gradient is None else (float(gradient.mean()), float(gradient.max()))
        ratio = mean / weight if mean is not None and weight else None
        rows.append((name, sum(parameter.numel() for parameter in chosen), mean, most, weight, ratio, note))
    columns = (
        Column("layer"), Column("parameters", _count), Column("gradient", _figure), Column("largest", _figure),
        Column("weight", _figure), Column("gradient/weight", _figure), Column("note"),
    )  # fmt: skip
    return Section("layers", columns, rows, [f"norms over {len(seen.probe.norms)} optimiser steps, before clipping"])


def _layer_norm(norms: Tensor) -> Tensor | None:
    """Norms ``(S, P)`` of parameters as one of their layer, for the steps that it is known of; ``None`` for none."""
    known = norms != UNKNOWN  # also where it is not a number
    steps = known.any(dim=1)
    if not steps.any():
        return None
    return torch.where(known, norms, 0.0)[steps].square().sum(dim=1).sqrt()


def _total(norms: Sequence[Tensor]) -> float:
    return float(torch.stack([norm.cpu() for norm in norms]).norm())


def lag_section(seen: Observed) -> Section | None:
    """Norms of the gradient of the mean loss by the lag from a row's last output to a state, of the batch seen last.

    ``None`` where no recurrent encoder took part.
    """
    watch = Watch(seen.module)
    if not watch.encoders:
        return None
    try:
        # The contexts of a training step: precision, and what it makes of a batch.
        with torch.enable_grad(), seen.trainer.precision_plugin.train_step_context():
            output = seen.module.compute(seen.batch)
            loss = output.loss_sum / output.weight
        loss.backward()
    finally:
        watch.close()
        seen.module.zero_grad(set_to_none=True)
    flows = watch.flows(rows=_LAG_ROWS)
    if not flows:
        return None
    rows: list[tuple[Any, ...]] = []
    for name, flow in flows.items():
        norms = flow.norms[:, -1].tolist()  # of the last layer
        for lag in sorted({*(lag for lag in _LAGS if lag < len(norms)), len(norms) - 1}):
            rows.append((name, lag, norms[lag], norms[lag] / norms[0] if norms[0] else None))
    halves = ", ".join(f"{name} {_figure(flow.half_life())}" for name, flow in flows.items())
    notes = [
        "of the mean loss, through a row's last output, with respect to the last layer's state so many steps before it",
        f"means over those of {_LAG_ROWS} rows at most that are so long; what reads backwards ends at the first step",
        f"steps in which it halves, negative where it grows: {halves}",
    ]
    columns = (Column("encoder"), Column("lag", _count), Column("gradient", _figure), Column("of lag 0", _figure))
    return Section("lags", columns, rows, notes)


def memory_section(seen: Observed) -> Section:
    """Bytes of what training holds, and of the whole process or device at most."""
    memory = seen.probe.memory
    held: list[tuple[str, int | None]] = [
        ("parameters", memory.parameters),
        ("buffers", memory.buffers),
        ("gradients", memory.gradients),
        ("optimiser state", memory.optimiser),
        ("process before training", memory.before),
        ("process at most", memory.peak),
    ]
    if memory.device_peak is not None:
        known = memory.parameters + memory.buffers + memory.gradients + memory.optimiser
        held.append(("device at most", memory.device_peak))
        held.append(("of that activations and the like", memory.device_peak - known))
    files = seen.folder.rglob("*.ckpt")
    held.append(("a checkpoint on disk", max((path.stat().st_size for path in files), default=None)))
    rows: list[tuple[Any, ...]] = [(name, None if count is None else count / 1e6) for name, count in held]
    return Section("memory", (Column("memory"), Column("MB", _megabytes)), rows)


SECTIONS: tuple[Callable[[Observed], Section | None], ...] = (
    time_section,
    padding_section,
    layer_section,
    lag_section,
    memory_section,
)
