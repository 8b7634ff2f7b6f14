"""Gradients by time lag of a model in training: a watch on its recurrent encoders for one pass, and a callback."""

import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from suite.errors import UsageError
from suite.recurrent.encoder import Encoded, RecurrentEncoder
from suite.recurrent.gradient_flow import GradientFlow, gradient_by_lag, gradient_each_way, gradient_figure, measured
from suite.recurrent.unroll import State
from suite.tracking import log_image

ROWS, MAX_STEPS = 4, 500


class _Seen(NamedTuple):
    encoder: RecurrentEncoder
    given: dict[str, Any]  # what the encoder was called with
    encoded: Encoded


class Watch:
    """Keeps what each ``RecurrentEncoder`` of ``module`` reads in a forward pass, and its outputs' gradients.

    To be closed after the backward pass. Of several calls of an encoder the last one counts.
    """

    def __init__(self, module: nn.Module) -> None:
        self._seen: dict[str, _Seen] = {}
        self.encoders = {name: each for name, each in module.named_modules() if isinstance(each, RecurrentEncoder)}
        self._hooks = [
            each.register_forward_hook(self._keep(name), with_kwargs=True) for name, each in self.encoders.items()
        ]

    def _keep(self, name: str) -> Any:
        def keep(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], encoded: Encoded) -> None:
            if encoded.outputs.requires_grad:
                encoded.outputs.retain_grad()
                encoded.state[0].retain_grad()  # what reads the last state alone has its gradient here
                given = dict(zip(("inputs", "lengths", "state", "condition", "begins"), args, strict=False)) | kwargs
                self._seen[name] = _Seen(cast(RecurrentEncoder, encoder), given, encoded)

        return keep

    def close(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def flows(self, *, rows: int = ROWS, max_steps: int = MAX_STEPS) -> dict[str, GradientFlow]:
        """By encoder: for the loss's own gradient with respect to each row's last output, of the first ``rows`` rows.

        A bidirectional encoder has two, ``NAME.forward`` and ``NAME.backward``. One that the loss did not reach has
        none.
        """
        found: dict[str, GradientFlow] = {}
        for name, seen in self._seen.items():
            chosen = (seen.encoded.lengths > 0).nonzero().squeeze(1)[:rows]
            slopes = seen.encoded.outputs.grad, seen.encoded.state[0].grad
            if not len(chosen) or all(slope is None for slope in slopes):
                continue
            condition = seen.given.get("condition")
            settings: dict[str, Any] = {
                "state": _start(seen, chosen),
                "condition": None if condition is None else condition[chosen],
                "probe": _last_slopes(seen, chosen),
                "max_steps": max_steps,
            }
            measure: Any = gradient_by_lag if seen.encoder.num_directions == 1 else gradient_each_way
            flow = measure(seen.encoder, seen.given["inputs"][chosen], seen.encoded.lengths[chosen], **settings)
            ways = {"": flow} if isinstance(flow, GradientFlow) else flow
            found |= {".".join(filter(None, (name, way))): each for way, each in ways.items()}
        return found


def _start(seen: _Seen, rows: Tensor) -> State | None:
    """The state that ``rows`` began from, where one was handed in: their own first one where they were to begin."""
    state, begins = seen.given.get("state"), seen.given.get("begins")
    if state is None:
        return None
    state = tuple(part[rows].detach() for part in state)
    if begins is None:
        return state
    inputs = seen.given["inputs"][rows].to(next(seen.encoder.parameters()).dtype)
    with measured(seen.encoder), torch.no_grad():
        return seen.encoder.begin(state, begins[rows], inputs, seen.encoded.lengths[rows])


def _last_slopes(seen: _Seen, rows: Tensor) -> Tensor:
    """The loss's gradient with respect to what each direction gives last ``(rows, directions H)``."""
    encoder, encoded = seen.encoder, seen.encoded
    slopes = encoded.outputs.new_zeros(len(rows), encoder.output_size)
    ends = (encoded.lengths[rows] - 1, torch.zeros_like(rows))  # backward ends at the first step
    for way, (end, share) in enumerate(zip(ends, slopes.chunk(encoder.num_directions, dim=1), strict=False)):
        size = encoder.hidden_size
        if encoded.outputs.grad is not None:
            share += encoded.outputs.grad[rows, end, way * size : (way + 1) * size]
        if encoded.state[0].grad is not None and not encoder.options.residual:
            share += encoded.state[0].grad[rows, way - encoder.num_directions]
    return slopes


class GradientFlowCallback(Callback):
    """Logs gradients by lag and by layer while training, for each ``RecurrentEncoder`` of the module.

    Every ``every_n_steps`` batches it takes what the encoder read in that batch, and the loss's own gradient with
    respect to each row's last output, and measures it on at most ``rows`` of them, both ways where the encoder reads
    both ways. Scalars (the norm at some lags, the half-life, the norm of each layer's parameters' gradient) go to every
    logger, the plot to W&B and to a file.

    Args:
        every_n_steps: batches between measurements, which cost about a pass of single steps.
        rows: how many rows of a batch.
        max_steps: how many steps of a sequence are looked at, counted from its end.
        folder: where plots are kept as files; ``samples`` in the trainer's folder if not given.
    """

    def __init__(
        self, every_n_steps: int = 500, *, rows: int = ROWS, max_steps: int = MAX_STEPS, folder: str | None = None
    ) -> None:
        super().__init__()
        for name, value in (("every_n_steps", every_n_steps), ("rows", rows), ("max_steps", max_steps)):
            if value < 1:
                raise UsageError(f"{name} is {value}, allowed is 1 or more")
        self.every_n_steps, self.rows, self.max_steps, self.folder = every_n_steps, rows, max_steps, folder
        self.flows: dict[str, GradientFlow] = {}
        self._watch: Watch | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.every_n_steps == 0:
            self._watch = Watch(pl_module)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.close()
        flows = watch.flows(rows=self.rows, max_steps=self.max_steps)
        self.flows |= flows
        figures: dict[str, float] = {}
        for name, flow in flows.items():
            figures |= _at_lags(name, flow)
        for name, encoder in watch.encoders.items():
            figures |= _layer_norms(name, encoder)
        finite = {f"gradient/{key}": value for key, value in figures.items() if math.isfinite(value)}
        for logger in trainer.loggers:
            logger.log_metrics(finite, step=trainer.global_step)
        if trainer.is_global_zero:
            self._draw(trainer, flows)

    def _draw(self, trainer: Trainer, flows: dict[str, GradientFlow]) -> None:
        folder = Path(self.folder or Path(trainer.default_root_dir) / "samples")
        folder.mkdir(parents=True, exist_ok=True)
        for name, flow in flows.items():
            path = folder / f"gradient-{name.replace('.', '-') or 'encoder'}-{trainer.global_step:07d}.png"
            gradient_figure({name: flow}, title=f"step {trainer.global_step}").savefig(path, dpi=80)
            log_image(trainer.loggers, f"gradient/{name}/flow", path, trainer.global_step)


def _at_lags(name: str, flow: GradientFlow) -> dict[str, float]:
    lags = [lag for lag in (0, 1, 10, 100, len(flow.norms) - 1) if lag < len(flow.norms)]
    return {f"{name}/half_life": flow.half_life()} | {f"{name}/lag_{lag}": float(flow.norms[lag, -1]) for lag in lags}


def _layer_norms(name: str, encoder: RecurrentEncoder) -> dict[str, float]:
    figures = {}
    for number, layer in enumerate(encoder.layers):
        slopes = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
        if slopes:
            figures[f"{name}/layer_{number}"] = float(nn.utils.get_total_norm(slopes))
    return figures
