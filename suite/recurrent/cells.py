"""Cells that ``torch.nn`` does not have, one layer in one direction each, on ``suite/recurrent/unroll.py``.

All take ``inputs (B, T, D)``, ``lengths (B,)`` and a state of tensors ``(B, H)``, and give outputs ``(B, T, H)``, zero
at padding, and the state after each row's last valid step. ``weight`` stands in for the recurrent weight where some of
it is dropped.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.dropout import Dropout
from suite.recurrent.dropout import Zoneout
from suite.recurrent.gpu.steps import LAYERNORM_GRU, LAYERNORM_LSTM, PEEPHOLE_LSTM, Cell, runs_on_gpu, vanilla_cell
from suite.recurrent.gpu.unroll import unroll_on_gpu
from suite.recurrent.kernel_steps import (
    LayerNormGRUKernels,
    LayerNormLSTMKernels,
    PeepholeLSTMKernels,
    runs_compiled,
)
from suite.recurrent.normalisation import EPSILON, StepNorm
from suite.recurrent.options import RecurrentOptions
from suite.recurrent.steps import GRUSteps, LSTMSteps, VanillaSteps
from suite.recurrent.unroll import Extras, Recurrence, Schedule, State, make_schedule, run, start_of, to_time_major


class UnrolledLayer(nn.Module):
    """What the hand-written cells share: parameters, dropped weights, and the way through ``Unroll``.

    Args:
        input_size: features of an input step (D).
        hidden_size: features of the state (H).
        num_gates: blocks of H features that a step computes.
        num_states: tensors of H features in the state.
        options: zoneout and weight dropout.
        diagonal: the recurrent weight is a vector, one number a feature.
        bias: add a bias to the gates.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_gates: int,
        num_states: int,
        options: RecurrentOptions,
        diagonal: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.hidden_size, self.num_gates, self.num_states = hidden_size, num_gates, num_states
        gates = num_gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(gates, input_size))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size) if diagonal else torch.empty(gates, hidden_size))
        self.bias = nn.Parameter(torch.zeros(gates)) if bias else None
        self.zoneout, self.zoneout_memory = Zoneout(options.zoneout), Zoneout(options.zoneout_memory)
        self.weight_dropout = Dropout(options.weight_dropout)

    def draw_weight(self) -> Tensor | None:
        """The recurrent weight with some of it dropped, for one pass; ``None`` where nothing is."""
        return self.weight_dropout(self.weight_hh) if self.training and self.weight_dropout.p else None

    def recurrent_weights(self) -> list[nn.Parameter]:
        """Weights between states, which penalties may be for."""
        return [self.weight_hh]

    def project(self, inputs: Tensor, schedule: Schedule) -> Tensor:
        """The inputs' share of the gates ``(T, B, G)`` in one product."""
        return functional.linear(inputs, self.weight_ih, self.bias)

    gpu_cell: Cell  # which kernels a GPU runs

    def extras(self) -> Extras:
        """Parameters of the cell's own, in the order in which its kernels take them."""
        return ()

    def recur(self, gates: Tensor, start: State, schedule: Schedule) -> tuple[Recurrence, Extras]:
        """What stands between the products, and its own parameters."""
        raise NotImplementedError

    def forward(
        self, inputs: Tensor, lengths: Tensor, state: State | None = None, weight: Tensor | None = None
    ) -> tuple[Tensor, State]:
        on_gpu = runs_on_gpu(inputs, size=self.hidden_size)
        schedule = make_schedule(lengths, inputs.size(1), full=on_gpu)
        gates = self.project(to_time_major(inputs, schedule), schedule)
        start = start_of(state, gates, schedule, batch=len(inputs), size=self.hidden_size, count=self.num_states)
        weight = self.weight_hh if weight is None else weight
        if on_gpu:
            zones = tuple(zoneout.draw(len(gates), start[0]) for zoneout in (self.zoneout, self.zoneout_memory))
            return run(self.gpu_cell, gates, weight, start, schedule, extras=self.extras(), steps=inputs.size(1),
                       unroll=partial(unroll_on_gpu, zones=zones))  # fmt: skip
        recurrence, extras = self.recur(gates, start, schedule)
        return run(recurrence, gates, weight, start, schedule, extras=extras, steps=inputs.size(1))


class VanillaLayer(UnrolledLayer):
    """``h = f(W x + U h + b)``; with ``diagonal`` as IndRNN, ``h = f(W x + u * h + b)`` (Li et al. 2018)."""

    def __init__(
        self, input_size: int, hidden_size: int, *, options: RecurrentOptions, activation: str, diagonal: bool = False
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_gates=1, num_states=1, options=options, diagonal=diagonal, bias=True
        )
        self.activation = activation
        self.gpu_cell = vanilla_cell(activation, diagonal=diagonal)

    def recur(self, gates: Tensor, start: State, schedule: Schedule) -> tuple[Recurrence, Extras]:
        return VanillaSteps(self.activation, zone=self.zoneout.draw(len(gates), start[0])), ()


