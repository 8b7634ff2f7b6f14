"""Which warnings of libraries are left out, and that those of a user's own code are not."""

import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from suite.trainer import quiet_libraries
from tests.commands import fit_toy

ADVICE = [
    "The number of training batches (4) is smaller than the logging interval Trainer(log_every_n_steps=20).",
    "The 'train_dataloader' does not have many workers which may be a bottleneck. Consider increasing the value",
    "Checkpoint directory /runs/a/checkpoints exists and is not empty.",
    "GPU available but not used. You can set it by doing `Trainer(accelerator='gpu')`.",
    "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be used.",
    "It is recommended to use `self.log('val/loss', ..., sync_dist=True)` when logging on epoch level in distributed",
]


@pytest.fixture(autouse=True)
def _as_in_a_command(recwarn: pytest.WarningsRecorder) -> None:
    warnings.resetwarnings()
    warnings.simplefilter("always")
    quiet_libraries()


@pytest.mark.parametrize("text", ADVICE)
def test_advice_on_chosen_settings_is_left_out(text: str, recwarn: pytest.WarningsRecorder) -> None:
    warnings.warn(text, UserWarning, stacklevel=1)
    assert not recwarn.list


def warn_from(module: str, category: type[Warning]) -> None:
    """Warn as code in ``module`` would."""
    warnings.warn_explicit("going away", category, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("module", ["torch.nn.functional", "lightning.pytorch.trainer", "numba", "wandb.sdk"])
def test_what_libraries_themselves_do_wrong_is_left_out(module: str, recwarn: pytest.WarningsRecorder) -> None:
    warn_from(module, FutureWarning)
    warn_from(module, DeprecationWarning)
    assert not recwarn.list
    warn_from(module, UserWarning)
    assert len(recwarn.list) == 1


@pytest.mark.parametrize("module", ["my_callbacks", "__main__", "torchlike"])
def test_warnings_of_a_users_own_code_show(module: str, recwarn: pytest.WarningsRecorder) -> None:
    for category in (UserWarning, FutureWarning, DeprecationWarning):
        warn_from(module, category)
    assert len(recwarn.list) == 3


class Loud(Callback):
    """A user's callback that warns."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        warnings.warn("look at this", FutureWarning, stacklevel=1)


def test_a_users_callback_may_warn_in_a_run(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="look at this"):
        ran = fit_toy("--runs", tmp_path, "--trainer.callbacks+=tests.test_quiet.Loud")
    assert ran.status == 0, ran


def test_a_small_run_gives_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    ran = fit_toy("--runs", tmp_path, "--trainer.log_every_n_steps", 500)
    assert ran.status == 0, ran
    assert not recwarn.list, [str(each.message) for each in recwarn.list]
    assert "Warning" not in ran.err
