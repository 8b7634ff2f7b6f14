"""What every domain's model must do, whatever it models: ``test_domains.py`` runs each check on each case."""

import itertools
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from suite.checkpoint import RECORD_KEY
from suite.module import SuiteModule
from suite.optim import build_optimizer
from suite.seeding import seed_everything
from tests.cases import (
    EXAMPLES,
    Case,
    assert_close,
    assert_same,
    batch_of,
    data_of,
    double,
    examples_of,
    flags,
    module_of,
    tensors_in,
)
from tests.commands import QUIET, run

STEPS, SHARE = 80, 0.4  # after so many steps on one batch, at most so much of its first loss is left
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}  # float64, sums in another order
TRAINED_STEPS = 4


def check_overfits_one_batch(case: Case, module: SuiteModule) -> None:
    batch, optimizer = batch_of(case), build_optimizer(module, module.optim)
    losses = []
    for _ in range(STEPS):
        output = module.compute(batch)
        loss = output.loss_sum / output.weight
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < SHARE * losses[0], (losses[0], losses[-1])


def check_every_parameter_gets_gradient(case: Case, module: SuiteModule) -> None:
    module.compute(batch_of(case)).loss_sum.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
        assert parameter.grad.any(), f"the gradient of {name} is zero"


def check_weights_are_all_that_a_module_knows(case: Case, module: SuiteModule) -> None:
    other, batch = module_of(case, seed=1).eval(), batch_of(case)
    module.eval()
    with torch.no_grad():
        assert not torch.equal(other.compute(batch).loss_sum, module.compute(batch).loss_sum)
        other.load_state_dict(module.state_dict())
        assert_same(other.compute(batch), module.compute(batch))
        assert_same(other.predict_step(batch, 0), module.predict_step(batch, 0))


def check_a_batch_equals_its_single_examples(case: Case, module: SuiteModule) -> None:
    module = module.double().eval()
    with torch.no_grad():
        whole = module.compute(double(batch_of(case)))
        singles = [module.compute(double(data_of(case).collate([each]))) for each in examples_of(case)]
    torch.testing.assert_close(whole.loss_sum, torch.stack([each.loss_sum for each in singles]).sum(), **EXACT)
    assert int(whole.weight) == sum(int(each.weight) for each in singles)
    assert int(whole.weight) > 0


def check_batch_order_does_not_matter(case: Case, module: SuiteModule) -> None:
    module = module.double().eval()
    forward = double(batch_of(case))
    backward = double(data_of(case).collate(examples_of(case)[::-1]))
    with torch.no_grad():
        first, second = module.compute(forward), module.compute(backward)
        torch.testing.assert_close(first.loss_sum, second.loss_sum, **EXACT)
        assert torch.equal(first.weight, second.weight)
        results = [sorted(module.predict_step(each, 0), key=_index) for each in (forward, backward)]
    assert len(results[0]) == len(results[1]) == EXAMPLES
    for one, other in zip(*results, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_close(value, other[key])


def check_eval_is_deterministic_and_draws_nothing(case: Case, module: SuiteModule) -> None:
    batch = batch_of(case)
    module.eval()
    state = torch.get_rng_state()
    with torch.no_grad():
        assert_same(module.compute(batch), module.compute(batch))
        assert_same(module.predict_step(batch, 0), module.predict_step(batch, 0))
    assert torch.equal(torch.get_rng_state(), state)


def check_the_same_seed_trains_the_same(case: Case, module: SuiteModule) -> None:
    loader = data_of(case).loader("train", shuffle=True)
    batches = list(itertools.islice(loader, TRAINED_STEPS))

    def losses(seed: int) -> list[float]:
        trained = module_of(case, seed=seed)
        optimizer, found = build_optimizer(trained, trained.optim), []
        for number, batch in enumerate(batches):
            seed_everything(seed, number)
            optimizer.zero_grad()
            output = trained.compute(batch)
            (output.loss_sum / output.weight).backward()
            optimizer.step()
            found.append(float(output.loss_sum.detach()))
        return found

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def check_evaluate_equals_predict(case: Case, module: SuiteModule) -> None:
    """What evaluation keeps and prediction gives is the same wherever both name it; each example once."""
    data, module.kept = data_of(case), []
    quiet: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**quiet, enable_model_summary=False, limit_test_batches=2, limit_predict_batches=2)
    trainer.test(module, data.loader("test", shuffle=False), verbose=False)
    batches = trainer.predict(module, data.loader("test", shuffle=False))
    predicted = [result for batch in batches or [] for result in batch]
    assert len(predicted) == len(module.kept) > 0
    for kept, result in zip(module.kept, predicted, strict=True):
        common = kept.keys() & result.keys()
        assert "index" in common
        assert {key: kept[key] for key in common} == {key: result[key] for key in common}
        assert case.domain.tasks[case.task].decoding is None or len(common) > 1, "what was generated is not kept"
        assert all(isinstance(line, str) and "\n" not in line for line in module.lines(result))


CHECKS = [value for name, value in dict(globals()).items() if name.startswith("check_")]


def check_batches_can_be_moved_and_pinned(case: Case) -> None:
    batch = batch_of(case)
    assert isinstance(batch, tuple)
    assert hasattr(batch, "_fields"), "a batch is a NamedTuple"
    moved = data_of(case).transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert type(moved) is type(batch)
    assert tensors_in(moved)
    assert len(tensors_in(moved)) == len(tensors_in(batch))
    assert all(part.is_meta for part in tensors_in(moved))


def check_workers_change_nothing(case: Case) -> None:
    without, two = (data_of(case, num_workers=number) for number in (0, 2))
    assert two.num_workers == 2
    batches = [list(data.loader("train", shuffle=True, epoch=1, start_batch=1)) for data in (without, two)]
    assert len(batches[0]) > 1
    assert_same(*batches)


def check_a_checkpoint_is_plain_data(case: Case, folder: Path) -> None:
    limits = ("--trainer.max_epochs", 1, *(part for name in ("train", "val", "test") for part in _limit(name)))
    command = ("--domain", case.domain.name, "--task", case.task, *flags(case), *QUIET, *limits)
    ran = run("fit", *command, "--runs", folder, "--name", "run", application=case.application, configs=case.configs)
    assert ran.status == 0, ran.err
    found = sorted((folder / case.domain.name / "run" / "checkpoints").glob("*.ckpt"))
    assert [path.name for path in found[:2]] == ["best.ckpt", "last.ckpt"]
    assert len(found) > 2
    assert all(path.name.startswith("step-") for path in found[2:])
    for path in found:
        checkpoint = torch.load(path, weights_only=True)
        assert {"state_dict", RECORD_KEY} <= checkpoint.keys()
        assert "hyper_parameters" not in checkpoint
        assert checkpoint[RECORD_KEY]["settings"]["domain"] == case.domain.name
        _assert_plain(checkpoint, "checkpoint")


def _limit(name: str) -> tuple[str, int]:
    return f"--trainer.limit_{name}_batches", 2


def _index(result: dict[str, Any]) -> int:
    return result["index"]


def _assert_plain(value: Any, where: str) -> None:
    assert value != "_instantiator" if isinstance(value, str) else True, where
    if isinstance(value, dict):
        for key, part in value.items():
            _assert_plain(key, where)
            _assert_plain(part, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            _assert_plain(part, f"{where}[{number}]")
    else:
        assert value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor), (where, value)
