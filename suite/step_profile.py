"""Where the time of a training step goes, from the actions that Lightning tells its profiler about."""

import time
from collections.abc import Callable
from typing import NamedTuple

from lightning.pytorch.profilers import Profiler

PARTS = ("data", "forward", "backward", "optimiser", "tracking", "rest")
_HOOKS = {
    **dict.fromkeys(("train_dataloader_next", "batch_to_device"), "data"),
    **dict.fromkeys(("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"), "data"),
    "training_step": "forward",
    "backward": "backward",
    **dict.fromkeys(("optimizer_step", "configure_gradient_clipping", "optimizer_zero_grad"), "optimiser"),
    "save_checkpoint": "tracking",
}
_NEXT_BATCH = "train_dataloader_next"
_AFTER_THE_LAST_STEP = ("on_train_epoch_end", "on_validation_model_zero_grad", "on_validation_start", "on_train_end")


def part_of(action: str) -> str:
    """The part of a step that an action's own time belongs to, by the hook that it names."""
    if action.startswith("[Callback]"):
        return "tracking"
    return _HOOKS.get(action.rpartition(".")[2], "rest")


class StepTimes(NamedTuple):
    """Seconds of one step, from asking for its batch to asking for the next; ``parts`` add up to ``total``."""

    total: float
    parts: dict[str, float]


class StepProfile(Profiler):
    """Splits each training step into ``PARTS``.

    The time of an action is its own: what runs inside it is left to the actions inside. What no action covers is
    ``rest``. A step is whole when the next batch is asked for, or when the epoch goes on to its end or to validation;
    what happens there belongs to no step.

    Args:
        ignore: name of a callback that only observes: its time is in no part and in no total.
        clock: seconds; the tests bring their own.
    """

    def __init__(self, *, ignore: str = "", clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.steps: list[StepTimes] = []
        self.wait: Callable[[], None] | None = None
        """Waits for the device: what was only handed over to it would count elsewhere."""
        self._ignored, self._clock = f"[Callback]{ignore}.", clock
        self._open: list[tuple[str, float]] = []
        self._inside: list[float] = []
        self._begun: float | None = None
        self._apart = 0.0
        self._parts: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        """An action begins."""
        now = self._now()
        hook = action_name.rpartition(".")[2]
        if hook == _NEXT_BATCH:
            self._close(now)
            self._begun, self._apart, self._parts = now, 0.0, dict.fromkeys(PARTS, 0.0)
        elif hook in _AFTER_THE_LAST_STEP:
            self._close(now)
        self._open.append((action_name, now))
        self._inside.append(0.0)

    def stop(self, action_name: str) -> None:
        """The action that began last ends."""
        name, begin = self._open.pop()
        assert name == action_name, (name, action_name)
        spent, inside = self._now() - begin, self._inside.pop()
        if self._inside:
            self._inside[-1] += spent
        if self._begun is None or begin < self._begun:
            return
        if name.startswith(self._ignored):
            self._apart += spent
        else:
            self._parts[part_of(name)] += spent - inside

    def _now(self) -> float:
        if self.wait is not None:
            self.wait()
        return self._clock()

    def _close(self, now: float) -> None:
        # A batch that was asked for in vain, at the end of the data, makes no step.
        if self._begun is not None and self._parts["forward"] > 0:
            total = now - self._begun - self._apart
            known = sum(seconds for part, seconds in self._parts.items() if part != "rest")
            self.steps.append(StepTimes(total, {**self._parts, "rest": total - known}))
        self._begun = None
