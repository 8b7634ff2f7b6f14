"""Layer groups: who belongs where, who is trained when, and an update by hand of what is and what is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.layer_groups import FinetuneConfig, Tuning, resolve_groups
from suite.optim import OptimConfig, build_optimizer, schedule_factor
from suite.recurrent import RecurrentEncoder
from tests import cases
from tests.cases import Case
from tests.finetuned import run_in, source_of
from tests.toy.data import SineData
from tests.toy.model import SineModule

TASKS = cases.tasks()


class Stack(nn.Module):
    """Embedding, normalised layers, a recurrent one, and an output that shares the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.recurrent = RecurrentEncoder(4, 4, cell="gru")
        self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight
        self.bias = nn.Parameter(torch.zeros(4))

    def groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("embedding", [self.embedding]), ("body", [self.body, self.recurrent]), ("head", [self.head])]


def tuning_of(model: Stack, **config: Any) -> Tuning:
    return Tuning(model, model.groups(), config=FinetuneConfig(**config))


def test_each_part_belongs_to_one_group() -> None:
    model = Stack()
    found = resolve_groups(model, model.groups())
    # The embedding is the output layer's too, and that is in no group: so in the topmost; nothing is left below.
    assert [group.name for group in found] == ["body", "head"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    body, head = ({names[id(parameter)] for parameter in group.parameters} for group in found)
    assert body == {name for name in names.values() if name.startswith(("body", "recurrent"))}
    assert head == {name for name in names.values() if name.startswith("head")} | {
        "embedding.weight", "output.bias", "bias",
    }  # fmt: skip


def test_the_nearest_group_has_a_part() -> None:
    model = Stack()
    outside = resolve_groups(model, [("all", [model]), ("head", [model.head])])
    assert len(outside[1].parameters) == 4
    inside = resolve_groups(model, [("head", [model.head]), ("all", [model])])
    assert len(inside[0].parameters) == 4
    assert sum(len(group.parameters) for group in inside) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "named", [[], [("a", [nn.Linear(1, 1)])], [("a", []), ("a", [])]], ids=["none", "foreign", "twice"]
)
def test_groups_that_cannot_be_meant(named: list[Any]) -> None:
    with pytest.raises(AssertionError, match="layer_groups names"):
        resolve_groups(Stack(), named)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [3] * 6),
        ({"groups": 2}, [2] * 6),
        ({"unfreeze": "steps", "unfreeze_every": 2}, [1, 1, 2, 2, 3, 3]),
        ({"unfreeze": "epochs"}, [1, 1, 1, 2, 2, 2]),
        ({"unfreeze": "steps", "start_groups": 2}, [2, 3, 3, 3, 3, 3]),
        ({"unfreeze": "steps", "groups": 2}, [1, 2, 2, 2, 2, 2]),
    ],
)
def test_what_is_trained_when(config: dict[str, Any], expected: list[int]) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    tuning = Tuning(
        model, [(name, [part]) for name, part in zip("abc", model, strict=True)], config=FinetuneConfig(**config)
    )
    assert [tuning.trained(step=step, epoch=step // 3) for step in range(6)] == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unfreeze_every": 0, "unfreeze": "steps"}, "unfreeze_every is 0, allowed is 1 or more"),
        ({"unfreeze_every": 2}, "unfreeze_every is 2: it is for finetune.unfreeze epochs or steps"),
        ({"start_groups": 2}, "start_groups is 2: it is for"),
        ({"start_groups": 2, "groups": 1, "unfreeze": "steps"}, "start_groups is 2, but finetune.groups only 1"),
        ({"groups": 0}, "groups is 0, allowed is 1 or more"),
        ({"groups": 3}, r"groups is 3: the model has 2 layer group\(s\), from the input upwards: body, head"),
        ({"start_groups": 3, "unfreeze": "epochs"}, "start_groups is 3: the model has 2"),
        ({"lr_factor": 0.0}, "lr_factor is 0.0, allowed is more than 0, and 1 at most"),
        ({"lr_factor": 1.5}, "lr_factor is 1.5"),
    ],
)
def test_policies_that_cannot_be_meant(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tuning_of(Stack(), **config)


@pytest.mark.parametrize("skip_gradients", [True, False])
def test_gradients_are_left_out_where_nobody_waits_for_them(skip_gradients: bool) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    config = FinetuneConfig(groups=2, unfreeze="steps")
    tuning = Tuning(model, [(name, [part]) for name, part in zip("abc", model, strict=True)], config=config)
    tuning.freeze_for_good()

    def asked() -> list[bool]:
        return [bool(part.weight.requires_grad) for part in model]

    assert asked() == [False, True, True], "what may be trained is what a strategy sees when it wraps the model"
    tuning.train(1, skip_gradients=skip_gradients)
    assert asked() == [False, not skip_gradients, True]
    model(torch.ones(1, 1)).backward()
    tuning.drop_gradients()
    assert [part.weight.grad is not None for part in model] == [False, False, True]
    tuning.train(2, skip_gradients=skip_gradients)
    assert asked() == [False, True, True]


def test_frozen_groups_behave_as_in_evaluation_and_trained_ones_do_not() -> None:
    model = Stack().train()
    tuning = tuning_of(model, unfreeze="steps")
    tuning.train(1, skip_gradients=True)
    model.train()  # as a validation that ends does
    tuning.keep_modes()
    assert not any(part.training for part in model.body.modules())
    assert all(part.training for part in model.head.modules())
    before = {name: value.clone() for name, value in model.named_buffers()}
    values = torch.randn(5, 4)
    assert torch.equal(model.body(values), model.body(values)), "dropout is off"
    model.head(values)
    after = dict(model.named_buffers())
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"head"}
    tuning.train(2, skip_gradients=True)
    tuning.keep_modes()
    assert all(part.training for part in model.modules())


