"""Generation: logits of the full convolution at every step, the same samples from both engines, conditions, primes."""

import pytest
import torch
from torch import Tensor

from domains.audio import engines
from domains.audio.engines import TorchEngine, make_engine
from domains.audio.kernel_engine import KernelEngine, split_streams
from domains.audio.loops import FEW
from domains.audio.network import NetworkConfig, WaveNet
from domains.audio.weights import weights_of
from suite import kernels
from suite.errors import UsageError
from suite.kernels import AVAILABLE
from suite.mu_law import silence
from suite.tiles import LANES, WIDTHS

ENGINES = [TorchEngine, pytest.param(KernelEngine, marks=pytest.mark.skipif(not AVAILABLE, reason="numba missing"))]
STREAMS, STEPS, HOP = 3, 150, 4
COUNTS = [STREAMS, LANES + 1, WIDTHS[-1] + 3]  # one loop, a group with empty columns, groups


def network_of(*, conditions: bool = True, mel: bool = False, channels: int = 20) -> WaveNet:
    torch.manual_seed(1)
    config = NetworkConfig(channels, 9, 5, 12, 6, 8)
    network = WaveNet(256, conditions=[3, 5] if conditions else [], mel_bands=7 if mel else 0, hop=HOP, config=config)
    with torch.no_grad():  # logits of a trained network's size: draws that depend on them
        network.output.weight.mul_(8)
    return network.eval()


