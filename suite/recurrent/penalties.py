"""Penalties on what a recurrent layer does over time, and which weights are recurrent."""

import torch
from torch import Tensor, nn

from suite.sequence import length_mask


def activation_penalty(outputs: Tensor, lengths: Tensor) -> Tensor:
    """Activation regularisation: the mean square of the valid ``outputs (B, T, H)``, a scalar.

    Merity, McCann and Socher, "Revisiting Activation Regularization for Language RNNs", 2017.
    """
    mask = length_mask(lengths, outputs.size(1)).unsqueeze(2)
    return _mean_square(outputs, mask)


def temporal_penalty(outputs: Tensor, lengths: Tensor) -> Tensor:
    """Temporal activation regularisation: the mean square of what changes from one valid step to the next."""
    mask = length_mask(lengths - 1, max(outputs.size(1) - 1, 0)).unsqueeze(2)
    return _mean_square(outputs[:, 1:] - outputs[:, :-1], mask)


def _mean_square(values: Tensor, mask: Tensor) -> Tensor:
    exact = values if values.dtype == torch.float64 else values.float()
    total = exact.masked_fill(~mask, 0.0).square().sum()
    return total / (mask.sum() * values.size(2)).clamp_min(1)


def recurrent_weights(module: nn.Module) -> list[nn.Parameter]:
    """The recurrent weights of every ``RecurrentEncoder`` inside ``module``, each once."""
    from suite.recurrent.encoder import RecurrentEncoder  # which uses the penalties above

    found = [each.recurrent_weights() for each in module.modules() if isinstance(each, RecurrentEncoder)]
    return list({id(weight): weight for weights in found for weight in weights}.values())
