"""Log mel spectra of a stretch of a clip, the same whether the stretch or the whole clip is asked for."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy
import torch
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from domains.audio.files import Clip
from suite.effects import Declared, above
from suite.errors import UsageError

MARGIN = 2  # frames on each side that the learned upsampling looks at
_FLOOR = 1e-5


@dataclass(frozen=True)
class MelConfig:
    """The local condition: a log mel spectrum.

    Args:
        bands: Mel bands; 0 for no local condition.
        hop: Samples from frame to frame; what upsampling multiplies to, so best a power of two.
        window: Samples in a frame.
    """

    only_with: ClassVar[Declared] = dict.fromkeys(("hop", "window"), above("bands", 0))

    bands: int = 0
    hop: int = 64
    window: int = 256

    def check(self) -> None:
        """Raises UsageError for values that mean nothing."""
        if self.bands < 0 or self.hop < 2 or self.window < self.hop:
            raise UsageError(
                f"data.mel is {self}, allowed are bands of 0 or more, a hop of 2 or more, and a window of a hop or more"
            )


def mel_frames(clip: Clip, start: int, stop: int, *, config: MelConfig) -> Tensor:
    """Frames ``(bands, F)``, frame f centred on sample ``start + (f - MARGIN) * hop``, up to ``stop`` and the margin.

    ``start`` has to be a multiple of the hop. What lies outside the clip counts as silence.
    """
    assert start % config.hop == 0, "frames stand on a grid"
    count = -(-(stop - start) // config.hop) + 2 * MARGIN
    low = start - MARGIN * config.hop - config.window // 2
    high = low + (count - 1) * config.hop + config.window
    inside = max(low, 0), min(high, clip.frames)
    samples = torch.from_numpy(numpy.ascontiguousarray(clip.read(*inside)))
    samples = torch.nn.functional.pad(samples, (inside[0] - low, high - inside[1]))
    return _transform(clip.rate, config)(samples).clamp_min(_FLOOR).log()


@cache
def _transform(rate: int, config: MelConfig) -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate=rate, n_fft=config.window, hop_length=config.hop, n_mels=config.bands, center=False, power=1.0
    )
