"""Mu-law: torchaudio's, class by class and sample by sample."""

import pytest
import torch
from torchaudio.functional import mu_law_decoding, mu_law_encoding

from suite.mu_law import mu_law_decode, mu_law_encode, silence


@pytest.mark.parametrize("classes", [256, 64, 1024])
def test_equal_to_torchaudio(classes: int) -> None:
    samples = torch.cat([torch.linspace(-1, 1, 100_001), torch.randn(10_000).clamp(-1, 1) * 1e-3])
    assert torch.equal(mu_law_encode(samples, classes), mu_law_encoding(samples, classes))
    codes = torch.arange(classes)
    torch.testing.assert_close(mu_law_decode(codes, classes), mu_law_decoding(codes, classes), rtol=0, atol=1e-7)


def test_every_class_survives_the_way_there_and_back() -> None:
    codes = torch.arange(256)
    assert torch.equal(mu_law_encode(mu_law_decode(codes)), codes)


def test_what_is_too_loud_is_clipped_and_silence_is_in_the_middle() -> None:
    assert mu_law_encode(torch.tensor([-7.0, 7.0, 0.0])).tolist() == [0, 255, silence()]
