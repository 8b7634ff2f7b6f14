"""How the trainer of a run is set up for several devices, and which errors of theirs are recognised."""

from pathlib import Path
from typing import Any

import pytest
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy

from suite.checkpoint import make_record
from suite.cli import _is_of_another_process
from suite.rehearsal import load_recipe
from suite.trainer import build_trainer
from tests import toy
from tests.commands import TOY_CONFIGS


def trainer_of(folder: Path, *flags: str) -> Any:
    recipe = load_recipe(toy.DOMAIN, defaults=TOY_CONFIGS / "toy" / "default.yaml", flags=flags)
    record = make_record(settings=recipe.settings, assets={})
    return build_trainer(recipe.run, folder, record=record, module=recipe.module(), loggers=[])


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_several_devices_reduce_gradients_where_they_lie(strategy: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "--trainer.devices=2", f"--trainer.strategy={strategy}", "--trainer.accelerator=cpu")
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs["gradient_as_bucket_view"] is True


def test_one_device_has_no_such_strategy(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "--trainer.devices=1", "--trainer.accelerator=cpu")
    assert not isinstance(trainer.strategy, DDPStrategy)


class Derived(torch.distributed.DistNetworkError):
    """As a later version of torch may have one."""


PAIR = "third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:29501"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(f"[/pytorch/{PAIR}"), True),
        (RuntimeError(f"[../{PAIR}"), True),
        (RuntimeError("[enforce fail at ../third_party/gloo/gloo/transport/tcp/device.cc:83] ifa != nullptr"), True),
        (RuntimeError("Application timeout caused pair closure [gloo/transport/tcp/unbound_buffer.cc:81]"), True),
        (torch.distributed.DistNetworkError("the client socket has failed to connect"), True),
        (torch.distributed.DistStoreError("wait timeout"), True),
        (torch.distributed.DistBackendError("NCCL error"), True),
        (Derived("reset"), True),
        (FileNotFoundError("data/gloo/train.csv"), False),
        (RuntimeError("data/gloo/train.csv: cannot be decoded"), False),
        (RuntimeError("shapes (2, 3) and (4, 5) cannot be multiplied"), False),
        (ValueError(f"[/pytorch/{PAIR}"), False),
    ],
)
def test_what_another_process_ended(error: Exception, expected: bool) -> None:
    assert _is_of_another_process(error) is expected
