"""Temperature, top-k and top-p against plain lists; draws that are right on average and never leave what is allowed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suite.errors import UsageError
from suite.sampling import SamplingConfig, continue_sequences, next_probabilities, pick


def by_hand(logits: list[float], *, temperature: float, top_k: int, top_p: float) -> list[float]:
    shares = torch.tensor([value / temperature for value in logits], dtype=torch.float64).softmax(dim=0).tolist()
    order = sorted(range(len(shares)), key=lambda index: (-shares[index], index))
    if top_k:
        order = order[:top_k]
    total = sum(shares[index] for index in order)
    kept: list[int] = []
    mass = 0.0
    for index in order:
        if mass >= top_p - 1e-12 and kept:
            break
        kept.append(index)
        mass += shares[index] / total
    whole = sum(shares[index] for index in kept)
    return [shares[index] / whole if index in kept else 0.0 for index in range(len(shares))]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-4, 4), min_size=2, max_size=9, unique=True),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.integers(0, 10),
    st.sampled_from([0.05, 0.37, 0.81, 1.0]),
)
def test_probabilities_are_those_of_a_plain_list(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    found = next_probabilities(torch.tensor([logits, logits], dtype=torch.float64), config)
    expected = by_hand(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    for row in found.tolist():
        assert row == pytest.approx(expected, abs=1e-9)


def test_temperature_zero_takes_the_likeliest() -> None:
    assert next_probabilities(torch.tensor([[0.0, 3.0, 1.0]]), SamplingConfig(temperature=0)).tolist() == [[0, 1, 0]]


def test_draws_follow_the_probabilities() -> None:
    shares = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    draws = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    found = pick(shares.expand(10_000, -1), draws)
    assert torch.bincount(found, minlength=5).tolist() == [5000, 0, 3000, 2000, 0]


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0 - 2**-53, 1.0])
def test_what_has_no_probability_is_never_picked(draw: float) -> None:
    shares = torch.tensor([[0.0, 0.1, 0.0, 0.9, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = pick(shares, torch.full((2,), draw, dtype=torch.float64))
    assert all(shares[row, index] > 0 for row, index in enumerate(found.tolist()))


def count_up(symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The next symbol is one more; 9 comes after 4."""
    follows = torch.where(symbols == 4, 9, symbols + 1)
    return torch.nn.functional.one_hot(follows, 12).float() * 50, state + 1


def test_sequences_end_each_for_itself() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([2, 4, 0]), 12).float() * 50
    config = SamplingConfig(length=4)
    found = continue_sequences(count_up, logits, torch.zeros(3), config=config, seeds=[1, 2, 3], end=9)
    assert found == [[2, 3, 4], [4], [0, 1, 2, 3]]


def test_banned_symbols_and_the_global_generator() -> None:
    before = torch.get_rng_state()
    found = continue_sequences(
        lambda symbols, state: (torch.zeros(len(symbols), 4), state),
        torch.zeros(2, 4),
        None,
        config=SamplingConfig(length=200, temperature=1.0),
        seeds=[5, 6],
        banned=(0, 2),
    )
    assert {symbol for row in found for symbol in row} == {1, 3}
    assert found[0] != found[1]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("setting", "value"), [("length", 0), ("temperature", -1.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5)]
)
def test_errors(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=setting):
        SamplingConfig(**{setting: value})  # type: ignore[arg-type]
