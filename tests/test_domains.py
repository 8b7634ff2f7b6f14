"""The battery, on every domain that there is and on the toy one; and models with a fault, which it must find."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data._utils.pin_memory import pin_memory

import domains
from suite.domain import Domain, Task
from suite.module import StepOutput, SuiteModule
from suite.optim import OptimConfig
from suite.recurrent import CELLS, RecurrentEncoder
from tests import battery, cases, toy
from tests.battery import CHECKS
from tests.cases import Case
from tests.toy.data import SineBatch, SineData
from tests.toy.model import SineModule

CASES, TASKS = cases.cases(), cases.tasks()
# Gradients and what can be learnt are asked for without what drops or smooths at random.
WITHOUT_DROPOUT = (battery.check_overfits_one_batch, battery.check_every_parameter_gets_gradient)
Check = Callable[[Case, SuiteModule], None]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


def run_check(check: Check, case: Case) -> None:
    check(case, cases.module_of(case, dropout=check not in WITHOUT_DROPOUT))


def name_of(check: Check) -> str:
    return check.__name__.removeprefix("check_")


def test_every_domain_is_here() -> None:
    names = {case.domain.name for case in CASES}
    assert names == {*domains.available(), "toy"}
    assert {case.cell for case in CASES if case.domain.name == "translation"} == set(CELLS)
    assert "toy" not in cases.OVERRIDES, "the toy domain shows that one without overrides is covered"
    assert len(CHECKS) == 8


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_battery(check: Check, case: Case) -> None:
    run_check(check, case)


@pytest.mark.parametrize("case", TASKS, ids=str)
def test_batches_can_be_moved_and_pinned(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    battery.check_batches_can_be_moved_and_pinned(case)
    pinned: list[Tensor] = []

    def pin(self: Tensor, *_: Any) -> Tensor:
        pinned.append(self)
        return self

    monkeypatch.setattr(Tensor, "pin_memory", pin)  # the real one needs an accelerator
    batch = cases.batch_of(case)
    result = pin_memory(batch)
    assert type(result) is type(batch)
    assert {id(part) for part in pinned} == {id(part) for part in cases.tensors_in(batch)}


@pytest.mark.parametrize("case", TASKS, ids=str)
def test_workers_change_nothing(case: Case) -> None:
    battery.check_workers_change_nothing(case)


@pytest.mark.parametrize("case", TASKS, ids=str)
def test_a_checkpoint_is_plain_data(case: Case, tmp_path: Path) -> None:
    battery.check_a_checkpoint_is_plain_data(case, tmp_path)


class _Unused(SineModule):
    """A layer that nothing goes through."""

    def __init__(
        self, assets: dict[str, Any], *, hidden_size: int = 8, dropout: float = 0.1, optim: Any = None
    ) -> None:
        super().__init__(assets, hidden_size=hidden_size, dropout=dropout, optim=optim)
        self.forgotten = nn.Linear(2, 2)


class _Padded(SineModule):
    """Counts padding."""

    def compute(self, batch: SineBatch) -> StepOutput:
        error = (self(batch) - batch.values[:, 1:]).square()
        return StepOutput(error.sum(), batch.lengths.sum(), error.detach().sum())


class _Noisy(SineModule):
    """Draws in evaluation too."""

    def forward(self, batch: SineBatch) -> Tensor:
        return nn.functional.dropout(super().forward(batch), 0.1)


class _Neighbours(SineModule):
    """Each row sees the one above it."""

    def forward(self, batch: SineBatch) -> Tensor:
        found = super().forward(batch)
        return found + 0.1 * found.roll(1, dims=0)


class _Stuck(SineModule):
    """Learns a single number."""

    def forward(self, batch: SineBatch) -> Tensor:
        return self.output.bias * torch.ones_like(batch.values[:, 1:])


class _Remembers(SineModule):
    """Keeps a number that is not among its weights."""

    def __init__(
        self, assets: dict[str, Any], *, hidden_size: int = 8, dropout: float = 0.1, optim: Any = None
    ) -> None:
        super().__init__(assets, hidden_size=hidden_size, dropout=dropout, optim=optim)
        self.offset = float(torch.rand(()))

    def forward(self, batch: SineBatch) -> Tensor:
        return super().forward(batch) + self.offset


class _Disagrees(SineModule):
    """Evaluation keeps another value than prediction gives."""

    def update_metrics(self, metrics: Any, batch: SineBatch, output: StepOutput) -> None:
        self.keep([{"index": index, "value": 0.0} for index in batch.indices])


@pytest.mark.parametrize(
    ("module", "check"),
    [
        (_Unused, battery.check_every_parameter_gets_gradient),
        (_Stuck, battery.check_every_parameter_gets_gradient),
        (_Stuck, battery.check_overfits_one_batch),
        (_Padded, battery.check_a_batch_equals_its_single_examples),
        (_Neighbours, battery.check_a_batch_equals_its_single_examples),
        (_Neighbours, battery.check_batch_order_does_not_matter),
        (_Noisy, battery.check_eval_is_deterministic_and_draws_nothing),
        (_Remembers, battery.check_weights_are_all_that_a_module_knows),
        (_Disagrees, battery.check_evaluate_equals_predict),
    ],
)
def test_the_battery_finds_a_fault(module: type[SineModule], check: Check) -> None:
    domain = Domain(name="toy", tasks={"next_value": Task(module=module, data=SineData)}, default="next_value")
    case = next(case for case in CASES if case.domain is toy.DOMAIN)._replace(domain=domain)
    with pytest.raises(AssertionError):
        run_check(check, case)


def test_a_large_model_is_made_small_without_an_override() -> None:

    class Chosen(SineModule):
        def __init__(self, assets: dict[str, Any], *, hidden_size: int = 512, optim: OptimConfig | None = None) -> None:
            super().__init__(assets, hidden_size=hidden_size, optim=optim)

    domain = Domain(name="toy", tasks={"next_value": Task(module=Chosen, data=SineData)}, default="next_value")
    case = next(case for case in CASES if case.domain is toy.DOMAIN)._replace(domain=domain)
    encoder = cases.module_of(case).encoder
    assert isinstance(encoder, RecurrentEncoder)
    assert encoder.hidden_size == 16
