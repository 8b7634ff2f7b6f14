"""Blocks of steps as CUDA graphs: the same numbers as steps one by one, for any length, rows and precision."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from suite.recurrent import RecurrentEncoder, RecurrentOptions, cells, minimal
from suite.recurrent.gpu import graphs
from suite.recurrent.gpu import unroll as gpu_unroll

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CELLS = ("rnn", "peephole_lstm", "layernorm_lstm", "layernorm_gru")


@pytest.fixture(autouse=True)
def _without_graphs() -> Iterator[None]:
    graphs.clear_graphs()
    yield
    graphs.clear_graphs()


def make(cell: str, **options: Any) -> RecurrentEncoder:
    torch.manual_seed(2)
    encoder = RecurrentEncoder(12, 24, cell=cell, options=RecurrentOptions(**options))  # type: ignore[arg-type]
    return encoder.cuda()


def run(encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
    torch.manual_seed(7)
    inputs = inputs.clone().requires_grad_()
    encoded = encoder(inputs, lengths)
    loss = encoded.outputs.float().pow(2).sum() + torch.stack([part.float().sum() for part in encoded.state]).sum()
    gradients = torch.autograd.grad(loss, [inputs, *encoder.parameters()])
    return [part.detach().clone() for part in (encoded.outputs, *encoded.state, *gradients)]


def run_without(monkeypatch: pytest.MonkeyPatch, *args: Any) -> list[Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(gpu_unroll, "find_block", lambda *_, **__: None)
        return run(*args)


@pytest.mark.parametrize("zoneout", [0.0, 0.2])
@pytest.mark.parametrize("steps", [12, 32, 33, 70])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_steps_one_by_one(cell: str, steps: int, zoneout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make(cell, zoneout=zoneout)
    for rows in (5, 8, 9):  # the first two share a graph
        inputs = torch.randn(rows, steps, 12, device="cuda")
        lengths = torch.randint(0, steps + 1, (rows,), device="cuda")
        expected = run_without(monkeypatch, encoder, inputs, lengths)
        # Of another height the product may add in another order.
        torch.testing.assert_close(run(encoder, inputs, lengths), expected, rtol=1e-4, atol=1e-4)
    assert len(graphs._blocks) == 4


@pytest.mark.parametrize("cell", CELLS)
def test_a_graph_sees_new_weights(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, inputs = make(cell), torch.randn(8, 40, 12, device="cuda")
    before = run(encoder, inputs)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = run(encoder, inputs)
    assert not torch.allclose(before[0], after[0], atol=1e-2)
    torch.testing.assert_close(after, run_without(monkeypatch, encoder, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_same_call_same_bits(cell: str) -> None:
    encoder, inputs = make(cell), torch.randn(8, 70, 12, device="cuda")
    for first, second in zip(run(encoder, inputs), run(encoder, inputs), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("cell", [*CELLS, "indrnn", "mingru", "minlstm"])
def test_autocast(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 as near to float32 as the loop in torch is."""
    encoder, inputs = make(cell), torch.randn(8, 40, 12, device="cuda")
    expected = run(encoder, inputs)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = run(encoder, inputs)
        for module in (cells, minimal):
            monkeypatch.setattr(module, "runs_on_gpu", lambda values, *, size: False)
        looped = run(encoder, inputs)
    for low, loop, full in zip(found, looped, expected, strict=True):
        assert (low.float() - full).norm() < 1.5 * (loop.float() - full).norm() + 0.01 * full.norm() + 1e-3


def test_checkpointing_and_dropped_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(8, 70, 12, device="cuda")
    for options in ({"checkpoint_steps": 20}, {"weight_dropout": 0.3}):
        encoder = make("peephole_lstm", **options)
        expected = run_without(monkeypatch, encoder, inputs)
        torch.testing.assert_close(run(encoder, inputs), expected, rtol=1e-4, atol=1e-4)


def test_inside_a_recording_of_the_user() -> None:
    """Who records a model of his own gets its steps one by one in his graph."""
    encoder, inputs = make("peephole_lstm").eval(), torch.randn(8, 20, 12, device="cuda")
    with torch.no_grad():
        expected = encoder(inputs, torch.full((8,), 20, device="cuda")).outputs
        lengths, graph = torch.full((8,), 20, device="cuda"), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = encoder(inputs, lengths).outputs
        graph.replay()
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_says_where_nothing_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, inputs = make("layernorm_gru"), torch.randn(8, 40, 12, device="cuda")
    expected = run(encoder, inputs)
    graphs.clear_graphs()

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no recording here")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", refuse)
    with pytest.warns(UserWarning, match="gru run without CUDA graphs.*no recording here"):
        found = run(encoder, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(encoder, inputs)  # said once


def test_buffers_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, inputs = make("peephole_lstm"), torch.randn(8, 40, 12, device="cuda")
    run(encoder, inputs)
    held = sum(block.bytes for block in graphs._blocks.values())
    monkeypatch.setattr(graphs, "BUDGET", held)
    run(encoder, torch.randn(40, 40, 12, device="cuda"))
    assert 1 <= len(graphs._blocks) <= 2
    assert all(key[1] == 40 for key in graphs._blocks)
