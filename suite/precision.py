"""Which precision a run really computes in: what a recipe asks for may not be there on this machine."""

from typing import Any

import torch

from suite.console import notice
from suite.errors import UsageError
from suite.process import has_bfloat16

_MIXED, _PURE = ("bf16-mixed", "bf16"), "bf16-true"
FULL = "32-true"
_HALF = ("16-mixed", "16-true", "16")
# Lightning's own text offers float16, and jsonargparse lists the types of Lightning's signature behind it.
HELP = (
    f"In what numbers to compute: {FULL} (32), 64-true (64), bf16-mixed (bf16; on a device without kernels for it, "
    f"{FULL}) or bf16-true (not on such a device); null is {FULL}. Of the types listed here, "
    f"{', '.join(_HALF[:-1])} and {_HALF[-1]} are refused, as sums of losses overflow in float16; transformer-engine "
    "kinds need that library."
)


def settle_precision(trainer: Any) -> None:
    """Put ``32-true`` in the place of mixed bfloat16 where the device has no kernels for it, and say so.

    Recipes ask for bfloat16 because it halves the time where there are units for it; elsewhere the same recipe is to
    run, in float32. It is settled before anything is recorded, so that the run folder says what was done.

    Args:
        trainer: the settings of ``--trainer``; ``precision`` is overwritten.

    Raises:
        UsageError: ``bf16-true``, whose weights are bfloat16 themselves, on such a device; float16 anywhere.
    """
    precision = trainer.precision
    if str(precision) in _HALF:
        raise UsageError(
            f"trainer.precision is {precision}, in which sums of losses overflow: use bf16-mixed or {FULL}"
        )
    if precision not in (*_MIXED, _PURE) or has_bfloat16(_device(trainer.accelerator)):
        return
    lacks = _lacks(trainer.accelerator)
    if precision == _PURE:
        raise UsageError(f"trainer.precision is {precision}, and {lacks}: use {FULL}")
    notice(f"trainer.precision: {lacks}, computing in {FULL} instead of {precision}")
    trainer.precision = FULL


def refuse_other_precision(precision: Any, accelerator: Any, *, run: str) -> None:
    """A run in bfloat16 cannot go on exactly where there is none.

    Raises:
        UsageError: ``run`` was trained in a precision that this machine does not have.
    """
    if precision in (*_MIXED, _PURE) and not has_bfloat16(_device(accelerator)):
        raise UsageError(
            f"{run} was trained in {precision}, and {_lacks(accelerator)}: go on where there are, or "
            f"begin a new run from its weights (finetune.py --source {run} --trainer.precision {FULL})"
        )


def _lacks(accelerator: Any) -> str:
    name = {"cpu": "CPU", "cuda": "GPU"}.get(_device(accelerator), "device")
    return f"this {name} has no kernels for bfloat16"


def _device(accelerator: Any) -> str:
    """The type of device behind ``--trainer.accelerator``."""
    found = None if accelerator == "cpu" else torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type
