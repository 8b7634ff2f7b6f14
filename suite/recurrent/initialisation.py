"""How recurrent layers start: input weights, recurrent weights, and the biases that decide how long gates remember."""

import torch
from torch import Tensor, nn


def init_input_weight(weight: Tensor, *, small: bool = False) -> None:
    """Glorot's uniform; with ``small`` normal with deviation 0.001, beside an identity (Le, Jaitly and Hinton 2015)."""
    if small:
        nn.init.normal_(weight, std=0.001)
    else:
        nn.init.xavier_uniform_(weight)


def init_recurrent_weight(weight: Tensor, *, identity: bool = False) -> None:
    """Each gate's square orthogonal (Saxe, McClelland and Ganguli 2014), or the identity.

    A vector (IndRNN) starts uniform in [0, 1]: features that forget at once up to ones that never do.
    """
    if weight.dim() == 1:
        nn.init.uniform_(weight)
        return
    for gate in weight.data.split(weight.size(1)):
        if identity:
            nn.init.eye_(gate)
        else:
            nn.init.orthogonal_(gate)


def init_uniformly(parameter: Tensor, hidden_size: int) -> None:
    """Uniform within one over the root of the state's features, weights and biases alike: as ``torch.nn`` starts."""
    bound = hidden_size**-0.5
    nn.init.uniform_(parameter, -bound, bound)


def draw_chrono(size: int, steps: int) -> Tensor:
    """``log(u)`` with ``u`` uniform in [1, steps - 1]: a gate with this bias keeps a value for about ``u`` steps.

    Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
    """
    return torch.empty(size).uniform_(1.0, steps - 1.0).log()


def init_memory_biases(bias: Tensor, cell: str, *, forget_bias: float | None, chrono_steps: int | None) -> None:
    """Write the biases of the gates that keep a state, in the layout of the cell; the others stay as they are."""
    kind = cell.rpartition("_")[2]
    size = bias.numel() // {"lstm": 4, "gru": 3, "mingru": 2, "minlstm": 3}[kind]
    blocks = bias.data.split(size)
    drawn = None if chrono_steps is None else draw_chrono(size, chrono_steps)
    if kind == "lstm":  # input, forget, cell, output
        blocks[1].fill_(1.0 if forget_bias is None else forget_bias)
        if drawn is not None:
            blocks[0].copy_(-drawn), blocks[1].copy_(drawn)
    elif kind == "minlstm":  # forget, input, candidate
        blocks[0].fill_(1.0 if forget_bias is None else forget_bias)
        if drawn is not None:
            # A share f / (f + i) near one needs an input gate near 1 / u beside an open forget gate.
            blocks[0].copy_(drawn), blocks[1].copy_(-drawn)
    elif kind == "gru":  # reset, update, new: the update gate keeps
        if drawn is not None:
            blocks[1].copy_(drawn)
    elif drawn is not None:  # minGRU: update, candidate: the update gate replaces
        blocks[0].copy_(-drawn)