def inputs_of(network: WaveNet, *, mel: bool, streams: int = STREAMS) -> tuple[Tensor, Tensor | None, Tensor | None]:
    columns = len(network.conditions)
    conditions = torch.randint(3, (streams, columns))
    frames = torch.randn(streams, 7, STEPS // HOP + 1 + 4) if mel else None
    upsampled = network.upsample(frames, STEPS)
    return conditions, frames, None if upsampled is None else upsampled.transpose(0, 1).detach()


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("streams", COUNTS)
@pytest.mark.parametrize(("conditions", "mel"), [(False, False), (True, False), (False, True), (True, True)])
def test_logits_are_those_of_the_full_convolution(kind: type, streams: int, conditions: bool, mel: bool) -> None:
    network = network_of(conditions=conditions, mel=mel)
    values, frames, local = inputs_of(network, mel=mel, streams=streams)
    engine = kind(weights_of(network, values))
    draws, logits = torch.rand(STEPS, streams, dtype=torch.float64), torch.empty(STEPS, streams, 256)
    parts = []
    for part in (slice(0, 1), slice(1, 6), slice(6, 97), slice(97, STEPS)):  # it goes on where it was
        piece = None if local is None else local[part]
        parts.append(engine.run(draws[part], local=piece, logits=logits[part]))
    codes = torch.cat(parts)
    before = torch.cat([torch.full((1, streams), silence()), codes[:-1]]).t()
    with torch.no_grad():
        full = network(before, values, frames).transpose(0, 1)
    torch.testing.assert_close(logits, full, rtol=0, atol=1e-4)
    assert codes.unique().numel() > 20


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("streams", [STREAMS, LANES + 1])
def test_large_logits_are_as_exact_as_the_full_convolution(kind: type, streams: int) -> None:
    """Logits of some trained networks go below -100, where summing in a poor order costs more than 1e-4."""
    torch.manual_seed(2)
    network = WaveNet(256, conditions=[], mel_bands=0, hop=HOP, config=NetworkConfig(48, 24, 6, 64, 6, 8)).eval()
    with torch.no_grad():
        network.output.weight.mul_(150)
    values, codes = torch.zeros(streams, 0, dtype=torch.long), torch.randint(256, (STEPS, streams))
    logits = torch.empty(STEPS, streams, 256)
    kind(weights_of(network, values)).run(torch.zeros(STEPS, streams, dtype=torch.float64), forced=codes, logits=logits)
    before = torch.cat([torch.full((1, streams), silence()), codes[:-1]]).t()
    with torch.no_grad():
        full = network(before, values).transpose(0, 1)
        exact = network.double()(before, values).transpose(0, 1)
    assert exact.min() < -100
    errors = [(found - exact).pow(2).mean().sqrt().item() for found in (logits, full)]
    assert errors[0] < 1.25 * errors[1]


@pytest.mark.skipif(not AVAILABLE, reason="numba missing")
@pytest.mark.parametrize("mel", [False, True])
@pytest.mark.parametrize("streams", COUNTS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_both_engines_draw_the_same_samples(mel: bool, streams: int, temperature: float) -> None:
    network = network_of(mel=mel)
    values, _, local = inputs_of(network, mel=mel, streams=streams)
    torch.manual_seed(4)  # with another, a draw of some thousands may fall within rounding of the edge of a class
    draws = torch.rand(STEPS, streams, dtype=torch.float64)
    found = [
        kind(weights_of(network, values)).run(draws, temperature=temperature, local=local)
        for kind in (TorchEngine, KernelEngine)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("streams", COUNTS)
def test_a_stream_does_not_depend_on_its_neighbours(kind: type, streams: int) -> None:
    network = network_of()
    values, _, _ = inputs_of(network, mel=False, streams=streams)
    draws = torch.rand(STEPS, streams, dtype=torch.float64)
    together = kind(weights_of(network, values)).run(draws)
    for stream in (0, streams // 2, streams - 1):
        one = slice(stream, stream + 1)
        assert torch.equal(kind(weights_of(network, values[one])).run(draws[:, one]), together[:, one])


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("streams", COUNTS)
def test_forced_classes_are_heard(kind: type, streams: int) -> None:
    network = network_of(conditions=False)
    codes, values = torch.randint(256, (STEPS, streams)), torch.zeros(streams, 0, dtype=torch.long)
    engine, nothing = kind(weights_of(network, values)), torch.zeros(STEPS, streams, dtype=torch.float64)
    assert torch.equal(engine.run(nothing, forced=codes), codes)
    logits = torch.empty(1, streams, 256)
    engine.run(nothing[:1], logits=logits)
    with torch.no_grad():
        full = network(torch.cat([torch.full((1, streams), silence()), codes]).t(), values)[:, -1]
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


def test_which_engine_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engines._say_that_torch_stands_in.cache_clear()
    network = network_of(conditions=False)

    def taken(streams: int, kind: str = "auto") -> type:
        return type(make_engine(network, torch.zeros(streams, 0, dtype=torch.long), kind=kind))  # type: ignore[arg-type]

    if AVAILABLE:
        assert taken(1) is KernelEngine
        assert taken(100) is KernelEngine
        assert taken(100, "kernel") is KernelEngine
    assert taken(1, "torch") is TorchEngine
    monkeypatch.setattr(kernels, "AVAILABLE", False)
    assert taken(1) is taken(2) is TorchEngine
    assert capsys.readouterr().err.count("without numba") == 1
    with pytest.raises(UsageError, match=r"--engine kernel needs numba.*allowed here are auto and torch"):
        taken(1, "kernel")


def test_the_kernel_is_refused_where_there_is_no_cpu() -> None:
    with pytest.raises(UsageError, match=r"--engine kernel is for a CPU.* on meta; .*--trainer\.accelerator cpu|numba"):
        make_engine(network_of(), torch.zeros(1, 2, dtype=torch.long, device="meta"), kind="kernel")


@pytest.mark.skipif(not AVAILABLE, reason="numba missing")
@pytest.mark.parametrize("streams", COUNTS)
def test_odd_numbers_of_channels_work_in_the_kernel(streams: int) -> None:
    network = network_of(channels=13)
    values, _, _ = inputs_of(network, mel=False, streams=streams)
    draws = torch.rand(20, streams, dtype=torch.float64)
    found = [make_engine(network, values, kind=kind).run(draws) for kind in ("kernel", "torch")]
    assert torch.equal(*found)


@pytest.mark.skipif(not AVAILABLE, reason="numba missing")
def test_groups_share_out_threads_and_draw_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(mel=True)
    values, _, local = inputs_of(network, mel=True, streams=COUNTS[-1])
    assert local is not None
    draws, found = torch.rand(STEPS, COUNTS[-1], dtype=torch.float64), []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        engine = KernelEngine(weights_of(network, values))
        assert engine.threads == threads
        found.append(torch.cat([engine.run(draws[part], local=local[part]) for part in (slice(50), slice(50, STEPS))]))
    assert torch.equal(*found)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("streams", [1, FEW, FEW + 1, *WIDTHS, WIDTHS[-1] + 1, 64, 65, 1000])
def test_streams_are_split_into_groups_that_fit(streams: int, threads: int) -> None:
    parts = split_streams(streams, threads)
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(streams))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) <= WIDTHS[-1]
    assert max(sizes) - min(sizes) <= 1
    if streams >= threads * WIDTHS[-1]:
        assert len(parts) % threads == 0
