"""The waveform module: bits, padding and context, layer groups, weights of a source by name."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from domains.audio.data import WaveBatch
from domains.audio.model import WaveformModule
from domains.audio.network import LearnedUpsampler, factors, smooth_rows
from domains.audio.weights import weights_of
from suite.errors import UsageError
from suite.mu_law import silence

SMALL: dict[str, Any] = {"channels": 6, "num_layers": 4, "cycle": 2, "skip_channels": 5, "condition_size": 3}


def assets(conditions: dict[str, list[str]] | None = None, *, mel: dict[str, int] | None = None) -> dict[str, Any]:
    return {"sample_rate": 8000, "classes": 256, "conditions": conditions or {}, "mel": mel}


def batch_of(lengths: list[int], contexts: list[int], *, columns: int = 0, frames: Tensor | None = None) -> WaveBatch:
    torch.manual_seed(3)
    codes = torch.full((len(lengths), max(lengths) + 1), silence())
    for row, length in enumerate(lengths):
        codes[row, : length + 1] = torch.randint(256, (length + 1,))
    conditions = torch.randint(2, (len(lengths), columns))
    names = [str(row) for row in range(len(lengths))]
    return WaveBatch(
        codes, torch.tensor(lengths), torch.tensor(contexts), conditions, frames, list(range(len(lengths))), names
    )


def nats_of(module: WaveformModule, batch: WaveBatch) -> list[float]:
    """By the definition: minus the log probability of each scored sample, summed over each row."""
    logits = module(batch).log_softmax(-1)
    found = []
    for row, (length, context) in enumerate(zip(batch.lengths.tolist(), batch.contexts.tolist(), strict=True)):
        chosen = logits[row, context:length].gather(1, batch.codes[row, context + 1 : length + 1].unsqueeze(1))
        found.append(-float(chosen.detach().sum()))
    return found


def test_loss_is_the_sum_over_scored_samples() -> None:
    module = WaveformModule(assets({"who": ["a", "b"]}), **SMALL).double()
    batch = batch_of([9, 30, 17], [0, 8, 16], columns=1)
    expected = nats_of(module, batch)
    with torch.no_grad():
        output = module.compute(batch)
    torch.testing.assert_close(output.outputs, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)
    assert int(output.weight) == 9 + 22 + 1
    trained = module.compute(batch)
    assert float(trained.loss_sum.detach()) == pytest.approx(sum(expected), rel=1e-9)
    trained.loss_sum.backward()
    slopes = {
        name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    module.zero_grad()
    logits = module(batch)
    steps = torch.arange(logits.size(1))
    mask = (steps >= batch.contexts.unsqueeze(1)) & (steps < batch.lengths.unsqueeze(1))
    torch.nn.functional.cross_entropy(logits[mask], batch.codes[:, 1:][mask], reduction="sum").backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(slopes[name], parameter.grad, rtol=1e-9, atol=1e-10, msg=name)


def test_bits_overall_and_of_each_value() -> None:
    module = WaveformModule(assets({"who": ["a", "b"], "many": [str(n) for n in range(20)]}), **SMALL)
    metrics: Any = dict(module.evaluation["test"].items())  # type: ignore[operator]
    assert {"bits", "bits/who_a", "bits/who_b", "loss"} == set(metrics)
    batch = batch_of([9, 30, 17], [0, 8, 16], columns=2)._replace(conditions=torch.tensor([[0, 1], [1, 19], [0, 3]]))
    expected = nats_of(module, batch)
    with torch.no_grad():
        module.update_metrics(metrics, batch, module.compute(batch))
    bits = {name: float(metrics[name].compute()) for name in ("bits", "bits/who_a", "bits/who_b")}
    assert bits["bits"] == pytest.approx(sum(expected) / 32 / math.log(2), rel=1e-5)
    assert bits["bits/who_a"] == pytest.approx((expected[0] + expected[2]) / 10 / math.log(2), rel=1e-5)
    assert bits["bits/who_b"] == pytest.approx(expected[1] / 22 / math.log(2), rel=1e-5)


def test_no_logit_depends_on_a_later_sample_and_the_field_is_as_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = WaveformModule(assets(), **{**SMALL, "skip_channels": 32}).double()
    network, size = module.network, 20
    embedded = torch.randn(size, 1, 6, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(network.embedding, "forward", lambda codes: embedded)
    logits = network(torch.zeros(1, size, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long))
    for step in range(size):
        (slopes,) = torch.autograd.grad(
            network(torch.zeros(1, size, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long))[0, step].sum(),
            embedded,
        )
        reached = slopes.abs().sum(dim=(1, 2)).nonzero().flatten()
        assert int(reached.max()) == step
        assert step - int(reached.min()) + 1 == min(step + 1, network.receptive_field)
    assert logits.shape == (1, size, 256)
    assert network.receptive_field == 1 + 2 * (1 + 2)


def test_a_spectrum_reaches_the_loss_with_every_weight() -> None:
    mel = {"bands": 4, "hop": 12, "window": 24}
    module = WaveformModule(assets({"who": ["a", "b"]}, mel=mel), **SMALL, local_channels=3).double()
    frames = torch.randn(2, 4, 3 + 4, dtype=torch.float64)
    batch = batch_of([30, 36], [0, 12], columns=1, frames=frames)
    module.compute(batch).loss_sum.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    with torch.no_grad():
        other = module.compute(batch._replace(local=frames + 1))
        single = [
            module.compute(
                WaveBatch(
                    batch.codes[row : row + 1], batch.lengths[row : row + 1], batch.contexts[row : row + 1],
                    batch.conditions[row : row + 1], frames[row : row + 1], [row], [""],
                )
            ).loss_sum
            for row in range(2)
        ]  # fmt: skip
        assert float(other.loss_sum) != float(module.compute(batch).loss_sum)
        torch.testing.assert_close(module.compute(batch).loss_sum, single[0] + single[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hop", [2, 8, 12, 64, 256])
def test_upsampling_a_part_is_that_part_of_the_whole(hop: int) -> None:
    upsampler = LearnedUpsampler(3, 5, hop=hop).double()
    frames = torch.randn(1, 3, 14, dtype=torch.float64)
    whole = upsampler(frames)
    assert whole.shape == (1, 5, 10 * hop)
    part = upsampler(frames[:, :, 3:11])
    torch.testing.assert_close(part, whole[:, :, 3 * hop : 7 * hop], rtol=1e-12, atol=1e-12)


def test_hops_that_cannot_be_built() -> None:
    assert factors(256) == [16, 16]
    assert factors(12) == [4, 3]
    for hop in (13, 74):
        with pytest.raises(UsageError, match=f"hop is {hop}"):
            factors(hop)


def test_neighbouring_classes_begin_as_neighbours() -> None:
    rows = smooth_rows(256, 32)
    steps = (rows[1:] - rows[:-1]).norm(dim=1)
    assert float(steps.max()) < 0.3 * float((rows[:128] - rows[128:]).norm(dim=1).mean())


def test_layer_groups_cover_every_weight_once() -> None:
    module = WaveformModule(assets({"who": ["a", "b"]}, mel={"bands": 4, "hop": 4, "window": 8}), **SMALL)
    groups = module.layer_groups()
    assert [name for name, _ in groups] == ["embedding", "cycle 1", "cycle 2", "output"]
    held = [id(weight) for _, modules in groups for each in modules for weight in each.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(weight) for weight in module.parameters()}


def test_weights_of_a_source_are_taken_over_by_name() -> None:
    source = WaveformModule(assets({"digit": ["1", "2"], "who": ["a", "b", "c"]}), **SMALL)
    target = WaveformModule(assets({"who": ["c", "new", "a"], "digit": ["2", "1"]}), **SMALL)
    found = target.adapt_source(dict(source.state_dict()), source.assets)
    target.load_state_dict(found)
    theirs, ours = source.network.conditions[1].weight, target.network.conditions[0].weight
    assert isinstance(theirs, Tensor)
    assert isinstance(ours, Tensor)
    assert torch.equal(ours[0], theirs[2])
    assert torch.equal(ours[2], theirs[0])
    torch.testing.assert_close(ours[1], theirs.mean(dim=0))
    batch = batch_of([12, 7], [0, 0], columns=2)
    first = batch._replace(conditions=torch.tensor([[0, 0], [1, 2]]))  # 1 and a; 2 and c
    second = batch._replace(conditions=torch.tensor([[2, 1], [0, 0]]))
    torch.testing.assert_close(source(first), target(second), rtol=1e-5, atol=1e-5)


def test_values_may_have_dots_and_slashes() -> None:
    module = WaveformModule(assets({"v1.0": ["0.5", "0/5", "rock/pop"]}), **SMALL)
    names = {"bits/v1_0_0_5_0", "bits/v1_0_0_5_1", "bits/v1_0_rock_pop"}
    assert set(module.make_metrics()) == {"bits", *names}
    batch = batch_of([9, 9, 9], [0, 0, 0], columns=1)._replace(conditions=torch.tensor([[0], [1], [2]]))
    metrics = module.make_metrics()
    module.update_metrics(metrics, batch, _evaluated(module, batch))
    assert all(float(metrics[name].compute()) > 0 for name in names)
    titles, _, _ = module.sample_waves(batch)
    assert titles == ["0-0_5", "1-0_5", "2-rock_pop"]


@torch.no_grad()
def _evaluated(module: WaveformModule, batch: WaveBatch) -> Any:
    return module.compute(batch)


def test_no_condition_is_taken_for_another() -> None:
    source = WaveformModule(assets({"speaker": ["a", "b"]}), **SMALL)
    for conditions in ({"mood": ["x", "y"]}, {}):
        target = WaveformModule(assets(conditions), **SMALL)
        found = target.adapt_source(source.state_dict(), source.assets)
        assert found
        assert not [name for name in found if name.startswith("network.conditions.") or name.endswith(".condition")]


def test_weights_for_generation_are_made_where_the_network_is() -> None:
    network = WaveformModule(assets({"who": ["a", "b"]}), **SMALL).network.to("meta")
    weights = weights_of(network, torch.zeros(2, 1, dtype=torch.long, device="meta"))
    assert all(part.is_meta for part in weights if isinstance(part, Tensor))
