"""One input that cannot be predicted does not take away the results of the others."""

import traceback
from types import TracebackType
from typing import Any, Self

import torch
from lightning.pytorch import Trainer

from suite.data import SuiteDataModule
from suite.errors import SuiteError
from suite.module import SuiteModule


class Failure(dict[str, Any]):
    """The result of an input that could not be predicted: ``index``, ``error``, and its text as batches name it."""


class Guard:
    """Within its ``with`` block, an error in ``module.predict_step`` is the result of the inputs that cause it.

    A batch that fails is predicted once more, input by input. Batches must carry ``indices``; errors of others are
    raised as before.

    Args:
        module: whose ``predict_step`` is guarded.
        data: makes batches of single inputs, of the split ``predict``.
        trainer: moves them to the device.
        debug: print the traceback of each error.
    """

    def __init__(self, module: SuiteModule, data: SuiteDataModule, trainer: Trainer, *, debug: bool) -> None:
        self.module, self.data, self.trainer, self.debug = module, data, trainer, debug
        self._step = module.predict_step

    def __enter__(self) -> Self:
        self.module.predict_step = self.predict_step  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self.module.predict_step

    def predict_step(self, batch: Any, batch_index: int) -> list[dict[str, Any]]:
        """The results of a batch, with a ``Failure`` for each input that fails."""
        indices = getattr(batch, "indices", None)
        if not isinstance(indices, list):
            return self._step(batch, batch_index)
        results, reason = self._try(batch, batch_index)
        if results is not None:
            return results
        if len(indices) == 1:
            return [self._failure(batch, indices[0], reason)]
        return [result for index in indices for result in self._alone(index, batch_index)]

    def _alone(self, index: int, batch_index: int) -> list[dict[str, Any]]:
        batch = self.data.batch_of("predict", [index])
        batch = self.trainer.precision_plugin.convert_input(batch)
        batch = self.trainer.strategy.batch_to_device(batch, self.module.device)
        results, reason = self._try(batch, batch_index)
        return [self._failure(batch, index, reason)] if results is None else results

    def _try(self, batch: Any, batch_index: int) -> tuple[list[dict[str, Any]] | None, str]:
        """Results, or why there are none. The error is gone afterwards, and with it the memory that it holds."""
        try:
            return self._step(batch, batch_index), ""
        except (BrokenPipeError, NotImplementedError):
            raise
        except Exception as error:
            if self.debug:
                traceback.print_exc()
            return None, _reason(error)

    def _failure(self, batch: Any, index: int, reason: str) -> Failure:
        named = {key: getattr(batch, f"{key}s")[0] for key in ("input", "source") if hasattr(batch, f"{key}s")}
        return Failure(index=index, **named, error=reason)


def _reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, SuiteError):
        return text
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "out of memory: the input is too long for this machine"
    return f"{type(error).__name__}: {text}"
