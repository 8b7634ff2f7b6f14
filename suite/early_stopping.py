"""Early stopping that does not take a figure's worst value for a standstill."""

import lightning.pytorch.callbacks
from torch import Tensor


# The name stays Lightning's: checkpoints hold a callback's state by it.
class EarlyStopping(lightning.pytorch.callbacks.EarlyStopping):
    """Lightning's, but validations at 0 do not count before the first above 0 where higher is better.

    Of such figures (BLEU, accuracy, F1) 0 is the worst there is: a model that has not yet begun to score has not
    stopped to improve.
    """

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        if self.mode == "max" and current == 0 and not self.best_score > 0:
            return False, None
        return super()._evaluate_stopping_criteria(current)
