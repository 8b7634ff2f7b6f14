"""Weights for the network of frames from a file: a checkpoint of this domain, or torchvision's for ResNet-18."""

import re
from pathlib import Path

import torch
from torch import Tensor

from domains.video.cnn import FrameCNN
from suite.checkpoint import RECORD_KEY, read, weights_of
from suite.console import notice
from suite.errors import CheckpointError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation that torchvision's weights go with
OWN = re.compile(r"^network\.(?:cnn|cnns\.rgb)\.")
"""Names of the network of frames in a module of this domain."""


def load_weights(cnn: FrameCNN, path: str | Path) -> None:
    """Put the weights of ``path`` into ``cnn``, all of them or none; says what was left out.

    Raises:
        CheckpointError: no such file, damaged, foreign, or of another network.
    """
    state, left_out = _state_of(Path(path))
    own = cnn.state_dict()
    # torchvision's network ends below the linear layer, which begins anew.
    missing = [name for name in own if name not in state]
    fresh = [name for name in missing if name.startswith("features.")]
    problems = [f"it lacks {name}" for name in missing if name not in fresh]
    problems += [f"it has {name} beside" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(weight.shape)} there, {tuple(own[name].shape)} here"
        for name, weight in state.items()
        if name in own and own[name].shape != weight.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: not of this model.cnn: {'; '.join(problems[:3])}{more}")
    cnn.load_state_dict(state, strict=False)
    beside = f"; left out: {', '.join(left_out)}" if left_out else ""
    notice(
        f"model.cnn.weights: {len(state)} tensors from {path}{beside}"
        + (f"; begun anew: {', '.join(fresh)}" if fresh else "")
    )


def _state_of(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by the names of ``FrameCNN``, and the names of what is not for it."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file: model.cnn.weights names a checkpoint or torchvision's weights")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch says to a file that is none
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: no weights that can be read ({reason})") from None
    if isinstance(loaded, dict) and RECORD_KEY in loaded:
        state = weights_of(read(path))  # its digest is verified too
        found = {OWN.sub("", name): weight for name, weight in state.items() if OWN.match(name)}
        if not found:
            raise CheckpointError(f"{path}: there is no network of frames in it: use a checkpoint of this domain")
        return found, []
    if not isinstance(loaded, dict) or "layer4.1.bn2.weight" not in loaded:
        raise CheckpointError(f"{path}: neither a checkpoint of this domain nor torchvision's weights of ResNet-18")
    kept = {_own_name(name): weight for name, weight in loaded.items() if not name.startswith("fc.")}
    for name, values in zip(("mean", "deviation"), IMAGENET, strict=True):
        kept[name] = torch.tensor(values).view(3, 1, 1)
    return kept, [name for name in loaded if name.startswith("fc.")]


def _own_name(name: str) -> str:
    """torchvision's name of a weight of ResNet-18 as ``FrameCNN`` has it."""
    head, _, rest = name.partition(".")
    if head in ("conv1", "bn1"):
        return f"stages.0.{('conv1', 'bn1').index(head)}.{rest}"
    return f"stages.{head.removeprefix('layer')}.{rest}"
