"""The moving average of buffers: the running statistics of batch normalisation follow the same equation as weights."""

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from suite.checkpoint import MOVING_AVERAGE_KEY, weights_of
from suite.ema import WeightAverage

DECAY, LATE = 0.6, 5  # the step at which a placeholder gets its first value


class Normalised(nn.Module):
    """Batch normalisation, a constant, a table whose second row is a placeholder at first, and a count."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("constant", torch.tensor([0.1, 1 / 3]))
        self.register_buffer("table", torch.zeros(2, 2))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_buffer("empty", torch.zeros(0))
        self.last_step: Any = SimpleNamespace(skipped=False)

    def step(self, number: int) -> None:
        """Change weights and statistics, as a training step does."""
        generator = torch.Generator().manual_seed(number)
        self.train()(torch.randn(8, 3, generator=generator) * (1 + number))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
            self.table[0] += torch.randn(2, generator=generator)
            if number >= LATE:
                self.table[1] += torch.randn(2, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.linear(inputs))


class Fit:
    """Calls the callback as Lightning does."""

    def __init__(self, checkpoint: dict[str, Any] | None = None, *, decay: float = DECAY) -> None:
        torch.manual_seed(0)
        self.module = cast(Any, Normalised())
        self.average = cast(Any, WeightAverage(decay))
        self.trainer = cast(Any, SimpleNamespace(global_step=0))
        if checkpoint is not None:
            self.trainer.global_step = checkpoint["global_step"]
            self.module.load_state_dict(checkpoint["state_dict"])
            self.average.on_load_checkpoint(self.trainer, self.module, checkpoint)
        self.average.on_train_start(self.trainer, self.module)

    def steps(self, last: int) -> "Fit":
        while self.trainer.global_step < last:
            self.trainer.global_step += 1
            self.module.step(self.trainer.global_step)
            self.average.on_train_batch_end(self.trainer, self.module, None, None, 0)
        return self

    def checkpoint(self) -> dict[str, Any]:
        """As it is read back from a file."""
        content: dict[str, Any] = {"global_step": self.trainer.global_step, "state_dict": self.module.state_dict()}
        self.average.on_save_checkpoint(self.trainer, self.module, content)
        file = io.BytesIO()
        torch.save(content, file)
        file.seek(0)
        return dict(torch.load(file, weights_only=True))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in module.state_dict().items()}


def expected(last: int) -> dict[str, Tensor]:
    """A loop in float64 over the state after each step."""
    torch.manual_seed(0)
    module = Normalised()
    before = {name: each.double() for name, each in state(module).items()}
    average = dict(before)
    changed = {name: torch.zeros_like(each, dtype=torch.bool) for name, each in before.items()}
    names = {name for name, _ in module.named_parameters()}
    for update in range(1, last + 1):
        module.step(update)
        decay = min(DECAY, (1 + update) / (10 + update))
        now = {name: each.double() for name, each in state(module).items()}
        for name, each in now.items():
            moved = decay * average[name] + (1 - decay) * each
            first = ~changed[name] & (each != before[name]) & (name not in names)
            average[name] = torch.where(first, each, moved)
            changed[name] |= each != before[name]
        before = now
    return average


def test_buffers_follow_the_equation() -> None:
    fit = Fit().steps(9)
    found, reference = weights_of(fit.checkpoint()), expected(9)
    for name in ("linear.weight", "norm.weight", "norm.running_mean", "norm.running_var", "table"):
        torch.testing.assert_close(found[name].double(), reference[name], rtol=1e-5, atol=1e-5)
        assert not torch.equal(found[name], fit.module.state_dict()[name])
    assert torch.equal(found["constant"], fit.module.constant), "to the last bit"
    assert int(found["norm.num_batches_tracked"]) == 9
    assert found["empty"].shape == (0,)
    assert set(found) == set(fit.module.state_dict())


def test_a_placeholder_has_no_part_in_the_average() -> None:
    found = Fit().steps(LATE)
    assert torch.equal(found.average.average["table"][1], found.module.table[1])
    assert not torch.equal(found.average.average["table"][0], found.module.table[0])


def test_validation_sees_averaged_statistics_and_training_its_own() -> None:
    fit = Fit().steps(6)
    training = state(fit.module)
    fit.average.on_validation_start(fit.trainer, fit.module)
    average = weights_of(fit.checkpoint())
    for name in ("norm.running_mean", "norm.running_var", "linear.bias", "table"):
        assert torch.equal(fit.module.state_dict()[name], average[name]), name
    for name, each in fit.checkpoint()["state_dict"].items():
        assert torch.equal(each, training[name]), f"{name}: a checkpoint inside a validation holds those of training"
    fit.average.on_validation_end(fit.trainer, fit.module)
    for name, each in state(fit.module).items():
        assert torch.equal(each, training[name]), name


@pytest.mark.parametrize("stopped", [2, LATE - 1, LATE, 8])
def test_a_resumed_average_is_the_same_to_the_bit(stopped: int) -> None:
    whole, cut = Fit().steps(10).checkpoint(), Fit(Fit().steps(stopped).checkpoint()).steps(10).checkpoint()
    for part in ("weights", "buffers"):
        ours, theirs = whole[MOVING_AVERAGE_KEY][part], cut[MOVING_AVERAGE_KEY][part]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_skipped_step_leaves_buffers_alone() -> None:
    fit = Fit().steps(3)
    before = {name: each.clone() for name, each in fit.average.average.items()}
    fit.module.last_step = SimpleNamespace(skipped=True)
    fit.steps(4)
    assert all(torch.equal(each, before[name]) for name, each in fit.average.average.items())


def test_an_average_of_an_earlier_version_goes_on_without_buffers(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Fit().steps(3).checkpoint()
    kept = checkpoint[MOVING_AVERAGE_KEY]
    names = {name for name, _ in Normalised().named_parameters()}
    checkpoint[MOVING_AVERAGE_KEY] = {
        "updates": kept["updates"], "weights": {name: each for name, each in kept["weights"].items() if name in names}
    }  # fmt: skip
    found = weights_of(checkpoint)
    assert torch.equal(found["norm.running_mean"], checkpoint["state_dict"]["norm.running_mean"])
    fit = Fit(checkpoint).steps(9)
    assert "did not average the statistics of batch normalisation" in capsys.readouterr().err
    again = fit.checkpoint()
    assert set(again[MOVING_AVERAGE_KEY]) == {"updates", "weights"}
    assert set(again[MOVING_AVERAGE_KEY]["weights"]) == names
    reference = expected(9)
    for name in names:
        torch.testing.assert_close(again[MOVING_AVERAGE_KEY]["weights"][name].double(), reference[name])
    training = state(fit.module)
    fit.average.on_validation_start(fit.trainer, fit.module)
    assert torch.equal(fit.module.norm.running_mean, training["norm.running_mean"])
