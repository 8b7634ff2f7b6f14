"""Generation: logits of the full convolution at every step, the same samples from both engines, conditions, primes."""

import pytest
import torch
from torch import Tensor

from domains.audio import engines
from domains.audio.engines import KernelEngine, TorchEngine, make_engine, weights_of
from domains.audio.network import NetworkConfig, WaveNet
from suite.kernels import AVAILABLE
from suite.mu_law import silence

ENGINES = [TorchEngine, pytest.param(KernelEngine, marks=pytest.mark.skipif(not AVAILABLE, reason="numba missing"))]
STREAMS, STEPS, HOP = 3, 150, 4


def network_of(*, conditions: bool = True, mel: bool = False, channels: int = 20) -> WaveNet:
    torch.manual_seed(1)
    config = NetworkConfig(channels, 9, 5, 12, 6, 8)
    network = WaveNet(256, conditions=[3, 5] if conditions else [], mel_bands=7 if mel else 0, hop=HOP, config=config)
    with torch.no_grad():  # logits of a trained network's size: draws that depend on them
        network.output.weight.mul_(8)
    return network.eval()


def inputs_of(network: WaveNet, *, mel: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    columns = len(network.conditions)
    conditions = torch.randint(3, (STREAMS, columns))
    frames = torch.randn(STREAMS, 7, STEPS // HOP + 1 + 4) if mel else None
    upsampled = network.upsample(frames, STEPS)
    return conditions, frames, None if upsampled is None else upsampled.transpose(0, 1).detach()


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(("conditions", "mel"), [(False, False), (True, False), (False, True), (True, True)])
def test_logits_are_those_of_the_full_convolution(kind: type, conditions: bool, mel: bool) -> None:
    network = network_of(conditions=conditions, mel=mel)
    values, frames, local = inputs_of(network, mel=mel)
    engine = kind(weights_of(network, values))
    draws, logits = torch.rand(STEPS, STREAMS, dtype=torch.float64), torch.empty(STEPS, STREAMS, 256)
    parts = []
    for part in (slice(0, 1), slice(1, 6), slice(6, 97), slice(97, STEPS)):  # it goes on where it was
        piece = None if local is None else local[part]
        parts.append(engine.run(draws[part], local=piece, logits=logits[part]))
    codes = torch.cat(parts)
    before = torch.cat([torch.full((1, STREAMS), silence()), codes[:-1]]).t()
    with torch.no_grad():
        full = network(before, values, frames).transpose(0, 1)
    torch.testing.assert_close(logits, full, rtol=0, atol=1e-4)
    assert codes.unique().numel() > 20


@pytest.mark.skipif(not AVAILABLE, reason="numba missing")
@pytest.mark.parametrize("mel", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_both_engines_draw_the_same_samples(mel: bool, temperature: float) -> None:
    network = network_of(mel=mel)
    values, _, local = inputs_of(network, mel=mel)
    draws = torch.rand(STEPS, STREAMS, dtype=torch.float64)
    found = [
        kind(weights_of(network, values)).run(draws, temperature=temperature, local=local)
        for kind in (TorchEngine, KernelEngine)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_stream_does_not_depend_on_its_neighbours(kind: type) -> None:
    network = network_of()
    values, _, _ = inputs_of(network, mel=False)
    draws = torch.rand(STEPS, STREAMS, dtype=torch.float64)
    together = kind(weights_of(network, values)).run(draws)
    for stream in range(STREAMS):
        one = slice(stream, stream + 1)
        assert torch.equal(kind(weights_of(network, values[one])).run(draws[:, one]), together[:, one])


@pytest.mark.parametrize("kind", ENGINES)
def test_forced_classes_are_heard(kind: type) -> None:
    network = network_of(conditions=False)
    codes, values = torch.randint(256, (STEPS, 2)), torch.zeros(2, 0, dtype=torch.long)
    engine, nothing = kind(weights_of(network, values)), torch.zeros(STEPS, 2, dtype=torch.float64)
    assert torch.equal(engine.run(nothing, forced=codes), codes)
    logits = torch.empty(1, 2, 256)
    engine.run(nothing[:1], logits=logits)
    with torch.no_grad():
        full = network(torch.cat([torch.full((1, 2), silence()), codes]).t(), values)[:, -1]
    torch.testing.assert_close(logits[0], full, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ENGINES)
def test_draws_follow_the_distribution(kind: type) -> None:
    network = network_of(conditions=False)
    values = torch.zeros(2000, 0, dtype=torch.long)
    engine, logits = kind(weights_of(network, values)), torch.empty(1, 2000, 256)
    codes = engine.run(torch.rand(1, 2000, dtype=torch.float64), logits=logits)[0]
    expected = torch.softmax(logits[0, 0].double(), dim=0)
    counts = torch.bincount(codes, minlength=256).double() / 2000
    assert float((counts - expected).abs().sum()) < 0.35  # of 2; another class order would give more than 1
    edges = engine.run(torch.tensor([[0.0, 1.0 - 1e-16]] * 1, dtype=torch.float64).repeat(1, 1000))
    assert int(edges.min()) >= 0
    assert int(edges.max()) < 256


def test_which_engine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(conditions=False)

    def taken(streams: int, kind: str = "auto") -> type:
        return type(make_engine(network, torch.zeros(streams, 0, dtype=torch.long), kind=kind))  # type: ignore[arg-type]

    if AVAILABLE:
        assert taken(1) is KernelEngine
        assert taken(engines.KERNEL_STREAMS + 1, "kernel") is KernelEngine
    assert taken(engines.KERNEL_STREAMS + 1) is TorchEngine
    assert taken(1, "torch") is TorchEngine
    monkeypatch.setattr(engines, "AVAILABLE", False)
    assert taken(1) is TorchEngine
    assert taken(1, "kernel") is TorchEngine


def test_odd_numbers_of_channels_work_in_the_kernel() -> None:
    network = network_of(channels=13)
    values, _, _ = inputs_of(network, mel=False)
    draws = torch.rand(20, STREAMS, dtype=torch.float64)
    found = [make_engine(network, values, kind=kind).run(draws) for kind in ("kernel", "torch")]
    assert torch.equal(*found)
