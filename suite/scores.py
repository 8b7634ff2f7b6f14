"""The score that decides what is best: its value, and what counts as progress in it, wherever a run goes by it."""

import math

from lightning.pytorch import Trainer

from suite.errors import UsageError
from suite.module import SuiteModule


def is_training_validation(trainer: Trainer) -> bool:
    """Whether the validation at hand is part of fitting, and no sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def improves(score: float, best: float, mode: str) -> bool:
    """Whether ``score`` beats ``best``; a score that is not a number never does."""
    return score < best if mode == "min" else score > best


def has_not_begun(score: float, best: float | None, mode: str) -> bool:
    """Whether ``score`` says nothing yet: 0 where higher is better, and none before it was anything else.

    Of such figures (BLEU, accuracy, F1) 0 is the worst there is: a model that has not yet begun to score has not
    stopped to improve. Patience and the plateau schedule do not count these validations.

    Args:
        score: of this validation.
        best: of those before; ``None`` or minus infinity if there is none.
        mode: ``max`` or ``min``.
    """
    return mode == "max" and score == 0 and (best is None or not math.isfinite(best) or best == 0)


def monitored(trainer: Trainer, module: SuiteModule) -> float:
    """The value that decides what is best.

    Raises:
        UsageError: no such metric, naming those there are.
    """
    if module.monitor not in trainer.callback_metrics:
        names = ", ".join(sorted(trainer.callback_metrics))
        raise UsageError(f"the monitored metric {module.monitor} is not among those logged: {names}")
    return float(trainer.callback_metrics[module.monitor])
