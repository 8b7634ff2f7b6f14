"""Ways of running a hand-written cell on a GPU, in turns: what compiling, kernels and CUDA graphs each give."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn

from suite.recurrent import cells
from suite.recurrent.encoder import RecurrentEncoder
from suite.recurrent.gpu import unroll
from suite.timing import in_turns

_BATCH, _STEPS, _SIZE = 32, 128, 256
_Way = Callable[[], AbstractContextManager[None]]


@contextmanager
def _one_by_one() -> Iterator[None]:
    with patch.object(unroll, "find_block", lambda *_, **__: None):
        yield


@contextmanager
def _without_kernels() -> Iterator[None]:
    with patch.object(cells, "runs_on_gpu", lambda values, *, size: False):
        yield


class _Compiled(nn.Module):
    """A peephole LSTM as one would write it, its step through ``torch.compile``."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(_SIZE, 4 * _SIZE)
        self.weight = nn.Parameter(torch.randn(4 * _SIZE, _SIZE) / _SIZE**0.5)
        self.peepholes = nn.Parameter(torch.zeros(3, _SIZE))
        self.step = torch.compile(_step)

    def forward(self, inputs: Tensor) -> Tensor:
        gates = self.inputs(inputs).transpose(0, 1)
        hidden = memory = inputs.new_zeros(len(inputs), _SIZE)
        outputs = []
        for share in gates:
            hidden, memory = self.step(share, hidden, memory, self.weight, self.peepholes)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)


def _step(share: Tensor, hidden: Tensor, memory: Tensor, weight: Tensor, peepholes: Tensor) -> tuple[Tensor, Tensor]:
    enter, keep, cell, leave = (share + hidden @ weight.t()).chunk(4, dim=1)
    new = torch.sigmoid(keep + peepholes[1] * memory) * memory
    new = new + torch.sigmoid(enter + peepholes[0] * memory) * torch.tanh(cell)
    return torch.sigmoid(leave + peepholes[2] * new) * torch.tanh(new), new


def gpu_ways(*, rounds: int) -> list[str]:
    """Markdown: milliseconds of a forward pass and of a training step, for each way and for ``torch.nn.LSTM``."""
    inputs = torch.randn(_BATCH, _STEPS, _SIZE, device="cuda", requires_grad=True)
    encoder = RecurrentEncoder(_SIZE, _SIZE, cell="peephole_lstm").cuda()
    compiled, fused = _Compiled().cuda(), nn.LSTM(_SIZE, _SIZE, batch_first=True).cuda()
    ways: dict[str, tuple[nn.Module, Callable[[], Tensor], _Way]] = {
        "nn.LSTM (cuDNN)": (fused, lambda: fused(inputs)[0], nullcontext),
        "peephole_lstm, steps in torch": (encoder, lambda: encoder(inputs).outputs, _without_kernels),
        "peephole_lstm, steps through torch.compile": (compiled, lambda: compiled(inputs), nullcontext),
        "peephole_lstm, a kernel a step": (encoder, lambda: encoder(inputs).outputs, _one_by_one),
        "peephole_lstm, blocks as CUDA graphs (what is used)": (encoder, lambda: encoder(inputs).outputs, nullcontext),
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, (module, forward, way) in ways.items():
        calls[f"{name}/forward"] = _timed(module, forward, way, training=False)
        calls[f"{name}/training"] = _timed(module, forward, way, training=True)
    times = {name: statistics.median(found) * 1e3 for name, found in in_turns(calls, rounds=rounds).items()}
    lines = [f"| B {_BATCH}, T {_STEPS}, H {_SIZE}, float32 | forward | training |", "|---|---:|---:|"]
    return lines + [f"| {name} | {times[f'{name}/forward']:.2f} | {times[f'{name}/training']:.2f} |" for name in ways]


def _timed(module: nn.Module, forward: Callable[[], Tensor], way: _Way, *, training: bool) -> Callable[[], None]:
    def run() -> None:
        with way(), torch.set_grad_enabled(training):
            outputs = forward()
            if training:
                module.zero_grad(set_to_none=True)
                outputs.sum().backward()
        torch.cuda.synchronize()

    return run
