"""Audio's own rows: a training step against the matrix peak, the two engines, many streams on two threads."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from domains.audio.data import WaveBatch
from domains.audio.engines import KernelEngine, TorchEngine
from domains.audio.model import WaveformModule
from domains.audio.weights import weights_of
from suite.kernels import AVAILABLE
from suite.optim import OptimConfig, build_optimizer, finish_gradients
from suite.timing import Row, in_turns

CHANNELS, LAYERS, CYCLE, BATCH, STEPS = 64, 24, 8, 4, 4096
_PEAK = 1024  # size of the square matrices whose product is the peak
_ONE, _MANY = 16_000, 80_000  # samples a second: one stream on one thread; 64 streams on two cores


def measure(*, checkpoint: str | None, load: Callable[[str], Any], rounds: int) -> list[Row]:
    """All rows; they need no trained model."""
    rows = [training_step(rounds=rounds)]
    if AVAILABLE:
        rows += [one_stream(rounds=rounds), many_streams(rounds=rounds)]
    return rows


def _module() -> WaveformModule:
    assets = {"sample_rate": 8000, "classes": 256, "conditions": {}, "mel": None}
    torch.manual_seed(0)
    return WaveformModule(
        assets, channels=CHANNELS, num_layers=LAYERS, cycle=CYCLE, skip_channels=CHANNELS, optim=OptimConfig()
    )


def training_step(*, rounds: int) -> Row:
    """A whole step (forward, loss, backward, clipping, Adam): operations a second over those of a matrix product.

    Six operations a parameter and sample: a multiplication and an addition in each of three products. The embedding
    is looked up and not multiplied, so it is left out.
    """
    module = _module().train()
    optimizer, parameters = build_optimizer(module, module.optim), list(module.parameters())
    codes, lengths = torch.randint(256, (BATCH, STEPS + 1)), torch.full((BATCH,), STEPS)
    nothing = torch.zeros(BATCH, dtype=torch.long)
    batch = WaveBatch(codes, lengths, nothing, nothing.view(BATCH, 1)[:, :0], None, list(range(BATCH)), [""] * BATCH)

    def step() -> None:
        output = module.compute(batch)
        output.loss_sum.backward()
        finish_gradients(parameters, module.optim, scale=1.0 / output.weight, clip=1.0, by_value=False)
        optimizer.step()
        optimizer.zero_grad()

    left, right = torch.randn(_PEAK, _PEAK), torch.randn(_PEAK, _PEAK)
    weights = sum(parameter.numel() for parameter in parameters) - module.network.embedding.weight.numel()
    operations = 6.0 * weights * BATCH * STEPS
    products = max(1, round(operations / (2.0 * _PEAK**3)))

    def peak() -> None:
        for _ in range(products):
            torch.mm(left, right)

    times = in_turns({"ours": step, "reference": peak}, rounds=2 * rounds)
    ours, reference = statistics.median(times["ours"]), statistics.median(times["reference"])
    rate = (operations / ours) / (products * 2.0 * _PEAK**3 / reference)
    note = f"{BATCH * STEPS / ours:,.0f} samples/s, {operations / ours / 1e9:.0f} GFLOP/s"
    return Row("training step, share of the matrix peak", ours, reference, rate, ">= 0.7", rate >= 0.7, note)


def one_stream(*, rounds: int) -> Row:
    """The kernel with one stream against the torch engine with one, both on this thread."""
    network, size = _module().network, 4000
    draws = torch.rand(size, 1, dtype=torch.float64)
    few = torch.zeros(1, 0, dtype=torch.long)
    kernel, batched = KernelEngine(weights_of(network, few)), TorchEngine(weights_of(network, few))
    calls = {"ours": lambda: kernel.run(draws), "reference": lambda: batched.run(draws[: size // 10])}
    times = in_turns(calls, rounds=rounds)
    speed = size / statistics.median(times["ours"])
    slow = size / 10 / statistics.median(times["reference"])
    ours, reference = statistics.median(times["ours"]), 10 * statistics.median(times["reference"])
    note = f"{speed:,.0f} samples/s against {slow:,.0f}"
    bar = f">= {_ONE:,} samples/s"
    return Row("one stream, kernel over torch engine", ours, reference, speed / slow, bar, speed >= _ONE, note)


def many_streams(*, rounds: int, streams: int = 64, threads: int = 2) -> Row:
    """Streams of one command on two threads, as ``predict --threads 2`` shares them out, against one thread."""
    network, steps, before = _module().network, 1000, torch.get_num_threads()
    draws, conditions = torch.rand(steps, streams, dtype=torch.float64), torch.zeros(streams, 0, dtype=torch.long)
    engines = []
    for number in (threads, 1):
        torch.set_num_threads(number)  # an engine takes what there is when it is made
        engines.append(KernelEngine(weights_of(network, conditions)))
    torch.set_num_threads(before)
    several, single = engines
    calls = {"ours": lambda: several.run(draws), "reference": lambda: single.run(draws)}
    times = in_turns(calls, rounds=rounds)
    ours, reference = statistics.median(times["ours"]), statistics.median(times["reference"])
    speed, slow = streams * steps / ours, streams * steps / reference
    note = f"{speed:,.0f} samples/s against {slow:,.0f}"
    name = f"{streams} streams, {threads} threads over one"
    return Row(name, ours, reference, speed / slow, f">= {_MANY:,} samples/s", speed >= _MANY, note)
