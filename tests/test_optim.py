"""Optimisers step as torch's own, schedules follow their formulas, and what would be ignored is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.optim import OptimConfig, add_penalties, build_optimizer, schedule_factor

TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
OPTIMIZERS: list[tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = [
    ({"name": "sgd", "lr": 0.1}, torch.optim.SGD, {"lr": 0.1}),
    (
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    ({"name": "adagrad", "lr": 0.1, "eps": 1e-3}, torch.optim.Adagrad, {"lr": 0.1, "eps": 1e-3}),
    (
        {"name": "rmsprop", "lr": 0.01, "momentum": 0.5, "eps": 1e-3},
        torch.optim.RMSprop,
        {"lr": 0.01, "momentum": 0.5, "eps": 1e-3},
    ),
    (
        {"name": "adam", "lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3},
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3},
    ),
    (
        {"name": "adamw", "lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3},
        torch.optim.AdamW,
        {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3},
    ),
]
NAMES = [f"{settings['name']}{'-nesterov' if 'nesterov' in settings else ''}" for settings, _, _ in OPTIMIZERS]


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        module(inputs).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in module.parameters()]


@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize(("settings", "kind", "options"), OPTIMIZERS, ids=NAMES)
def test_steps_equal_torch(settings: dict, kind: Any, options: dict, decay: float) -> None:
    """Four float64 steps against torch's plain loop; decay is on matrices, biases have none."""
    own, other = model(), model()
    given = steps(own, build_optimizer(own, OptimConfig(**settings, weight_decay=decay)))
    groups = [
        {"params": [parameter], "weight_decay": decay * (not name.endswith("bias"))}
        for name, parameter in other.named_parameters()
    ]
    loop = {"foreach": False} if kind is not torch.optim.Adagrad else {"foreach": False, "fused": False}
    torch.testing.assert_close(given, steps(other, kind(groups, **options, **loop)), **TIGHT)
    assert not torch.allclose(given[0], next(model().parameters()), atol=1e-4)


@pytest.mark.parametrize(("settings", "kind", "options"), OPTIMIZERS, ids=NAMES)
def test_weight_decay_shrinks_matrices_and_never_biases(settings: dict, kind: Any, options: dict) -> None:
    module = model()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = build_optimizer(module, OptimConfig(**settings, weight_decay=0.1))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, start in zip(module.parameters(), before, strict=True):
        if parameter.dim() == 1:
            assert torch.equal(parameter, start)
        else:
            assert parameter.norm() < start.norm()


def test_frozen_parameters_are_left_out_and_tied_ones_are_there_once() -> None:
    module = model()
    module[0].weight.requires_grad_(False)  # type: ignore[index]
    module.tied = module[2].weight  # type: ignore[index]
    groups = build_optimizer(module, OptimConfig()).param_groups
    assert [[tuple(parameter.shape) for parameter in group["params"]] for group in groups] == [[(2, 5)], [(5,), (2,)]]
    assert [group["weight_decay"] for group in groups] == [0.0, 0.0]


def factors(total: int, **settings: Any) -> list[float]:
    config = OptimConfig(**settings)
    config.check()
    return [schedule_factor(config, step, total) for step in range(total)]


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_constant_and_plateau_stay_after_warmup(schedule: Any) -> None:
    assert factors(4, schedule=schedule) == [1.0] * 4
    assert factors(6, schedule=schedule, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert schedule_factor(OptimConfig(schedule=schedule, warmup_steps=4), 10**9, math.inf) == 1.0


@pytest.mark.parametrize("floor", [0.0, 0.2])
@pytest.mark.parametrize(("schedule", "shape"), [("linear", 0), ("cosine", 1)])
def test_linear_and_cosine_closed_forms(schedule: Any, shape: int, floor: float) -> None:
    """Against torch's own schedulers, which start at one and reach the floor one step after the last."""
    total, warmup = 20, 5
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    left = total - warmup
    scheduler: Any
    if shape:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, left, eta_min=floor)
    else:
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, floor, left)
    expected = [(step + 1) / warmup for step in range(warmup)]
    for _ in range(left):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    given = factors(total, schedule=schedule, warmup_steps=warmup, floor=floor)
    assert given == pytest.approx(expected, abs=1e-12)
    assert given[4] == given[5] == max(given) == 1.0
    config = OptimConfig(schedule=schedule, warmup_steps=warmup, floor=floor)
    assert [schedule_factor(config, step, total) for step in (20, 99)] == pytest.approx([floor] * 2, abs=1e-12)


def test_golden_values_of_linear_and_cosine() -> None:
    assert factors(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    assert factors(4, schedule="linear", floor=0.5) == [1.0, 0.875, 0.75, 0.625]
    root = math.sqrt(0.5)
    assert factors(4, schedule="cosine") == pytest.approx([1.0, (1 + root) / 2, 0.5, (1 - root) / 2], abs=1e-15)
    assert factors(3, schedule="cosine", warmup_steps=5) == pytest.approx([0.2, 0.4, 0.6], abs=1e-15)


def howard_ruder(step: int, total: int) -> float:
    """Howard and Ruder 2018, equation 3, with the paper's cut_frac 0.1 and ratio 32."""
    cut_frac, ratio = 0.1, 32
    cut = math.floor(total * cut_frac)
    share = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / cut_frac - 1))
    return (1 + share * (ratio - 1)) / ratio


