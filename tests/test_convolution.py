"""The causal stack against the paper's equations step by step, its gradients, causality and receptive field."""

import multiprocessing

import pytest
import torch
from torch import Tensor

from suite import causal
from suite.convolution import GatedResidualStack, dilation_cycle, receptive_field
from suite.errors import UsageError


def stack_of(*, condition_size: int = 0, local_size: int = 0, layers: int = 6, cycle: int = 3) -> GatedResidualStack:
    return GatedResidualStack(
        5,
        dilations=dilation_cycle(layers, cycle),
        skip_channels=4,
        condition_size=condition_size,
        local_size=local_size,
    )


def plain_loop(
    stack: GatedResidualStack, inputs: Tensor, condition: Tensor | None = None, local: Tensor | None = None
) -> Tensor:
    """Step by step and layer by layer, as in section 2.3 of the paper."""
    batch, steps, _ = inputs.shape
    outputs = []
    history: list[list[Tensor]] = [[] for _ in stack.layers]
    for step in range(steps):
        stream, skips = inputs[:, step], inputs.new_zeros(batch, stack.skip_channels)
        for number, layer in enumerate(stack.gated_layers()):
            seen = history[number]
            past = seen[step - layer.dilation] if step >= layer.dilation else torch.zeros_like(stream)
            seen.append(stream)
            gates = past @ layer.past + stream @ layer.current + layer.bias
            if condition is not None and layer.condition is not None:
                gates = gates + condition @ layer.condition
            if local is not None and layer.local is not None:
                gates = gates + local[:, step] @ layer.local
            first, second = gates.chunk(2, dim=1)
            passed = first.tanh() * second.sigmoid()
            skips = skips + passed @ layer.skip
            if layer.residual is not None:
                stream = stream + passed @ layer.residual
        outputs.append(skips)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("condition_size", [0, 3])
@pytest.mark.parametrize("local_size", [0, 2])
@pytest.mark.parametrize(("batch", "steps", "rows"), [(1, 1, 8), (3, 2, 8), (3, 29, 8), (2, 40, 1024)])
def test_values_and_gradients_are_those_of_the_plain_loop(
    condition_size: int, local_size: int, batch: int, steps: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "BLOCK_ELEMENTS", 5 * rows)  # blocks shorter and longer than dilations and sequences
    stack = stack_of(condition_size=condition_size, local_size=local_size).double()
    inputs = torch.randn(batch, steps, 5, dtype=torch.float64, requires_grad=True)
    condition = torch.randn(batch, 3, dtype=torch.float64, requires_grad=True) if condition_size else None
    local = torch.randn(batch, steps, 2, dtype=torch.float64, requires_grad=True) if local_size else None
    expected = plain_loop(stack, inputs, condition, local)
    found = stack(inputs, condition=condition, local=local)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(stack(inputs, condition=condition, local=local), expected, rtol=1e-12, atol=1e-12)
    wanted = [part for part in (inputs, condition, local, *stack.parameters()) if part is not None]
    slopes = torch.randn_like(expected)
    ours = torch.autograd.grad(found, wanted, slopes)
    theirs = torch.autograd.grad(expected, wanted, slopes, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, rtol=1e-10, atol=1e-12)


def test_no_output_depends_on_a_later_input() -> None:
    stack, steps = stack_of().double(), 30
    inputs = torch.randn(1, steps, 5, dtype=torch.float64, requires_grad=True)
    for step in range(steps):
        (slopes,) = torch.autograd.grad(stack(inputs)[0, step].sum(), inputs)
        assert (slopes[0, step + 1 :] == 0).all()
        assert slopes[0, step].any()


@pytest.mark.parametrize(("layers", "cycle"), [(1, 1), (4, 4), (6, 3), (7, 3)])
def test_the_receptive_field_measured_is_the_one_computed(layers: int, cycle: int) -> None:
    stack = stack_of(layers=layers, cycle=cycle).double()
    field = receptive_field(dilation_cycle(layers, cycle))
    assert stack.receptive_field == field
    inputs = torch.randn(1, field + 9, 5, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(stack(inputs)[0, -1].sum(), inputs)
    reached = slopes[0].abs().sum(dim=1).nonzero().flatten()
    assert inputs.size(1) - int(reached.min()) == field


def test_float32_with_kernels_is_near_float64() -> None:
    stack = GatedResidualStack(64, dilations=dilation_cycle(24, 8), skip_channels=64, condition_size=8)
    inputs, condition = torch.randn(2, 600, 64), torch.randn(2, 8)
    found = stack(inputs, condition=condition)
    exact = stack.double()(inputs.double(), condition=condition.double())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_a_second_backward_pass_is_refused() -> None:
    stack = stack_of()
    found = stack(torch.randn(1, 4, 5)).sum()
    found.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="one backward pass"):
        found.backward()


def test_two_graphs_at_a_time_do_not_disturb_each_other() -> None:
    stack = stack_of().double()
    inputs = [torch.randn(2, 9, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    alone = [torch.autograd.grad(stack(each).square().sum(), each)[0] for each in inputs]
    outputs = [stack(each).square().sum() for each in inputs]
    for each, output, expected in zip(inputs, outputs, alone, strict=True):
        assert torch.equal(torch.autograd.grad(output, each)[0], expected)


def test_autocast_is_near() -> None:
    stack = GatedResidualStack(16, dilations=dilation_cycle(6, 3), skip_channels=16)
    inputs = torch.randn(2, 50, 16, requires_grad=True)
    expected = stack(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = stack(inputs)
    found.float().sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)


def test_no_layers_and_no_dilation_are_refused() -> None:
    for dilations in ([], [1, 0]):
        with pytest.raises(UsageError, match="dilations"):
            GatedResidualStack(4, dilations=dilations, skip_channels=4)


def test_a_forked_process_computes_in_memory_of_its_own() -> None:
    """Memory kept from step to step was once shared with processes forked later, which wrote over each other."""
    work = causal._take(torch.empty(0), 100, 4, 2)
    work.buffer.fill_(1.0)
    causal._give(work)
    child = multiprocessing.get_context("fork").Process(target=_overwrite)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    again = causal._take(torch.empty(0), 100, 4, 2)
    causal._give(again)
    assert again.buffer is work.buffer
    assert bool((again.buffer == 1.0).all())


def _overwrite() -> None:
    causal._take(torch.empty(0), 100, 4, 2).buffer.fill_(2.0)


def test_offsets_in_bfloat16_are_added_in_float32() -> None:
    """So autocast hands over those of a condition: their gradient is a sum over all steps."""
    stack = GatedResidualStack(8, dilations=[1, 2], skip_channels=8, condition_size=3)
    inputs, condition = torch.randn(2, 300, 8), torch.randn(2, 3)
    gradients = []
    for enabled in (False, True):
        stack.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = stack(inputs, condition=condition)
        found.float().square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in stack.parameters() if parameter.grad is not None])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