def test_statistics_can_stay_fixed_below_the_head() -> None:
    model = Stack().train()
    tuning = tuning_of(model, batch_norm="fixed")
    tuning.train(2, skip_gradients=True)
    tuning.keep_modes()
    norms = {name: part.training for name, part in model.named_modules() if isinstance(part, nn.BatchNorm1d)}
    assert norms == {"body.1": False, "head.1": True}
    assert model.body[2].training


def test_a_gradient_goes_through_a_frozen_recurrent_layer() -> None:
    """An output layer that is the embedding too lies on both sides of what is frozen."""
    lengths = torch.tensor([5, 3])
    gradients = []
    for frozen in (False, True):
        torch.manual_seed(0)
        model = Stack().train()
        if frozen:
            tuning = tuning_of(model, unfreeze="steps")
            tuning.train(1, skip_gradients=True)
            tuning.keep_modes()
        tokens = torch.randint(7, (2, 5))
        model.output(model.recurrent(model.embedding(tokens), lengths).outputs).square().sum().backward()
        assert model.embedding.weight.grad is not None
        gradients.append(model.embedding.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)  # other kernels, other order of sums


@pytest.mark.parametrize("case", TASKS, ids=str)
def test_every_task_has_layer_groups(case: Case) -> None:
    module = cases.module_of(case)
    groups = resolve_groups(module, module.layer_groups())
    assert len(groups) > 1, "there is nothing to freeze below the head"
    owned = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(owned) == sorted(id(parameter) for parameter in module.parameters())


