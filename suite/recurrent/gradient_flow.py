"""Seeing gradients vanish and explode: the norm of d loss_T / d h_t against the lag T - t.

A recurrent state is handed in and out, so the sequence is run one step at a time and each state is a leaf to ask for.
What is measured is the gradient of the loss through the *last* step's output with respect to the whole state at t
(hidden, and for an LSTM the cell state beside it, which carries most of it), for each layer.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn

from suite.errors import UsageError
from suite.recurrent.encoder import Encoded, RecurrentEncoder
from suite.tracking import log_image


class GradientFlow(NamedTuple):
    """``norms (lags, layers)``: the mean over rows of the gradient's norm at lag 0, 1, ... and for each layer.

    Lag 0 is the state after a row's last valid step. A lag that no row reaches is not there.
    """

    norms: Tensor

    def table(self) -> list[dict[str, float]]:
        """A row for each lag: plain data."""
        return [
            {"lag": float(lag), **{f"layer_{number}": float(value) for number, value in enumerate(row)}}
            for lag, row in enumerate(self.norms)
        ]

    def half_life(self) -> float:
        """Lags in which the last layer's gradient halves, by its slope in logarithms; negative where it grows.

        Infinite where it stays, zero where it is gone (or not finite) after the first step.
        """
        series = self.norms[:, -1].double()
        usable = series[torch.isfinite(series) & (series > 0)]
        if len(usable) < 2:
            return 0.0
        slope = float((usable[-1].log2() - usable[0].log2()) / (len(usable) - 1))
        return math.inf if slope == 0 else -1.0 / slope


def gradient_by_lag(
    encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor | None = None, *, probe: Tensor | None = None
) -> GradientFlow:
    """Run ``encoder`` over ``inputs (B, T, D)`` step by step, and ask for the gradient of every state on the way.

    ``probe (B, H)`` is the gradient of the loss with respect to each row's last valid output; a random direction of
    length one, always the same, if not given. Masks that are one for a sequence would be drawn for each step: the
    encoder is measured in eval mode, and left as it was.

    Raises:
        UsageError: a bidirectional encoder, whose outputs have no lag, or a sequence without a step.
    """
    if encoder.num_directions != 1:
        raise UsageError("gradients by lag need an encoder that reads in one direction: use bidirectional false")
    batch, steps = inputs.shape[:2]
    lengths = torch.full((batch,), steps, device=inputs.device) if lengths is None else lengths
    if not steps or not bool((lengths > 0).any()):
        raise UsageError("gradients by lag need a sequence of one step or more")
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(batch, encoder.output_size, generator=generator).to(inputs)
        probe = probe / probe.norm(dim=1, keepdim=True)
    was_training = encoder.training
    encoder.eval()
    try:
        slopes = _slopes(encoder, inputs.detach(), lengths, probe.detach())
    finally:
        encoder.train(was_training)
    return GradientFlow(_by_lag(slopes, lengths))


def _slopes(encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor, probe: Tensor) -> Tensor:
    """Norms ``(T, B, layers)`` of the gradient with respect to the state after each step."""
    states: list[tuple[Tensor, ...]] = []
    state, last = None, torch.zeros_like(probe)
    with torch.enable_grad():
        for step in range(int(lengths.max())):
            running = (lengths > step).long()
            encoded = encoder(inputs[:, step : step + 1], running, state)
            state = tuple(part.requires_grad_() for part in encoded.state)
            states.append(state[: encoder.num_states])
            ends = (lengths == step + 1).unsqueeze(1)
            # The last layer's output is its hidden state, so that lag 0 is the state that the output is read from.
            output = _output_of(encoder, encoded, state)
            last = torch.where(ends, output, last)
        flat = [part for each in states for part in each]
        found = torch.autograd.grad((last * probe).sum(), flat, allow_unused=True)
    parts = [torch.zeros_like(part) if slope is None else slope for part, slope in zip(flat, found, strict=True)]
    stacked = torch.stack(parts).unflatten(0, (len(states), -1))  # (T, states, B, layers, H)
    return stacked.double().square().sum(dim=(1, 4)).sqrt()


def _output_of(encoder: RecurrentEncoder, encoded: Encoded, state: tuple[Tensor, ...]) -> Tensor:
    return encoded.outputs[:, 0] if encoder.options.residual else state[0][:, -1]


def _by_lag(slopes: Tensor, lengths: Tensor) -> Tensor:
    rows = []
    for lag in range(int(lengths.max())):
        reached = (lengths > lag).nonzero().squeeze(1)
        rows.append(slopes[lengths[reached] - 1 - lag, reached].mean(dim=0))
    return torch.stack(rows).float()


def gradient_figure(flows: dict[str, GradientFlow], *, title: str = "") -> Figure:
    """Norms against lag on a logarithmic scale, a line for each name (its last layer)."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, flow in flows.items():
        series = flow.norms[:, -1]
        axes.plot(range(len(series)), series.clamp_min(torch.finfo(torch.float32).tiny), label=name)
    axes.set_yscale("log")
    axes.set_xlabel("lag T - t (steps)")
    axes.set_ylabel("norm of d loss_T / d h_t")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


