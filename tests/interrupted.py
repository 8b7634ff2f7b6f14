"""Run a verb and be killed at a chosen moment: ``python -m tests.interrupted WHEN VERB ...``.

WHEN is ``never``, or ``HOOK:COUNT:SIGNAL``: the COUNT-th call of a Lightning hook sends SIGNAL to this process, or with
``RAISE`` raises an error; in several processes ``HOOK:COUNT:SIGNAL:RANK`` does so in one of them. Checkpoints of that
hook are written before. The steps begun are counted in the file that ``STEPS_FILE`` names.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

import domains
import suite.fitting
from suite.cli import CONFIGS, main
from tests import toy


class Interrupt(Callback):
    """Sends itself a signal."""

    def __init__(self, when: str) -> None:
        self.hook, count, self.action, *rank = when.split(":") if when != "never" else ("", "0", "SIGKILL")
        self.left, self.rank = int(count), int(rank[0]) if rank else None

    def _called(self, hook: str) -> None:
        if hook == self.hook:
            self.left -= 1
            if self.left == 0 and self.rank in (None, int(os.environ.get("LOCAL_RANK", "0"))):
                if "KILL_FILE" in os.environ:  # its time is when it happened
                    Path(os.environ["KILL_FILE"]).touch()
                if self.action == "RAISE":
                    raise RuntimeError("raised on purpose")
                number = getattr(signal, self.action)
                if "KILL_GROUP" in os.environ:
                    os.killpg(0, number)
                else:
                    os.kill(os.getpid(), number)

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if "STEPS_FILE" in os.environ:
            with Path(os.environ["STEPS_FILE"]).open("a") as file:
                file.write(f"{trainer.global_rank} {trainer.global_step}\n")
        self._called("on_train_batch_start")

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._called("on_train_batch_end")

    def on_validation_batch_end(self, *args: Any) -> None:
        self._called("on_validation_batch_end")

    def on_validation_end(self, *args: Any) -> None:
        self._called("on_validation_end")

    def on_train_epoch_end(self, *args: Any) -> None:
        self._called("on_train_epoch_end")

    def on_train_epoch_start(self, *args: Any) -> None:
        self._called("on_train_epoch_start")


def run(when: str, verb: str, arguments: list[str]) -> int:
    """As the scripts do, for every domain and the toy one, with one more callback."""
    build = suite.fitting.build_trainer

    def build_with_interrupt(*args: Any, **kwargs: Any) -> Trainer:
        trainer = build(*args, **kwargs)
        trainer.callbacks.append(Interrupt(when))  # type: ignore[attr-defined]
        return trainer

    suite.fitting.build_trainer = build_with_interrupt
    is_toy = "toy" in arguments or "--domain=toy" in arguments
    seam: Any = toy if is_toy else domains
    configs = Path(toy.__file__).parent / "configs" if is_toy else CONFIGS
    return main(verb, available=seam.available, load=seam.load, configs=configs, argv=arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