@pytest.mark.parametrize("total", [10, 50, 1000])
def test_slanted_triangular_equals_the_paper(total: int) -> None:
    given = factors(total, schedule="slanted_triangular")
    assert given == pytest.approx([howard_ruder(step, total) for step in range(total)], abs=1e-12)
    assert given[0] == 1 / 32
    assert given[total // 10] == max(given) == 1.0
    assert schedule_factor(OptimConfig(schedule="slanted_triangular"), total, total) == pytest.approx(1 / 32)


def test_slanted_triangular_stays_in_range_where_the_paper_does_not() -> None:
    """The paper's rounding of cut goes below zero at 25 steps, and divides by zero below 10: ours does not round."""
    assert howard_ruder(24, 25) < 0
    for total in (1, 2, 9, 25, 99):
        given = factors(total, schedule="slanted_triangular")
        assert min(given) >= 1 / 32
        assert max(given) <= 1.0
        assert len(given) < 10 or max(given) > 0.95


@pytest.mark.parametrize("total", [2, 7, 10, 25, 100])
def test_one_cycle_equals_torch(total: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total, cycle_momentum=False)
    expected = [scheduler.get_last_lr()[0]]
    for _ in range(total - 1):
        optimizer.step()
        scheduler.step()
        expected.append(scheduler.get_last_lr()[0])
    given = factors(total, schedule="one_cycle")
    assert given == pytest.approx(expected, abs=1e-12)
    assert given[-1] == pytest.approx(1 / 25e4, abs=1e-12)
    assert total < 10 or given[0] == pytest.approx(1 / 25, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "slanted_triangular", "one_cycle"])
def test_schedules_that_end_need_an_end_and_stay_positive(schedule: Any) -> None:
    config = OptimConfig(schedule=schedule)
    with pytest.raises(UsageError, match=rf"{schedule} needs trainer.max_epochs or trainer.max_steps"):
        schedule_factor(config, 0, math.inf)
    for total in (1, 2, 3, 11):
        assert all(0 < factor <= 1 for factor in factors(total, schedule=schedule))
        assert 0 <= schedule_factor(config, total + 5, total) <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, r"optim\.lr is 0\.0, allowed is more than 0"),
        ({"eps": -1e-8}, r"optim\.eps is -1e-08"),
        ({"weight_decay": -0.1}, r"optim\.weight_decay is -0\.1, allowed is 0 or more"),
        ({"l1": -1.0}, r"optim\.l1 is -1\.0"),
        ({"l2": -1.0}, r"optim\.l2 is -1\.0"),
        ({"recurrent_l1": -1.0}, r"optim\.recurrent_l1 is -1\.0"),
        ({"recurrent_l2": -1.0}, r"optim\.recurrent_l2 is -1\.0"),
        ({"warmup_steps": -1}, r"optim\.warmup_steps is -1"),
        ({"plateau_patience": -1}, r"optim\.plateau_patience is -1"),
        ({"plateau_factor": 1.0}, r"optim\.plateau_factor is 1\.0, allowed is more than 0 and less than 1"),
        ({"plateau_factor": 0.0}, r"optim\.plateau_factor is 0\.0"),
        ({"beta1": 1.0}, r"optim\.beta1 is 1\.0"),
        ({"beta2": -0.1}, r"optim\.beta2 is -0\.1"),
        ({"name": "rmsprop", "momentum": 0.9, "nesterov": True}, r"optim\.nesterov needs optim\.name sgd"),
        ({"name": "sgd", "nesterov": True}, r"optim\.nesterov needs .* optim\.momentum above 0"),
        ({"schedule": "cosine", "floor": 1.5}, r"optim\.floor is 1\.5, allowed is 0 to 1"),
    ],
)
def test_refuses_values_that_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_optimizer(model(), OptimConfig(**settings))


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2), (0.0, 0.0)])
def test_penalties_equal_autograd(l1: float, l2: float) -> None:
    """The gradient of the loss plus the written-out penalty over matrices; zeros and missing gradients included."""
    module, inputs = model(), torch.randn(8, 4, dtype=torch.float64)
    with torch.no_grad():
        module[0].weight[0] = 0.0  # type: ignore[index]
    module.register_parameter("idle", nn.Parameter(torch.ones(3, 3, dtype=torch.float64)))
    matrices = [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]
    penalty = torch.stack([l1 * matrix.abs().sum() + l2 * matrix.square().sum() for matrix in matrices]).sum()
    loss = module(inputs).square().mean()
    used = [parameter for name, parameter in module.named_parameters() if name != "idle"]
    expected = torch.autograd.grad(loss + penalty, used)
    module(inputs).square().mean().backward()
    add_penalties(module.parameters(), l1=l1, l2=l2)
    given = [parameter.grad for parameter in used]
    torch.testing.assert_close(given, list(expected), **TIGHT)
    assert module.get_parameter("idle").grad is None
