"""Settings of ``--trainer`` that Lightning takes and that cannot be meant: parsing refuses them, ahead of any run."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import StrategyRegistry

from suite.effects import VALIDATION, Needs, above, never
from suite.errors import UsageError

# Processes that share tensors, which adds sums up twice.
_SHARING = ("spawn", "fork", "notebook")


_ENDS_EARLY = Needs(
    ("patience", "trainer.max_time", "trainer.callbacks"),
    lambda *values: any(values),
    "set {0} or {1}, which end a run early",
)
RUN_ONLY_WITH = {
    **dict.fromkeys(("patience", "samples", "keep_best"), VALIDATION),
    **{
        f"trainer.{name}": VALIDATION
        for name in ("check_val_every_n_epoch", "num_sanity_val_steps", "val_check_interval")
    },
    **dict.fromkeys(("trainer.min_epochs", "trainer.min_steps"), _ENDS_EARLY),
    "trainer.gradient_clip_algorithm": above("trainer.gradient_clip_val", 0),
    "trainer.limit_predict_batches": never("training predicts nothing"),
}
"""What settings of a run need to have an effect, beyond what the classes of settings declare themselves."""


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Refuse what would train uphill, never, or wrongly.

    Args:
        settings: the trainer's, by name; what a command does not take is not there.

    Raises:
        UsageError: naming the setting.
    """
    clip = settings.get("gradient_clip_val")
    if clip is not None and not clip >= 0:  # so written, NaN is refused too; a negative norm turns gradients round
        raise UsageError(f"trainer.gradient_clip_val is {clip}, allowed is 0 or more (0 or null does not clip)")
    if settings.get("accumulate_grad_batches", 1) < 1:
        given = settings["accumulate_grad_batches"]
        raise UsageError(f"trainer.accumulate_grad_batches is {given}, allowed is 1 or more batches in a step")
    for key, least in (("log_every_n_steps", 1), ("check_val_every_n_epoch", 1), ("num_sanity_val_steps", -1)):
        value = settings.get(key)
        if value is not None and value < least:
            raise UsageError(f"trainer.{key} must be at least {least}, got {value}")
    interval = settings.get("val_check_interval")
    if isinstance(interval, int | float) and not (interval > 0 and (isinstance(interval, int) or interval <= 1)):
        raise UsageError(
            f"trainer.val_check_interval is {interval}, allowed is 1 or more batches, or a share of an epoch above "
            "0 and up to 1.0"
        )
    for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"):
        value = settings.get(key)
        if value is not None and not (value >= 0 and (isinstance(value, int) or value <= 1)):
            raise UsageError(f"trainer.{key} is {value}, allowed is 0 or more batches, or a share from 0.0 to 1.0")
    unlimited = ", or -1 for no limit"
    for key, more in (("max_epochs", unlimited), ("max_steps", unlimited), ("limit_train_batches", "")):
        if settings.get(key) == 0:
            raise UsageError(f"trainer.{key} is 0, which trains nothing: allowed is 1 or more{more}")
    _check_strategy(settings.get("strategy"))


def check_validation_interval(settings: Mapping[str, Any], batches: int) -> None:
    """Refuse to validate after more training batches than an epoch has, which Lightning says with a traceback.

    Args:
        settings: the trainer's, by name.
        batches: of one process in an epoch.

    Raises:
        UsageError: naming the setting.
    """
    interval, limit = settings["val_check_interval"], settings["limit_train_batches"]
    counted = settings["check_val_every_n_epoch"] is not None and settings["limit_val_batches"] != 0
    if not isinstance(interval, int) or not counted:  # a share of an epoch, a time, or counted across epochs
        return
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if interval > batches > 0:
        raise UsageError(
            f"trainer.val_check_interval is {interval}, an epoch has {batches} training batch(es): allowed is 1 to "
            f"{batches}, or a share of an epoch such as 0.5; to count across epochs, "
            "add --trainer.check_val_every_n_epoch null"
        )


def _check_strategy(strategy: Any) -> None:
    if not isinstance(strategy, str):
        return
    if any(word in strategy for word in _SHARING):
        raise UsageError(
            f"trainer.strategy {strategy}: its processes share metric tensors, so that sums count twice: use ddp"
        )
    known = ["auto", *sorted(StrategyRegistry.available_strategies())]
    if strategy not in known:
        allowed = ", ".join(name for name in known if not any(word in name for word in _SHARING))
        raise UsageError(f"trainer.strategy {strategy}: no such strategy; there are: {allowed}")