class PeepholeLSTMLayer(UnrolledLayer):
    """An LSTM whose gates see the cell state (Gers, Schraudolph and Schmidhuber 2002).

    ``i = sigmoid(W x + U h + p_i * c + b)``, ``f`` likewise, ``c' = f * c + i * tanh(...)``,
    ``o = sigmoid(W x + U h + p_o * c' + b)``, ``h' = o * tanh(c')``.
    """

    gpu_cell = PEEPHOLE_LSTM

    def __init__(self, input_size: int, hidden_size: int, *, options: RecurrentOptions) -> None:
        super().__init__(input_size, hidden_size, num_gates=4, num_states=2, options=options)
        self.peepholes = nn.Parameter(torch.zeros(3, hidden_size))  # input, forget, output

    def recurrent_weights(self) -> list[nn.Parameter]:
        return [self.weight_hh, self.peepholes]

    def extras(self) -> Extras:
        return (self.peepholes,)

    def recur(self, gates: Tensor, start: State, schedule: Schedule) -> tuple[Recurrence, Extras]:
        zones = [zoneout.draw(len(gates), start[0]) for zoneout in (self.zoneout, self.zoneout_memory)]
        if runs_compiled(start[0]) and zones == [None, None]:
            return PeepholeLSTMKernels(), self.extras()
        return LSTMSteps(zone=zones[0], zone_memory=zones[1]), self.extras()


class LayerNormLSTMLayer(UnrolledLayer):
    """An LSTM with layer normalisation of the two products and of the cell state (Ba, Kiros and Hinton 2016).

    ``gates = LN(U h) + LN(W x) + b``, ``h' = o * tanh(LN(c'))``; each LN over all its features, with a gain of its own,
    and for the cell state a bias. (The paper's further biases of the products add up to ``b``.)
    """

    gpu_cell = LAYERNORM_LSTM

    def __init__(self, input_size: int, hidden_size: int, *, options: RecurrentOptions) -> None:
        super().__init__(input_size, hidden_size, num_gates=4, num_states=2, options=options)
        self.gain_ih = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_hh = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_memory = nn.Parameter(torch.ones(hidden_size))
        self.bias_memory = nn.Parameter(torch.zeros(hidden_size))

    def extras(self) -> Extras:
        return self.gain_hh, self.gain_memory, self.bias_memory

    def project(self, inputs: Tensor, schedule: Schedule) -> Tensor:
        gates = functional.linear(inputs, self.weight_ih)
        return functional.layer_norm(gates, gates.shape[2:], self.gain_ih, self.bias, EPSILON)

    def recur(self, gates: Tensor, start: State, schedule: Schedule) -> tuple[Recurrence, Extras]:
        zones = [zoneout.draw(len(gates), start[0]) for zoneout in (self.zoneout, self.zoneout_memory)]
        if runs_compiled(start[0]) and zones == [None, None]:
            return LayerNormLSTMKernels(), self.extras()
        norms = (None, StepNorm(axis=1), StepNorm(axis=1))
        extras = (None, self.gain_hh, None, self.gain_memory, self.bias_memory)
        return LSTMSteps(zone=zones[0], zone_memory=zones[1], norms=norms), extras


class LayerNormGRULayer(UnrolledLayer):
    """A GRU with layer normalisation of the two products (Ba, Kiros and Hinton 2016), gates as in ``torch.nn.GRU``.

    ``r, z = sigmoid(LN(W x) + LN(U h))``, ``n = tanh(LN(W_n x) + r * LN(U_n h))``, ``h' = (1 - z) n + z h``; reset and
    update are normalised together, the new gate on its own; each LN has gain and bias.
    """

    gpu_cell = LAYERNORM_GRU

    def __init__(self, input_size: int, hidden_size: int, *, options: RecurrentOptions) -> None:
        super().__init__(input_size, hidden_size, num_gates=3, num_states=1, options=options)
        self.gain_ih = nn.Parameter(torch.ones(3 * hidden_size))
        self.gain_hh = nn.Parameter(torch.ones(3 * hidden_size))
        self.bias_hh = nn.Parameter(torch.zeros(3 * hidden_size))

    def extras(self) -> Extras:
        return self.gain_hh, self.bias_hh

    def project(self, inputs: Tensor, schedule: Schedule) -> Tensor:
        assert self.bias is not None
        sizes = (2 * self.hidden_size, self.hidden_size)
        parts = zip(
            functional.linear(inputs, self.weight_ih).split(sizes, dim=2),
            self.gain_ih.split(sizes),
            self.bias.split(sizes),
            strict=True,
        )
        return torch.cat(
            [functional.layer_norm(part, part.shape[2:], gain, bias, EPSILON) for part, gain, bias in parts], dim=2
        )

    def recur(self, gates: Tensor, start: State, schedule: Schedule) -> tuple[Recurrence, Extras]:
        zone = self.zoneout.draw(len(gates), start[0])
        if runs_compiled(start[0]) and zone is None:
            return LayerNormGRUKernels(), self.extras()
        return GRUSteps(zone=zone, norms=(StepNorm(axis=1), StepNorm(axis=1))), self.extras()
