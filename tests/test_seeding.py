"""Seeds are a pure function of their parts, and reach every generator."""

import random

import numpy
import pytest
import torch

from suite import seeding
from suite.seeding import mix, seed_everything


def draws() -> tuple[float, float, float]:
    return random.random(), float(numpy.random.random()), float(torch.rand(()))


def test_the_same_parts_give_the_same_draws() -> None:
    seed_everything(3, 1, 2, 0)
    first = draws()
    seed_everything(3, 1, 2, 0)
    assert draws() == first
    seed_everything(3, 1, 2, 1)
    assert all(one != other for one, other in zip(draws(), first, strict=True))


@pytest.mark.parametrize("has", [True, False])
def test_torch_draws_as_after_its_own_seeding(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "_has_accelerator", lambda: has)
    seed_everything("a", 7)
    ours = torch.rand(5)
    torch.manual_seed(mix("a", 7))
    assert torch.equal(torch.rand(5), ours)
    assert torch.initial_seed() == mix("a", 7)
