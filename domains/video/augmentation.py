"""Random changes of pictures and clips, by torchvision's v2 transforms: one draw for all frames of a clip."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from suite.errors import UsageError


@dataclass(frozen=True)
class AugmentConfig:
    """How training pictures and clips are changed at random; nothing by default.

    Args:
        flip: Probability of mirroring left and right; not where a class tells them apart.
        crop: Smallest share of the area that is cut out and scaled up again; 1 cuts nothing.
        shift: Largest shift in each direction, in pixels; what comes in is the mirrored border.
        brightness: Largest change of brightness, as a share; likewise the next three.
        contrast: Largest change of contrast.
        saturation: Largest change of saturation.
        hue: Largest turn of the hue, at most a half.
        erase: Probability of blotting out a rectangle.
    """

    flip: float = 0.0
    crop: float = 1.0
    shift: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            UsageError: naming the setting.
        """
        for name, low, high in (
            *(("flip", 0, 1), ("erase", 0, 1), ("shift", 0, float("inf")), ("hue", 0, 0.5)),
            *((name, 0, float("inf")) for name in ("brightness", "contrast", "saturation")),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"data.augment.{name} is {getattr(self, name)}, allowed is {low} to {high:g}")
        if not 0 < self.crop <= 1:
            raise UsageError(f"data.augment.crop is {self.crop}, allowed is more than 0, and 1 at most")


class Augmentation:
    """Changes ``frames (T, 3, S, S)`` uint8 by what one seed decides, the same for all of them.

    Args:
        config: what is changed.
        size: height and width of a frame (S).
    """

    def __init__(self, config: AugmentConfig, *, size: int) -> None:
        config.check()
        steps: list[torch.nn.Module] = []
        if config.crop < 1:
            steps.append(v2.RandomResizedCrop(size, scale=(config.crop, 1.0), antialias=True))
        if config.shift:
            steps.append(v2.RandomCrop(size, padding=min(config.shift, size - 1), padding_mode="reflect"))
        if config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        if config.brightness or config.contrast or config.saturation or config.hue:
            steps.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue))
        if config.erase:
            steps.append(v2.RandomErasing(config.erase))
        self.steps = v2.Compose(steps) if steps else None

    def __call__(self, frames: Tensor, *, seed: int) -> Tensor:
        """The changed frames; the global random state is left as it was."""
        if self.steps is None:
            return frames
        # The transforms draw from the processor's global generator; torch.manual_seed would note a traceback for each
        # accelerator, which takes longer than the transforms of a small picture.
        before = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            changed: Tensor = self.steps(frames)
        finally:
            torch.set_rng_state(before)
        return changed
