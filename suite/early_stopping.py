"""Early stopping that does not take a figure's worst value for a standstill."""

import lightning.pytorch.callbacks
from torch import Tensor

from suite.scores import has_not_begun


# The name stays Lightning's: checkpoints hold a callback's state by it.
class EarlyStopping(lightning.pytorch.callbacks.EarlyStopping):
    """Lightning's, but validations before a model has begun to score do not count (``scores.has_not_begun``)."""

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        if has_not_begun(float(current), float(self.best_score), self.mode):
            return False, None
        return super()._evaluate_stopping_criteria(current)