class GradientFlowCallback(Callback):
    """Logs gradients by lag and by layer while training, for each one-directional ``RecurrentEncoder`` of the module.

    Every ``every_n_steps`` batches it takes what the encoder read in that batch, and the loss's own gradient with
    respect to each row's last output, and runs ``gradient_by_lag`` on at most ``rows`` of them. Scalars (the norm at
    some lags, the half-life, the norm of each layer's parameters' gradient) go to every logger, the plot to W&B and to
    a file. An encoder with a condition is passed over.

    Args:
        every_n_steps: batches between measurements, which cost about a pass of single steps.
        rows: how many rows of a batch.
        max_steps: how many steps of a sequence are looked at, counted from its end.
        folder: where plots are kept as files; ``samples`` in the trainer's folder if not given.
    """

    def __init__(
        self, every_n_steps: int = 500, *, rows: int = 4, max_steps: int = 500, folder: str | None = None
    ) -> None:
        super().__init__()
        for name, value in (("every_n_steps", every_n_steps), ("rows", rows), ("max_steps", max_steps)):
            if value < 1:
                raise UsageError(f"{name} is {value}, allowed is 1 or more")
        self.every_n_steps, self.rows, self.max_steps, self.folder = every_n_steps, rows, max_steps, folder
        self.flows: dict[str, GradientFlow] = {}
        self._hooks: list[Any] = []
        self._seen: dict[str, tuple[RecurrentEncoder, Tensor, Encoded]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.every_n_steps:
            return
        for name, encoder in encoders_of(pl_module).items():
            self._hooks.append(encoder.register_forward_hook(self._watch(name)))

    def _watch(self, name: str) -> Any:
        def keep(encoder: nn.Module, given: tuple[Any, ...], encoded: Encoded) -> None:
            if encoded.outputs.requires_grad:
                encoded.outputs.retain_grad()
                encoded.state[0].retain_grad()  # what reads the last state alone has its gradient here
                self._seen[name] = (cast(RecurrentEncoder, encoder), given[0].detach(), encoded)

        return keep

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        seen, self._seen = self._seen, {}
        for name, (encoder, inputs, encoded) in seen.items():
            rows = (encoded.lengths > 0).nonzero().squeeze(1)[: self.rows]
            if encoder.condition_size or not len(rows):
                continue
            lengths = encoded.lengths[rows]
            probe = inputs.new_zeros(len(rows), encoder.output_size)
            if encoded.outputs.grad is not None:
                probe += encoded.outputs.grad[rows, lengths - 1]
            if encoded.state[0].grad is not None and not encoder.options.residual:
                probe += encoded.state[0].grad[rows, -1]
            # The end of a long sequence is what its last output depends on: the beginning is left out.
            begin = (lengths - self.max_steps).clamp_min(0)
            window = begin.unsqueeze(1) + torch.arange(int((lengths - begin).max()), device=begin.device)
            chosen = inputs[rows.unsqueeze(1), window.clamp(max=inputs.size(1) - 1)]
            self.flows[name] = gradient_by_lag(encoder, chosen, lengths - begin, probe=probe)
            self._log(trainer, name, encoder)

    def _log(self, trainer: Trainer, name: str, encoder: RecurrentEncoder) -> None:
        flow = self.flows[name]
        figures = {f"gradient/{name}/half_life": flow.half_life()}
        for lag in (0, 1, 10, 100, len(flow.norms) - 1):
            if lag < len(flow.norms):
                figures[f"gradient/{name}/lag_{lag}"] = float(flow.norms[lag, -1])
        for number, layer in enumerate(encoder.layers):
            slopes = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
            if slopes:
                figures[f"gradient/{name}/layer_{number}"] = float(nn.utils.get_total_norm(slopes))
        finite = {key: value for key, value in figures.items() if math.isfinite(value)}
        for logger in trainer.loggers:
            logger.log_metrics(finite, step=trainer.global_step)
        if not trainer.is_global_zero:
            return
        folder = Path(self.folder or Path(trainer.default_root_dir) / "samples")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"gradient-{name.replace('.', '-') or 'encoder'}-{trainer.global_step:07d}.png"
        gradient_figure({name: flow}, title=f"step {trainer.global_step}").savefig(path, dpi=80)
        log_image(trainer.loggers, f"gradient/{name}/flow", path, trainer.global_step)


def encoders_of(module: nn.Module) -> dict[str, RecurrentEncoder]:
    """The one-directional recurrent encoders inside ``module``, by name."""
    return {
        name: each
        for name, each in module.named_modules()
        if isinstance(each, RecurrentEncoder) and each.num_directions == 1
    }
