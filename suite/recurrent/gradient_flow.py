"""Seeing gradients vanish and explode: the norm of d loss_T / d h_t against the lag T - t.

A recurrent state is handed in and out, so the sequence is run one step at a time and each state is a leaf to ask for.
What is measured is the gradient of the loss through the *last* step's output with respect to the whole state at t
(hidden, and for an LSTM the cell state beside it, which carries most of it), for each layer. The two directions of a
bidirectional encoder's last layer are measured each on its own. ``gradient_watch.py`` does so for a model in training.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from suite.errors import UsageError
from suite.recurrent.encoder import RecurrentEncoder
from suite.recurrent.unroll import State


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
    encoder: RecurrentEncoder,
    inputs: Tensor,
    lengths: Tensor | None = None,
    *,
    state: State | None = None,
    condition: Tensor | None = None,
    probe: Tensor | None = None,
    max_steps: int | None = None,
) -> GradientFlow:
    """Run ``encoder`` over ``inputs (B, T, D)`` step by step, and ask for the gradient of every state on the way.

    ``state`` and ``condition`` are those of the encoder. ``probe (B, H)`` is the gradient of the loss with respect to
    each row's last valid output; a random direction of length one, always the same, if not given. Of a row longer than
    ``max_steps`` the end is looked at. Masks that are one for a sequence would be drawn for each step: the encoder is
    measured in eval mode, and left as it was.

    Raises:
        UsageError: a bidirectional encoder (for which there is ``gradient_each_way``), or a sequence without a step.
    """
    if encoder.num_directions != 1:
        raise UsageError("gradients by lag need an encoder that reads in one direction: use gradient_each_way")
    with measured(encoder):
        given = _given(encoder, inputs, lengths, probe)
        if state is None:  # of the whole rows: from their ends alone a first state could not be computed
            with torch.no_grad():
                state = encoder.initial(given.inputs, given.lengths)
        packed = _with_condition(given.inputs, condition)
        return _measure(_whole(encoder), given._replace(inputs=packed), state, max_steps)


def gradient_each_way(
    encoder: RecurrentEncoder,
    inputs: Tensor,
    lengths: Tensor | None = None,
    *,
    state: State | None = None,
    condition: Tensor | None = None,
    probe: Tensor | None = None,
    max_steps: int | None = None,
) -> dict[str, GradientFlow]:
    """The same for a bidirectional encoder's last layer, ``forward`` and ``backward``, each through its own recurrence.

    What a lower layer's state does goes both ways through the layers above it and has no lag. ``probe (B, 2 H)`` is the
    gradient with respect to what each direction gives last: forward at a row's last valid step, backward at its first.

    Raises:
        UsageError: an encoder of one direction, or a sequence without a step.
    """
    if encoder.num_directions != 2:
        raise UsageError("this encoder reads in one direction: use gradient_by_lag")
    flows = {}
    with measured(encoder):
        given = _given(encoder, inputs, lengths, probe)
        seen = _seen_by_the_last(encoder, given, state, condition)
        probes = given.probe.chunk(2, dim=1)
        parts = zip(("forward", "backward"), encoder.layers[-2:], seen, probes, strict=True)
        for name, layer, (below, start), share in parts:
            start = None if start is None else tuple(part.unsqueeze(1) for part in start)
            flows[name] = _measure(_single(layer), _Given(below, given.lengths, share), start, max_steps)
    return flows


class _Given(NamedTuple):
    inputs: Tensor
    lengths: Tensor
    probe: Tensor


class _Reader(NamedTuple):
    """A recurrence to be measured: ``run(inputs, lengths, state)`` gives outputs and a state ``(B, N, H)``."""

    run: Callable[[Tensor, Tensor, State | None], tuple[Tensor, State]]
    num_states: int
    shows_state: bool  # an output is the last layer's hidden state


def _whole(encoder: RecurrentEncoder) -> _Reader:
    def run(packed: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        inputs, condition = packed.tensor_split([encoder.input_size], dim=2)
        encoded = encoder(inputs, lengths, state, condition if condition.size(2) else None)
        return encoded.outputs, encoded.state

    return _Reader(run, encoder.num_states, not encoder.options.residual)


def _single(layer: Any) -> _Reader:
    def run(inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        outputs, final = layer(inputs, lengths, None if state is None else tuple(part[:, 0] for part in state))
        return outputs, tuple(part.unsqueeze(1) for part in final)

    return _Reader(run, layer.num_states, True)


@contextmanager
def measured(encoder: RecurrentEncoder) -> Iterator[None]:
    """In eval mode; and without cuDNN, which gives no gradients in that mode."""
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        encoder.train(was_training)


def _given(encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor | None, probe: Tensor | None) -> _Given:
    """Without gradients, in the precision of the weights (under autocast the batch has another)."""
    batch, steps = inputs.shape[:2]
    inputs = inputs.detach().to(next(encoder.parameters()).dtype)
    lengths = torch.full((batch,), steps, device=inputs.device) if lengths is None else lengths
    if not steps or not bool((lengths > 0).any()):
        raise UsageError("gradients by lag need a sequence of one step or more")
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(batch, encoder.output_size, generator=generator)
        probe = probe / probe.norm(dim=1, keepdim=True)
    return _Given(inputs, lengths, probe.detach().to(inputs))


def _with_condition(inputs: Tensor, condition: Tensor | None) -> Tensor:
    if condition is None:
        return inputs
    each = condition if condition.dim() == 3 else condition.unsqueeze(1).expand(-1, inputs.size(1), -1)
    return torch.cat([inputs, each.detach().to(inputs)], dim=2)


def _seen_by_the_last(
    encoder: RecurrentEncoder, given: _Given, state: State | None, condition: Tensor | None
) -> list[tuple[Tensor, State | None]]:
    """What the last layer's two directions read, each in its own order, and the states that they start from."""
    seen: list[tuple[Tensor, State | None]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, read: seen.append((read[0], read[2])))
        for layer in encoder.layers[-2:]
    ]
    try:
        with torch.no_grad():  # in which activations are not kept chunk by chunk either
            encoder(given.inputs, given.lengths, state, condition)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _measure(reader: _Reader, given: _Given, state: State | None, max_steps: int | None) -> GradientFlow:
    inputs, lengths = given.inputs, given.lengths
    if max_steps is not None and bool((lengths > max_steps).any()):
        # The end of a long sequence is what its last output depends on: the beginning is only read.
        begin = (lengths - max_steps).clamp_min(0)
        with torch.no_grad():
            state = reader.run(inputs, begin, state)[1]
        lengths = lengths - begin
        window = begin.unsqueeze(1) + torch.arange(int(lengths.max()), device=begin.device)
        rows = torch.arange(len(inputs), device=begin.device).unsqueeze(1)
        inputs = inputs[rows, window.clamp(max=inputs.size(1) - 1)]
    state = None if state is None else tuple(part.detach() for part in state)
    return GradientFlow(_by_lag(_slopes(reader, _Given(inputs, lengths, given.probe), state), lengths))


def _slopes(reader: _Reader, given: _Given, state: State | None) -> Tensor:
    """Norms ``(T, B, layers)`` of the gradient with respect to the state after each step."""
    states: list[State] = []
    last = torch.zeros_like(given.probe)
    with torch.enable_grad():
        for step in range(int(given.lengths.max())):
            running = (given.lengths > step).long()
            outputs, after = reader.run(given.inputs[:, step : step + 1], running, state)
            state = tuple(part.requires_grad_() for part in after)
            states.append(state[: reader.num_states])
            # Lag 0 is the state that the output is read from.
            output = state[0][:, -1] if reader.shows_state else outputs[:, 0]
            last = torch.where((given.lengths == step + 1).unsqueeze(1), output, last)
        flat = [part for each in states for part in each]
        found = torch.autograd.grad((last * given.probe).sum(), flat, allow_unused=True)
    parts = [torch.zeros_like(part) if slope is None else slope for part, slope in zip(flat, found, strict=True)]
    stacked = torch.stack(parts).unflatten(0, (len(states), -1))  # (T, states, B, layers, H)
    return stacked.double().square().sum(dim=(1, 4)).sqrt()


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
