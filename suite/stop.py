"""Ending a run on a signal: the handler only remembers, and all processes end at the same step.

Lightning's own answer to SIGTERM ends with status 0 and saves nothing, or, with several processes, waits for ever.
Here each process tells the others with the reduction that every step makes anyway, so that whichever of them was
signalled, all save the same checkpoint and end with 128 plus the number of the signal, as the shell counts.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import torch
import torch.distributed
from torch import Tensor

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Which signals came, here and (after ``agree``) on any process.

    ``save_at`` is the time (of ``time.monotonic``) from which this process asks for a checkpoint without an end. The
    request travels with the signals and costs no message of its own.
    """

    def __init__(self) -> None:
        self.here = [False] * len(SIGNALS)
        self.anywhere: signal.Signals | None = None
        self.save_at: float | None = None
        self.save_anywhere = False
        self._terminals: list[int] = []

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Whatever is installed inside, the signals are answered afterwards as they were before."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            yield
        finally:
            if _may_install():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def install(self) -> None:
        """Answer the signals from now on (in the main thread only: Python allows it nowhere else).

        A SIGHUP that is ignored stays ignored: the run was started with ``nohup``.
        """
        if _may_install():
            self._terminals = self._terminals or [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        place = SIGNALS.index(signal.Signals(number))
        if self.here[place] and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked for twice: somebody does not want to wait for the step
        self.here[place] = True
        if number == signal.SIGHUP:
            _leave_closed_terminals(self._terminals)

    def wishes(self) -> list[float]:
        """Numbers for a sum over processes; ``agree`` takes the sums."""
        save = self.save_at is not None and time.monotonic() >= self.save_at
        return [*(float(came) for came in self.here), float(save)]

    def agree(self, sums: list[float]) -> None:
        """Take what all processes said together."""
        *signals, saves = sums
        self.save_anywhere = saves > 0
        for number, count in zip(SIGNALS, signals, strict=True):
            if count and self.anywhere is None:
                self.anywhere = number

    def ask_everyone(self, device: torch.device) -> None:
        """Agree in a reduction of its own, outside of training steps."""
        sums: Tensor = torch.tensor(self.wishes(), device=device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.agree(sums.tolist())

    def leave(self) -> None:
        """End the process with the status that says which signal it was, if there was one."""
        if self.anywhere is not None:
            raise SystemExit(128 + self.anywhere)


def _leave_closed_terminals(terminals: list[int]) -> None:
    """Send output to nowhere if its terminal was closed: a line on it would be an error, and end the run unsaved."""
    for descriptor in terminals:
        if not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _may_install() -> bool:
    return threading.current_thread() is threading.main_thread()
