"""The chunked cross entropy equals ``torch.nn.functional.cross_entropy`` in value and gradient."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from suite import losses
from suite.losses import CrossEntropy, linear_cross_entropy

M, D, V = 13, 5, 11
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def sample(dtype: torch.dtype = torch.float64, rows: int = M) -> tuple[list[Tensor], Tensor]:
    """Hidden, weight and bias (leaves), and targets."""
    leaves = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((rows, D), (V, D), (V,))]
    return leaves, torch.randint(V, (rows,))


def own(leaves: Sequence[Tensor], targets: Tensor, smoothing: float = 0.0) -> CrossEntropy:
    hidden, weight, bias = leaves
    return linear_cross_entropy(hidden, weight, bias, targets, label_smoothing=smoothing)


def usual(leaves: list[Tensor], targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Smoothed loss and plain nll with all logits at once."""
    hidden, weight, bias = leaves
    logits = functional.linear(hidden, weight, bias)
    loss = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    return loss, functional.cross_entropy(logits, targets, reduction="sum")


@pytest.fixture(params=[1, 4 * V, 2**21], ids=["row-chunks", "4-row-chunks", "one-chunk"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", request.param)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_equals_torch(smoothing: float, dtype: torch.dtype) -> None:
    leaves, targets = sample(dtype)
    given = own(leaves, targets, smoothing)
    loss, nll = usual(leaves, targets, smoothing)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(given.loss, loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(given.nll, nll, rtol=tolerance, atol=tolerance)
    assert not given.nll.requires_grad
    slopes = torch.autograd.grad(given.loss * 0.37, leaves)  # a factor, as dividing by the tokens gives
    torch.testing.assert_close(slopes, torch.autograd.grad(loss * 0.37, leaves), rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradcheck(smoothing: float) -> None:
    leaves, targets = sample(rows=5)
    assert torch.autograd.gradcheck(lambda *parts: own(parts, targets, smoothing).loss, leaves)


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_any_part_may_be_frozen(frozen: tuple[int, ...]) -> None:
    leaves, targets = sample()
    for index in frozen:
        leaves[index].requires_grad_(False)
    free = [leaf for leaf in leaves if leaf.requires_grad]
    given = torch.autograd.grad(own(leaves, targets, 0.1).loss, free)
    expected = torch.autograd.grad(usual(leaves, targets, 0.1)[0], free)
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-10)


def test_tied_weight_gradients_add_up() -> None:
    """The output layer is the embedding too: its gradient is the sum of both uses."""
    embedding = nn.Embedding(V, D).double()
    bias = torch.randn(V, dtype=torch.float64)
    tokens, targets = torch.randint(V, (M,)), torch.randint(V, (M,))
    hidden = embedding(tokens)
    loss = linear_cross_entropy(hidden, embedding.weight, bias, targets, label_smoothing=0.1).loss
    (given,) = torch.autograd.grad(loss, embedding.weight)
    hidden = embedding(tokens)
    (both,) = torch.autograd.grad(usual([hidden, embedding.weight, bias], targets, 0.1)[0], embedding.weight)
    hidden = embedding(tokens).detach()
    (output,) = torch.autograd.grad(usual([hidden, embedding.weight, bias], targets, 0.1)[0], embedding.weight)
    torch.testing.assert_close(given, both, rtol=1e-10, atol=1e-10)
    assert (given - output).abs().max() > 1e-3


def test_backward_twice_adds_up_and_leaves_the_saved_alone() -> None:
    leaves, targets = sample()
    loss = own(leaves, targets).loss
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    first = tuple(part.clone() for part in first)
    torch.testing.assert_close(torch.autograd.grad(loss * 2, leaves), tuple(2 * part for part in first))


def test_second_derivative_is_refused_not_wrong() -> None:
    leaves, targets = sample()
    with pytest.raises(AssertionError, match="has no second derivative"):
        torch.autograd.grad(own(leaves, targets).loss, leaves[:1], create_graph=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16_autocast_stays_close(smoothing: float) -> None:
    """Logits of two or three digits: the loss within a hundredth, gradients (at most 1) within three hundredths."""
    leaves, targets = sample(torch.float32)
    exact, nll = usual(leaves, targets, smoothing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = own(leaves, targets, smoothing)
    assert rough.loss.dtype == rough.nll.dtype == torch.float32
    torch.testing.assert_close(rough.loss, exact, rtol=0.01, atol=0)
    torch.testing.assert_close(rough.nll, nll, rtol=0.01, atol=0)
    given, expected = torch.autograd.grad(rough.loss, leaves), torch.autograd.grad(exact, leaves)
    assert [part.dtype for part in given] == [torch.float32] * 3
    torch.testing.assert_close(given, expected, rtol=0.03, atol=0.03)


def test_no_grad_gives_the_same_numbers() -> None:
    leaves, targets = sample()
    with torch.no_grad():
        plain = own(leaves, targets, 0.1)
    assert not plain.loss.requires_grad
    assert plain.loss == own(leaves, targets, 0.1).loss
    detached = own([leaf.detach() for leaf in leaves], targets, 0.1)
    assert not detached.loss.requires_grad
    assert detached.loss == plain.loss


def test_zero_rows_give_zero_and_zero_gradients() -> None:
    leaves, targets = sample(rows=0)
    given = own(leaves, targets, 0.1)
    assert (given.loss.item(), given.nll.item()) == (0.0, 0.0)
    slopes = torch.autograd.grad(given.loss, leaves)
    assert [tuple(slope.shape) for slope in slopes] == [(0, D), (V, D), (V,)]
    assert all(slope.eq(0).all() for slope in slopes)


def test_huge_logits_stay_finite() -> None:
    leaves, targets = sample(torch.float32)
    with torch.no_grad():
        leaves[1].mul_(1e4)
    given = own(leaves, targets, 0.1)
    loss, _ = usual(leaves, targets, 0.1)
    torch.testing.assert_close(given.loss, loss, rtol=1e-5, atol=0)
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(given.loss, leaves))


@pytest.fixture
def _compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pass for AVX2 and one thread, on this machine and with few classes, if Numba is there."""
    pytest.importorskip("numba")
    monkeypatch.setattr(losses, "COMPILED_CLASSES", 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert losses._runs_compiled(torch.zeros(1), 1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_chunks", "_compiled")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_compiled_pass_equals_torch(smoothing: float) -> None:
    test_equals_torch(smoothing, torch.float32)
    test_zero_rows_give_zero_and_zero_gradients()
    test_huge_logits_stay_finite()


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", range(V))
def test_compiled_pass_shows_what_is_not_finite(value: float, place: int) -> None:
    """The step that follows is then skipped: see ``FiniteGuard``."""
    leaves, targets = sample(torch.float32)
    with torch.no_grad():
        leaves[2][place] = value
    loss = own(leaves, targets, 0.1).loss
    assert not loss.isfinite()
    assert all(slope.isnan().any() for slope in torch.autograd.grad(loss, leaves))


def test_shares_too_small_for_their_logarithm_are_made_up_for() -> None:
    """Logits 200 apart: half of the targets have no share in float32 that says how far they are below the others."""
    leaves, targets = sample(torch.float32)
    with torch.no_grad():
        leaves[2].copy_(torch.arange(V).remainder(2) * 200.0)
    given, (loss, nll) = own(leaves, targets, 0.1), usual(leaves, targets, 0.1)
    assert nll > 100
    torch.testing.assert_close(given.loss, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(given.nll, nll, rtol=1e-5, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(own(leaves, targets, 0.1).nll, nll, rtol=0.01, atol=0)


def test_where_torch_is_as_fast_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.zeros(1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not losses._runs_compiled(rows, 8000)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not losses._runs_compiled(rows.bfloat16(), 8000)
    assert not losses._runs_compiled(rows, losses.COMPILED_CLASSES - 1)
