"""Mu-law companding (ITU-T G.711): samples as classes, finer where they are small."""

import math

import torch
from torch import Tensor


def mu_law_encode(samples: Tensor, classes: int = 256) -> Tensor:
    """Samples in [-1, 1] (what lies outside is clipped) as classes 0 to ``classes - 1``, int64, of the same shape.

    Equal to ``torchaudio.functional.mu_law_encoding`` inside [-1, 1]; zero is class ``classes // 2``.
    """
    mu = float(classes - 1)
    samples = samples.clamp(-1.0, 1.0)
    squeezed = samples.sign() * torch.log1p(mu * samples.abs()) / math.log1p(mu)
    return ((squeezed + 1.0) / 2.0 * mu + 0.5).to(torch.int64)


def mu_law_decode(codes: Tensor, classes: int = 256) -> Tensor:
    """Classes as float32 samples in [-1, 1]: equal to ``torchaudio.functional.mu_law_decoding``."""
    mu = float(classes - 1)
    squeezed = codes.to(torch.float32) / mu * 2.0 - 1.0
    return squeezed.sign() * torch.expm1(squeezed.abs() * math.log1p(mu)) / mu


def silence(classes: int = 256) -> int:
    """The class of a sample of zero."""
    return classes // 2
