"""What is handed to a recurrent encoder, judged before it runs: sizes, types, lengths, states."""

import torch
from torch import Tensor

from suite.errors import UsageError
from suite.recurrent.unroll import State

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_inputs(inputs: Tensor, lengths: Tensor | None, *, input_size: int, weight: Tensor) -> Tensor:
    """The lengths, T for each row where none are given.

    Refuses ``inputs`` that are not ``(B, T, input_size)`` of the type of ``weight``, and lengths that are not theirs.
    Lengths are looked at on a CPU alone, where that costs nothing.

    Raises:
        UsageError: naming what was given.
    """
    for name, given in (("inputs", inputs), ("lengths", lengths)):
        if not isinstance(given, Tensor | None) or (name == "inputs" and given is None):
            raise UsageError(f"{name} are a {type(given).__name__}, expected a torch.Tensor")
    if inputs.dim() != 3 or inputs.size(2) != input_size or not inputs.is_floating_point():
        shown = f"{tuple(inputs.shape)} of {_name(inputs)}"
        raise UsageError(f"inputs are {shown}, expected (B, T, {input_size}) of a floating type")
    if inputs.dtype != weight.dtype and not torch.is_autocast_enabled(inputs.device.type):
        raise UsageError(
            f"inputs are of {_name(inputs)}, the encoder's weights of {_name(weight)}: convert one of them"
        )
    if lengths is None:
        return torch.full((inputs.size(0),), inputs.size(1), dtype=torch.long, device=inputs.device)
    if lengths.dtype not in _WHOLE:
        raise UsageError(f"lengths are {_name(lengths)}, expected whole numbers")
    if tuple(lengths.shape) != (inputs.size(0),):
        raise UsageError(f"lengths have shape {tuple(lengths.shape)}, expected one a row: ({inputs.size(0)},)")
    if inputs.device.type == "cpu" and lengths.numel():
        if int(lengths.max()) > inputs.size(1):
            raise UsageError(f"lengths reach {int(lengths.max())}, but the inputs have {inputs.size(1)} steps")
        if int(lengths.min()) < 0:
            raise UsageError(f"lengths go down to {int(lengths.min())}, allowed is 0 or more")
    return lengths


def check_state(state: State, *, shape: tuple[int, int, int], count: int, counts_steps: bool) -> None:
    """Refuse a ``state`` that is not ``count`` tensors of ``shape (B, N, H)``.

    A cell that ``counts_steps`` may bring one more, ``(B, N, 1)``.

    Raises:
        UsageError: naming what was given.
    """
    others = [type(part).__name__ for part in state if not isinstance(part, Tensor)]
    if others:
        raise UsageError(f"the state has a {others[0]} in it, expected {count} tensors of {shape}")
    given = [tuple(part.shape) for part in state]
    counted = counts_steps and len(given) > count and given[-1] == (*shape[:2], 1)
    parts = given[:-1] if counted else given
    if len(parts) != count or any(part != shape for part in parts):
        raise UsageError(f"the state has shapes {given}, expected {count} of {shape}")
    if not all(part.is_floating_point() for part in state):
        raise UsageError(f"the state is of {state[0].dtype}, expected a floating type")


def check_begins(begins: Tensor, *, shape: tuple[int, int]) -> None:
    """Refuse ``begins`` that are not bool, ``(B,)`` or ``(B, N)``.

    Raises:
        UsageError: naming what was given.
    """
    if not isinstance(begins, Tensor) or begins.dtype != torch.bool:
        shown = _name(begins) if isinstance(begins, Tensor) else f"a {type(begins).__name__}"
        raise UsageError(f"begins is {shown}, expected a torch.Tensor of bool")
    if tuple(begins.shape) not in (shape[:1], shape):
        raise UsageError(f"begins has shape {tuple(begins.shape)}, expected {shape[:1]} or {shape}")


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
