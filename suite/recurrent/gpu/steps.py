"""A product and one launch of a Triton kernel for each step of a hand-written cell.

The kernels (``kernels/lstm.py``, ``gru.py``, ``vanilla.py``) take by name what they need of the arrays here. All rows
run at every step, so that nothing waits for lengths to reach the CPU, and rows that have ended get zeros.
``graphs.py`` has these loops in blocks of steps, recorded once.

By step, ``(K, B, ...)``: ``gates``; ``kept`` and ``scales``, standardised products and one over their deviation;
``zone`` and ``zone_memory``, the share that zoneout keeps; ``outputs``, gradients that come in; ``gates_slope`` and
``products_slope``. With the state before the first step, ``(K + 1, B, H)``: ``hidden`` and ``memory``. Of the present
step alone: ``product (B, G)``; ``low (B, H)``, the state in the product's precision; ``direct``, ``through`` and
``memory_slope`` ``(B, H)``, gradients that reach a state past the product, through it, and of the cell state; each
row's gradients of the cell's own parameters. ``left (B,)``: how many of the steps a row has.
"""

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

LARGEST = 4096  # features that a program of a kernel holds at once
ZONES = ("zone", "zone_memory")
BY_STEP = ("gates", "kept", "scales", "outputs", "gates_slope", "products_slope", *ZONES)
STATES = ("hidden", "memory")
Arrays = dict[str, Tensor]


@cache
def triton_kernels(name: str) -> ModuleType:
    """A module of Triton kernels, imported when a cell first runs on a GPU."""
    return import_module(f"suite.recurrent.gpu.kernels.{name}")


def runs_on_gpu(values: Tensor, *, size: int) -> bool:
    """Whether there are kernels for this device and a state of ``size`` features."""
    if not values.is_cuda or size > LARGEST:
        return False
    return torch.cuda.is_current_stream_capturing() or _starts(values.device)


@cache
def _starts(device: torch.device) -> bool:
    """Whether a kernel can be compiled and started here, which needs Triton and a C compiler; said once if not."""
    try:
        probe = triton_kernels("blocks").count_up
        with torch.cuda.device(device):
            probe[(1,)](torch.zeros(1, dtype=torch.int32, device=device))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # no fault of the kernels
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"recurrent cells of the suite's own run without their GPU kernels, twenty times slower: {reason} (Triton "
            "and a C compiler are needed)",
            stacklevel=3,
        )
        return False
    return True


class Cell(NamedTuple):
    """A cell with step kernels.

    ``module`` and ``name`` of its kernels. ``extras``: its own parameters. ``scales``: numbers that normalisation keeps
    of a row; ``keeps``: (standardised) products are needed backward. ``memory``: it has a cell state. ``zoned``: with
    zoneout. ``activation``: of a vanilla cell.
    """

    module: str
    name: str
    extras: tuple[str, ...] = ()
    scales: int = 0
    keeps: bool = False
    memory: bool = False
    zoned: bool = False
    activation: str | None = None


PEEPHOLE_LSTM = Cell("lstm", "peephole_lstm", ("peepholes",), memory=True)
LAYERNORM_LSTM = Cell(
    "lstm", "layernorm_lstm", ("gain", "memory_gain", "memory_bias"), scales=1, keeps=True, memory=True
)
GRU = Cell("gru", "gru", ("gain", "bias"), keeps=True)
LAYERNORM_GRU = GRU._replace(scales=2)


def vanilla_cell(activation: str, *, diagonal: bool = False) -> Cell:
    """A vanilla cell, or with ``diagonal`` IndRNN."""
    return Cell("vanilla", "indrnn" if diagonal else "vanilla", activation=activation)


def forward_arrays(cell: Cell, gates: Tensor, weight: Tensor) -> Arrays:
    """What a forward pass writes, for ``gates (K, B, G)``; states of the kind of ``gates``, products of ``weight``."""
    steps, batch, size = gates.size(0), gates.size(1), weight.size(1)
    found = {
        "hidden": gates.new_empty(steps + 1, batch, size),
        "product": weight.new_empty(batch, weight.size(0)),
        "low": weight.new_empty(batch, size),
    }
    if cell.memory:
        found["memory"] = torch.empty_like(found["hidden"])
    if cell.keeps:
        found["kept"] = torch.empty_like(gates)
    if cell.scales:
        found["scales"] = gates.new_empty(steps, batch, cell.scales)
    return found


def backward_arrays(cell: Cell, gates: Tensor, weight: Tensor, extras: Arrays) -> Arrays:
    """What a backward pass writes, for ``gates (K, B, G)``; gradients under way start at zero."""
    batch, size = gates.size(1), weight.size(1)
    shared = not cell.keeps and weight.dtype == gates.dtype
    found = {"gates_slope": torch.empty_like(gates)}
    found["products_slope"] = found["gates_slope"] if shared else torch.empty_like(gates, dtype=weight.dtype)
    found["through"] = weight.new_zeros(batch, size)
    found["direct"] = gates.new_zeros(batch, size)
    if cell.memory:
        found["memory_slope"] = gates.new_zeros(batch, size)
    return found | {f"{name}_slope": gates.new_zeros(batch, extra.numel()) for name, extra in extras.items()}


def forward_steps(cell: Cell, arrays: Arrays, weight: Tensor) -> None:
    """All steps from ``arrays["hidden"][0]`` on."""
    hidden, low, product = arrays["hidden"], arrays["low"], arrays["product"]
    turned, launch = weight.t().contiguous(), _launcher(cell, arrays, backward=False)
    same = hidden.dtype == weight.dtype
    if not same:
        low.copy_(hidden[0])
    for step in range(len(arrays["gates"])):
        torch.mm(hidden[step] if same else low, turned, out=product)
        launch(step, {"low": hidden[step + 1]} if same else {})


def backward_steps(cell: Cell, arrays: Arrays, weight: Tensor) -> None:
    """All steps, the last one first; what reaches the first state is the sum of ``direct`` and ``through``."""
    launch, slopes, through = _launcher(cell, arrays, backward=True), arrays["products_slope"], arrays["through"]
    for step in reversed(range(len(slopes))):
        launch(step, {})
        torch.mm(slopes[step], weight, out=through)


def _launcher(cell: Cell, arrays: Arrays, *, backward: bool) -> Any:
    """A function that runs the cell's kernel at a step."""
    kernel = getattr(triton_kernels(cell.module), f"{cell.name}_slope" if backward else cell.name)
    batch, size = arrays["hidden"].shape[1:]
    block = 1 << max(size - 1, 0).bit_length()
    missing = dict.fromkeys(("scales", *ZONES), arrays["gates"])  # which no cell without them reads
    values: dict[str, Any] = {**missing, **arrays, "size": size, "block": block}
    values |= {"zoned": cell.zoned, "normed": cell.scales > 0, "activation": cell.activation}
    warps = 4 if block <= 512 else 8 if block <= 2048 else 16

    def launch(step: int, others: Arrays) -> None:
        now: dict[str, Any] = {**values, "step": step}
        now |= {name: arrays[name][step] for name in (*BY_STEP, *STATES) if name in arrays}
        now |= {f"new_{name}": arrays[name][step + 1] for name in STATES if name in arrays}
        now |= others
        kernel[(batch,)](**{name: now[name] for name in kernel.arg_names}, num_warps=warps)

    return launch
