"""Scaling, penalties and clipping before a step, against torch's own."""

import pytest
import torch
from torch import nn

from suite.optim import OptimConfig, finish_gradients


def parameters(scale: float) -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))]
    for parameter in made[:2]:  # the last one had no part in the loss
        parameter.grad = torch.randn_like(parameter) * scale
    return made


@pytest.mark.parametrize("size", [0.01, 10.0])
@pytest.mark.parametrize("by_value", [True, False])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_equals_torch(size: float, by_value: bool, clip: float | None) -> None:
    ours, reference = parameters(size), parameters(size)
    weight = torch.tensor(7.0)
    norm = finish_gradients(ours, OptimConfig(), scale=1 / weight, clip=clip, by_value=by_value)
    for parameter in reference[:2]:
        assert parameter.grad is not None
        parameter.grad /= weight
    expected = torch.nn.utils.clip_grad_norm_(reference, float("inf"))
    if clip is not None:
        (torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_)(reference, clip)
    torch.testing.assert_close(norm, expected)
    for left, right in zip(ours, reference, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_penalties_are_of_the_mean_loss_and_clipped_with_it() -> None:
    config = OptimConfig(l1=0.1, l2=0.2)
    ours, reference = parameters(3.0), parameters(3.0)
    finish_gradients(ours, config, scale=torch.tensor(0.25), clip=1.0, by_value=False)
    matrix = reference[0]
    penalty = 0.1 * matrix.abs().sum() + 0.2 * matrix.square().sum()
    for parameter in reference[:2]:
        assert parameter.grad is not None
        parameter.grad *= 0.25
    penalty.backward()
    torch.nn.utils.clip_grad_norm_(reference, 1.0)
    for left, right in zip(ours, reference, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_penalties_on_recurrent_weights_alone() -> None:
    """A vector too: IndRNN's recurrent weight is one."""
    ours, reference = parameters(3.0), parameters(3.0)
    config = OptimConfig(recurrent_l1=0.3, recurrent_l2=0.2)
    finish_gradients(ours, config, scale=torch.tensor(0.5), clip=None, by_value=False, recurrent=ours[1:])
    vector = reference[1]
    for parameter in reference[:2]:
        assert parameter.grad is not None
        parameter.grad *= 0.5
    (0.3 * vector.abs().sum() + 0.2 * vector.square().sum()).backward()
    for left, right in zip(ours, reference, strict=True):
        torch.testing.assert_close(left.grad, right.grad)
