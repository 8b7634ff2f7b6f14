"""Golden values for lengths, masks and padding, for seeds that must never change, and for embeddings."""

import os
import random
import subprocess
import sys

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from suite.embedding import build_embedding
from suite.seeding import mix, seed_everything
from suite.sequence import last_valid, length_mask, mask_steps, pad_sequences, reverse_valid

NAN = float("nan")


def test_length_mask_golden() -> None:
    lengths = torch.tensor([2, 0, 3])
    expected = [[True, True, False], [False, False, False], [True, True, True]]
    assert length_mask(lengths).tolist() == expected
    assert length_mask(lengths, 4).tolist() == [[*row, False] for row in expected]
    assert length_mask(lengths, 1).tolist() == [[True], [False], [True]]


def test_pad_sequences_golden() -> None:
    padded, lengths = pad_sequences([[5, 6], [], [7, 8, 9]], value=1)
    assert padded.tolist() == [[5, 6, 1], [1, 1, 1], [7, 8, 9]]
    assert padded.dtype == torch.long
    assert lengths.tolist() == [2, 0, 3]
    frames, lengths = pad_sequences([torch.ones(1, 2), torch.full((3, 2), 2.0)], value=-0.5)
    assert frames.tolist() == [[[1, 1], [-0.5, -0.5], [-0.5, -0.5]], [[2, 2]] * 3]
    assert lengths.tolist() == [1, 3]


def test_reverse_valid_golden() -> None:
    rows = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    lengths = torch.tensor([4, 2, 0])
    expected = [[4, 3, 2, 1], [2, 1, 3, 4], [1, 2, 3, 4]]
    assert reverse_valid(rows, lengths).tolist() == expected
    deep = rows.view(3, 4, 1, 1).expand(3, 4, 2, 3)
    assert torch.equal(reverse_valid(deep, lengths), torch.tensor(expected).view(3, 4, 1, 1).expand(3, 4, 2, 3))


def test_last_valid_golden() -> None:
    rows = torch.arange(12).view(3, 4)
    assert last_valid(rows, torch.tensor([4, 2, 0])).tolist() == [3, 5, 8]
    assert last_valid(rows.unsqueeze(2), torch.tensor([1, 3, 4])).tolist() == [[0], [6], [11]]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2), (2, 3, 2, 2)])
def test_mask_steps_zeroes_value_and_gradient(shape: tuple[int, ...]) -> None:
    inputs = torch.ones(shape)
    inputs[0, 1:] = NAN
    inputs.requires_grad_()
    masked = mask_steps(inputs, torch.tensor([1, 3]))
    assert masked[0, 1:].eq(0).all()
    assert masked[1].eq(1).all()
    masked.square().sum().backward()
    assert inputs.grad is not None
    assert inputs.grad[0, 1:].eq(0).all()
    assert inputs.grad[1].eq(2).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=5))
def test_padding_then_reading_gives_the_rows_back(rows: list[list[int]]) -> None:
    padded, lengths = pad_sequences(rows, value=-1)
    assert padded[length_mask(lengths)].tolist() == [item for row in rows for item in row]
    assert padded.eq(-1).sum() == padded.numel() - lengths.sum()
    backwards = reverse_valid(padded, lengths)
    assert [row[:length].tolist() for row, length in zip(backwards, lengths, strict=True)] == [r[::-1] for r in rows]
    assert torch.equal(reverse_valid(backwards, lengths), padded)


GOLDEN: dict[tuple[int | str, ...], int] = {
    (0,): 4246866556266386882,
    (1, 2, 3): 1138364116778193076,
    (42, "batches"): 4025832424738288039,
}


def test_mix_golden_values() -> None:
    """They decide every order and every dropout mask: a change here makes old runs impossible to repeat."""
    assert {parts: mix(*parts) for parts in GOLDEN} == GOLDEN
    assert mix(1, 23) != mix(12, 3) != mix(123)
    values = [mix(seed, epoch, rank) for seed in range(10) for epoch in range(10) for rank in range(10)]
    assert len(set(values)) == 1000
    assert all(0 <= value < 2**63 for value in values)
    assert sum(value >> 62 for value in values) == pytest.approx(500, abs=80)  # the highest bit is fair: 5 sigma


def test_mix_is_the_same_in_another_process() -> None:
    code = "from suite.seeding import mix; print(mix(42, 'batches'))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == GOLDEN[(42, "batches")]


def test_seed_everything_decides_python_numpy_and_torch() -> None:
    def draw(*parts: int | str) -> tuple[float, float, float]:
        seed_everything(*parts)
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    first, again, other = draw(3, "a"), draw(3, "a"), draw(3, "b")
    assert first == again
    assert all(left != right for left, right in zip(first, other, strict=True))


def test_embedding_starts_small_with_a_zero_padding_row_that_never_learns() -> None:
    """Norms of rows are about one: of 400 rows of 64 numbers, the mean square norm within 5%."""
    embedding = build_embedding(400, 64, padding=2)
    assert embedding.weight[2].eq(0).all()
    assert embedding.weight.square().sum().item() / 399 == pytest.approx(1.0, rel=0.05)
    assert abs(embedding.weight.mean().item()) < 0.005
    embedding(torch.tensor([[2, 3], [4, 2]])).sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.sum(dim=1).nonzero().flatten().tolist() == [3, 4]


def test_dropped_tokens_are_zero_wherever_they_stand_and_in_training_alone() -> None:
    embedding = build_embedding(400, 3, padding=2, dropout=0.25)
    tokens = torch.arange(400).repeat(2).view(2, 400)
    plain = nn.functional.embedding(tokens, embedding.weight, padding_idx=2)
    embedded = embedding(tokens)
    assert torch.equal(embedded[0], embedded[1]), "one draw for all places"
    dropped = embedded[0].eq(0).all(dim=1)
    dropped[2] = False  # padding
    assert 60 <= int(dropped.sum()) <= 140, "of 400 at a quarter: more than four deviations"
    torch.testing.assert_close(embedded[0, ~dropped], plain[0, ~dropped] / 0.75, rtol=1e-4, atol=0)
    embedded.sum().backward()
    assert embedding.weight.grad is not None
    assert torch.equal(embedding.weight.grad.eq(0).all(dim=1).nonzero(), (dropped | tokens[0].eq(2)).nonzero())
    assert not torch.equal(embedding(tokens), embedded)
    assert torch.equal(embedding.eval()(tokens), plain)
