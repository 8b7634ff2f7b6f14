"""Dropout against its definition: rate, scale, mean, gradient, and what it leaves alone."""

import math

import pytest
import torch
from torch import Tensor, nn

from suite.dropout import Dropout
from suite.errors import UsageError

RATES = [0.1, 0.25, 0.3, 0.5, 0.9]
LEVELS = 2**16
COUNT = 200_003  # not a multiple of four


def realised(p: float) -> float:
    """The probability that 16 bits can express."""
    return round(p * LEVELS) / LEVELS


def drop(inputs: Tensor, p: float, *, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return Dropout(p)(inputs)


@pytest.mark.parametrize("p", RATES)
def test_rate_is_within_binomial_bounds(p: float) -> None:
    dropped = int((drop(torch.ones(COUNT), p) == 0).sum())
    deviation = math.sqrt(COUNT * realised(p) * (1 - realised(p)))
    assert abs(dropped - COUNT * realised(p)) < 5 * deviation


def test_every_place_of_four_is_dropped_at_the_same_rate() -> None:
    """One draw decides four elements: none of its parts may be lopsided, nor tied to its neighbour."""
    kept = (drop(torch.ones(4 * 50_000), 0.3) != 0).double().view(-1, 4)
    deviation = math.sqrt(0.21 / len(kept))
    assert torch.all((kept.mean(dim=0) - 0.7).abs() < 5 * deviation)
    correlation = torch.corrcoef(kept.t()) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / math.sqrt(len(kept))


@pytest.mark.parametrize("p", RATES)
def test_zeros_and_scale_are_exact(p: float) -> None:
    values = torch.randn(COUNT)
    outputs = drop(values, p)
    kept = outputs != 0
    assert torch.equal(outputs[~kept], torch.zeros(int((~kept).sum())))
    assert torch.equal(outputs[kept], values[kept] * torch.tensor(1 / (1 - realised(p))))


@pytest.mark.parametrize("p", RATES)
def test_mean_is_preserved(p: float) -> None:
    values = torch.rand(COUNT, dtype=torch.float64)
    deviation = math.sqrt(float(values.square().mean()) * p / (1 - p) / COUNT)
    assert abs(float((drop(values, p) - values).mean())) < 5 * deviation


def test_the_rate_is_exact_to_its_step_and_the_scale_fits_it() -> None:
    """Closer to 0 or 1 than a step of 1/65,536: nothing is dropped, and never everything."""
    values = torch.randn(1000)
    assert torch.equal(drop(values, 0.4 / LEVELS), values)
    outputs = drop(torch.ones(40 * LEVELS), 1 - 1e-9)
    assert set(outputs.unique().tolist()) == {0.0, float(LEVELS)}


def test_a_seed_decides_the_mask() -> None:
    values = torch.ones(999)
    assert torch.equal(drop(values, 0.5, seed=3), drop(values, 0.5, seed=3))
    assert not torch.equal(drop(values, 0.5, seed=3), drop(values, 0.5, seed=4))
    torch.manual_seed(3)
    layer = Dropout(0.5)
    assert not torch.equal(layer(values), layer(values)), "a new mask for each call"


def test_nothing_is_done_in_eval_or_without_a_rate() -> None:
    values = torch.randn(7)
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert torch.equal(torch.get_rng_state(), state), "no random number is drawn"


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_gradient_is_mask_times_scale(p: float) -> None:
    values = torch.randn(33, 7, requires_grad=True)
    outputs = drop(values, p)
    upstream = torch.randn(33, 7)
    outputs.backward(upstream)
    scale = torch.tensor(1 / (1 - realised(p)))
    assert values.grad is not None
    assert torch.equal(values.grad, upstream * ((outputs != 0) * scale))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5,), (2, 3, 5), (1, 1, 1, 1), (0,), (3, 0, 2)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    values = torch.ones(shape)
    outputs = drop(values, 0.5)
    assert outputs.shape == values.shape
    assert outputs.dtype == values.dtype
    assert torch.all((outputs == 0) | (outputs == 2))


def test_a_transposed_input_is_dropped_by_its_places() -> None:
    values = torch.arange(1.0, 21.0).view(4, 5)
    torch.testing.assert_close(drop(values.t(), 0.5), drop(values.t().contiguous(), 0.5), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    values = torch.randn(COUNT).to(dtype)
    outputs = drop(values, 0.1)
    assert outputs.dtype == dtype
    kept = outputs != 0
    assert abs(float(kept.double().mean()) - 0.9) < 5 * math.sqrt(0.09 / COUNT) + float((values == 0).double().mean())
    # The scale itself is rounded to the precision of the input, as in torch.
    scale = torch.tensor(1 / (1 - realised(0.1)), dtype=torch.float64).to(dtype)
    torch.testing.assert_close(outputs[kept], values[kept] * scale, rtol=0, atol=0)


def test_autocast_keeps_the_dtype_that_came_in() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Dropout(0.5)(torch.ones(8)).dtype == torch.float32
        assert Dropout(0.5)(nn.Linear(4, 4)(torch.ones(2, 4))).dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_an_accelerator() -> None:
    torch.manual_seed(0)
    outputs = Dropout(0.3).cuda()(torch.ones(COUNT, device="cuda"))
    assert abs(float((outputs == 0).double().mean()) - 0.3) < 5 * math.sqrt(0.21 / COUNT)
    torch.testing.assert_close(outputs.max().item(), 1 / 0.7)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan, math.inf])
def test_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(UsageError, match=r"dropout is .*, allowed is 0 up to but not including 1"):
        Dropout(p)


def test_says_its_rate() -> None:
    assert "p=0.25" in repr(Dropout(0.25))
