"""Sines of random phase and frequency, of unequal length; the noise on them is an augmentation."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from suite.data import SuiteDataModule
from suite.seeding import mix
from suite.sequence import pad_sequences


class SineBatch(NamedTuple):
    """``values (B, T+1)`` of which ``lengths (B,)`` steps are to be predicted."""

    values: Tensor
    lengths: Tensor
    indices: list[int]


class Sines:
    """``size`` sines, drawn from ``seed``."""

    def __init__(self, size: int, *, seed: int, noise: float) -> None:
        rng = numpy.random.default_rng(seed)
        self.noise = noise
        self.curves = [
            torch.sin(torch.arange(length + 1) * frequency + phase)
            for length, frequency, phase in zip(
                rng.integers(3, 20, size), rng.uniform(0.2, 1.0, size), rng.uniform(0, 2 * math.pi, size), strict=True
            )
        ]
        self.lengths = numpy.array([len(curve) - 1 for curve in self.curves], dtype=numpy.int64)

    def fetch(self, index: int, seed: int) -> tuple[int, Tensor]:
        """A sine with noise that ``seed`` decides."""
        generator = torch.Generator().manual_seed(seed)
        curve = self.curves[index].float()
        return index, curve + self.noise * torch.randn(curve.shape, generator=generator)


class SineData(SuiteDataModule):
    """Noisy sines.

    Args:
        size: Sines in training; a quarter as many in val and in test.
        noise: Standard deviation of the noise.
        batch_size: Sines in a batch of one process, at most.
        num_workers: Processes that load data.
    """

    def __init__(
        self,
        *,
        size: int = 61,
        noise: float = 0.05,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, max_tokens=None, num_workers=num_workers, seed=seed, assets=assets)
        self.size, self.noise = size, noise

    def load(self, split: str) -> Sines:
        size = self.size if split == "train" else max(self.size // 4, 1)
        return Sines(size, seed=mix(split, self.seed), noise=self.noise if split == "train" else 0.0)

    def load_inputs(self, inputs: Sequence[str]) -> Sines:
        return Sines(len(inputs), seed=0, noise=0.0)

    def make_assets(self) -> dict[str, Any]:
        return {}

    def collate(self, examples: list[Any]) -> SineBatch:
        values, lengths = pad_sequences([curve for _, curve in examples])
        return SineBatch(values, lengths - 1, [index for index, _ in examples])
