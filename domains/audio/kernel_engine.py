"""The engine in machine code: all streams on this CPU, on as many threads as torch has."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from domains.audio.loops import FEW, FewStreams, Loop, StreamGroup
from domains.audio.weights import Weights
from suite.tiles import LANES, WIDTHS


class KernelEngine:
    """A few streams in one loop, or many in groups; groups take turns on the threads."""

    def __init__(self, weights: Weights) -> None:
        threads = torch.get_num_threads()
        self.parts = split_streams(weights.offsets.size(1), threads)
        self.loops: list[Loop] = []
        for part in self.parts:
            own = weights._replace(offsets=weights.offsets[:, part].contiguous())
            self.loops.append(FewStreams(own) if part.stop - part.start <= FEW else StreamGroup(own))
        self.classes = len(weights.output_bias)
        self.threads = min(threads, len(self.parts))

    @torch.no_grad()
    def run(
        self,
        draws: Tensor,
        *,
        temperature: float = 1.0,
        local: Tensor | None = None,
        forced: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Go on by T steps: see ``Stepper``."""
        # Machine code reads where it is told to.
        assert local is None or local.shape[:2] == draws.shape, "a local condition for every step and stream"
        assert forced is None or not forced.numel() or 0 <= int(forced.min()) <= int(forced.max()) < self.classes

        def go_on(part: slice, loop: Loop) -> tuple[Tensor, Tensor]:
            return loop.run(
                draws[:, part],
                temperature=temperature,
                local=None if local is None else local[:, part],
                forced=None if forced is None else forced[:, part],
                with_logits=logits is not None,
            )

        if self.threads == 1:
            results = [go_on(part, loop) for part, loop in zip(self.parts, self.loops, strict=True)]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                results = list(pool.map(go_on, self.parts, self.loops))
        # Put together here: in inference mode, which is a thread's own, others may not write to this thread's tensors.
        if logits is not None:
            torch.cat([scores for _, scores in results], dim=1, out=logits)
        return torch.cat([codes for codes, _ in results], dim=1)


def split_streams(streams: int, threads: int) -> list[slice]:
    """Parts of like size: one where streams are few, else groups, as many for each thread as for the next."""
    if streams <= FEW:
        return [slice(0, streams)]
    groups = -(-streams // WIDTHS[-1])
    groups = min(-(-streams // LANES), -(-groups // threads) * threads)
    edges = [streams * group // groups for group in range(groups + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]