@pytest.mark.parametrize("skip_gradients", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("case", TASKS, ids=str)
def test_what_is_frozen_does_not_move(case: Case, name: Any, skip_gradients: bool) -> None:
    """No decay, no momentum; and what is trained moves as if the rest had never been in the optimiser."""
    states = []
    for only in (False, True):
        module, batch = cases.module_of(case, dropout=False).double(), cases.double(cases.batch_of(case))
        config = OptimConfig(name=name, lr=0.01, weight_decay=0.1, momentum=0.9 if name in ("sgd", "rmsprop") else 0.0)
        module.tune(FinetuneConfig(groups=1) if only else FinetuneConfig(unfreeze="steps", unfreeze_every=9))
        tuning = module.tuning
        assert tuning is not None
        if only:
            tuning.freeze_for_good()
        optimizer = build_optimizer(module, config, layers=tuning.layers())
        before = {id(parameter): parameter.detach().clone() for parameter in module.parameters()}
        for parameter in module.parameters():  # a gradient from before must not count
            parameter.grad = torch.ones_like(parameter)
        tuning.train(1, skip_gradients=skip_gradients or only)
        for _ in range(3):
            optimizer.zero_grad()
            module.compute(batch).loss_sum.backward()
            tuning.drop_gradients()
            optimizer.step()
        for group in tuning.frozen:
            for parameter in group.parameters:
                assert torch.equal(parameter, before[id(parameter)])
                state = [torch.as_tensor(value) for value in optimizer.state[parameter].values()]
                assert not any(value.any() for value in state), "adagrad makes its state beforehand, but empty"
        assert any(not torch.equal(parameter, before[id(parameter)]) for parameter in tuning.groups[-1].parameters)
        states.append(module.state_dict())
    for key, weight in states[0].items():
        torch.testing.assert_close(weight, states[1][key], rtol=1e-9, atol=1e-9)


def by_hand(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """Gradual unfreezing with discriminative rates on a slanted triangle, as Howard and Ruder (2018) write it."""
    module = SineModule({}, dropout=0.0)
    module.load_state_dict(state)
    module.train()
    data = SineData(noise=0.0)
    total, step = 3 * 8, 0
    config = OptimConfig(lr=settings["lr"], schedule="slanted_triangular")
    for epoch in range(3):
        for batch in data.loader("train", shuffle=True, epoch=epoch):
            module.zero_grad()
            output = module.compute(batch)
            (output.loss_sum / output.weight).backward()
            rate = settings["lr"] * schedule_factor(config, step, total)
            thawed = step // settings["every"] >= 1
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    assert parameter.grad is not None
                    if name.startswith("output"):
                        parameter.sub_(rate * parameter.grad)
                    elif thawed:
                        parameter.sub_(rate * settings["factor"] * parameter.grad)
            step += 1
    return module.state_dict()


def test_a_run_equals_the_updates_by_hand(tmp_path: Path) -> None:
    source = source_of("toy", [])
    ran = run_in(
        "toy", "finetune", "--source", source, "--runs", tmp_path, "--name", "a", "--tracking.mode=disabled",
        "--model.dropout=0", "--data.noise=0", "--optim.name=sgd", "--optim.lr=0.2", "--finetune.lr_factor=0.3",
        "--optim.schedule=slanted_triangular", "--finetune.unfreeze=steps", "--finetune.unfreeze_every=7",
        "--trainer.gradient_clip_val=null", "--trainer.max_epochs=3",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    start = torch.load(source, weights_only=True)["state_dict"]
    expected = by_hand(start, {"lr": 0.2, "factor": 0.3, "every": 7})
    found = torch.load(tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)
        assert not torch.equal(weight, start[name])


def test_what_the_model_itself_keeps_fixed_stays_so() -> None:
    """A frozen part and its statistics are the model's own settings."""

    class Partly(Stack):
        def train(self, mode: bool = True) -> "Partly":
            super().train(mode)
            self.body[1].eval()
            return self

    model = Partly().train()
    for parameter in model.body[0].parameters():
        parameter.requires_grad = False
    tuning = tuning_of(model, unfreeze="steps", start_groups=1)
    for count in (1, 2):
        tuning.train(count, skip_gradients=True)
        assert not any(parameter.requires_grad for parameter in model.body[0].parameters())
        assert not model.body[1].training
        assert model.head[1].training
    assert all(parameter.requires_grad for parameter in model.recurrent.parameters())
