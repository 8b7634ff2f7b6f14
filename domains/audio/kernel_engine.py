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
            self.loops.append(FewStreams(own) if part.stop <= FEW else StreamGroup(own))
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
        found = torch.empty(draws.shape, dtype=torch.long)

        def go_on(part: slice, loop: Loop) -> None:
            codes, scores = loop.run(
                draws[:, part],
                temperature=temperature,
                local=None if local is None else local[:, part],
                forced=None if forced is None else forced[:, part],
                with_logits=logits is not None,
            )
            found[:, part] = codes
            if logits is not None:
                logits[:, part] = scores

        if self.threads == 1:
            for part, loop in zip(self.parts, self.loops, strict=True):
                go_on(part, loop)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(go_on, self.parts, self.loops))
        return found


def split_streams(streams: int, threads: int) -> list[slice]:
    """Parts of like size: one where streams are few, else groups, as many for each thread as for the next."""
    if streams <= FEW:
        return [slice(0, streams)]
    groups = -(-streams // WIDTHS[-1])
    groups = min(-(-streams // LANES), -(-groups // threads) * threads)
    edges = [streams * group // groups for group in range(groups + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]
