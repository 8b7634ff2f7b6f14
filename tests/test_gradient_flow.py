"""Gradients by lag equal those of one pass by autograd, or a formula; the callback logs what it measured."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from suite.errors import UsageError
from suite.recurrent import CELLS, CellName, RecurrentEncoder, RecurrentOptions
from suite.recurrent.gradient_flow import GradientFlow, gradient_by_lag, gradient_each_way, gradient_figure
from suite.recurrent.gradient_watch import GradientFlowCallback, Watch
from suite.sequence import reverse_valid

D, H, T = 3, 4, 6


def test_a_linear_recurrence_by_formula() -> None:
    """With the identity as activation in reach (relu on positive states) the norm is that of powers of U."""
    encoder = RecurrentEncoder(D, H, cell="rnn_relu").double()
    layer: Any = encoder.layers[0]
    nn.init.uniform_(layer.rnn.weight_hh_l0, 0.05, 0.3)
    nn.init.uniform_(layer.rnn.weight_ih_l0, 0.1, 0.5)
    inputs = torch.rand(1, T, D, dtype=torch.float64)
    probe = torch.rand(1, H, dtype=torch.float64)
    flow = gradient_by_lag(encoder, inputs, probe=probe)
    expected, slope = [], probe[0]
    for _ in range(T):
        expected.append(slope.norm())
        slope = slope @ layer.rnn.weight_hh_l0.detach()
    torch.testing.assert_close(flow.norms[:, 0].double(), torch.stack(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_equals_autograd_on_the_rest_of_the_sequence(cell: CellName) -> None:
    """The gradient at t is that of the remaining steps with respect to the state that they start from."""
    encoder = RecurrentEncoder(D, H, cell=cell, num_layers=2).double().eval()
    inputs, lengths = torch.randn(2, T, D, dtype=torch.float64), torch.tensor([T, 4])
    probe = torch.randn(2, H, dtype=torch.float64)
    flow = gradient_by_lag(encoder, inputs, lengths, probe=probe)
    assert flow.norms.shape == (T, 2)
    for lag in range(1, T):
        norms = []
        for row in range(2):
            if int(lengths[row]) <= lag:
                continue
            cut = int(lengths[row]) - lag
            state = encoder(inputs[row : row + 1, :cut], torch.tensor([cut])).state
            leaves = tuple(part.detach().requires_grad_() for part in state[: encoder.num_states])
            rest = encoder(
                inputs[row : row + 1, cut : cut + lag], torch.tensor([lag]), (*leaves, *state[encoder.num_states :])
            )
            slopes = torch.autograd.grad((rest.outputs[0, -1] * probe[row]).sum(), leaves)
            norms.append(torch.stack(slopes)[:, 0].square().sum(dim=(0, 2)).sqrt())
        torch.testing.assert_close(flow.norms[lag].double(), torch.stack(norms).mean(dim=0), rtol=1e-5, atol=1e-9)


def test_chrono_carries_further_than_vanilla() -> None:
    inputs = torch.randn(2, 100, D)
    torch.manual_seed(0)
    vanilla = RecurrentEncoder(D, 32, cell="rnn_tanh")
    lstm = RecurrentEncoder(D, 32, cell="lstm", options=RecurrentOptions(chrono_steps=100))
    flows = {name: gradient_by_lag(each, inputs) for name, each in (("vanilla", vanilla), ("chrono", lstm))}
    assert flows["chrono"].norms[99, 0] > 100 * flows["vanilla"].norms[99, 0]
    assert flows["chrono"].half_life() > 4 * flows["vanilla"].half_life() > 0
    axes = gradient_figure(flows).axes[0]
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.get_lines()] == ["vanilla", "chrono"]


def test_half_life() -> None:
    assert GradientFlow(torch.tensor([[8.0], [4.0], [2.0]])).half_life() == 1.0
    assert GradientFlow(torch.tensor([[1.0], [2.0]])).half_life() == -1.0
    assert GradientFlow(torch.tensor([[1.0], [1.0]])).half_life() == math.inf
    assert GradientFlow(torch.tensor([[1.0], [0.0]])).half_life() == 0.0
    assert GradientFlow(torch.tensor([[1.0, 2.0]])).table() == [{"lag": 0.0, "layer_0": 1.0, "layer_1": 2.0}]


def test_leaves_the_encoder_as_it_was() -> None:
    encoder = RecurrentEncoder(D, H, cell="batchnorm_lstm", options=RecurrentOptions(zoneout=0.3)).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    gradient_by_lag(encoder, torch.randn(2, T, D, generator=torch.Generator().manual_seed(0)))
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_each_way_is_an_encoder_of_one_direction(cell: CellName, layers: int) -> None:
    """Of the last layer: over what the layers below give, as it is and row by row backwards."""
    encoder = RecurrentEncoder(D, H, cell=cell, num_layers=layers, bidirectional=True).double().eval()
    inputs, lengths = torch.randn(3, T, D, dtype=torch.float64), torch.tensor([T, 4, 1])
    state = tuple(torch.randn(3, 2 * layers, H, dtype=torch.float64) for _ in range(encoder.num_states))
    probe = torch.randn(3, 2 * H, dtype=torch.float64)
    below, size = inputs, D
    if layers == 2:
        lower = RecurrentEncoder(D, H, cell=cell, bidirectional=True).double().eval()
        lower.layers.load_state_dict(nn.ModuleList(encoder.layers[:2]).state_dict())
        below, size = lower(inputs, lengths, tuple(part[:, :2] for part in state)).outputs, 2 * H
    flows = gradient_each_way(encoder, inputs, lengths, state=state, probe=probe)
    assert list(flows) == ["forward", "backward"]
    for way, flow in enumerate(flows.values()):
        single = RecurrentEncoder(size, H, cell=cell).double()
        single.layers[0].load_state_dict(encoder.layers[2 * layers - 2 + way].state_dict())
        start = tuple(part[:, 2 * layers - 2 + way].unsqueeze(1) for part in state)
        read = reverse_valid(below, lengths) if way else below
        share = probe[:, way * H : (way + 1) * H]
        expected = gradient_by_lag(single, read, lengths, state=start, probe=share)
        torch.testing.assert_close(flow.norms, expected.norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_end_of_a_long_sequence_is_as_in_the_whole(cell: CellName, both: bool) -> None:
    encoder = RecurrentEncoder(D, H, cell=cell, num_layers=2, bidirectional=both, condition_size=2).double()
    inputs, lengths = torch.randn(3, T, D, dtype=torch.float64), torch.tensor([T, 2, 5])
    condition = torch.randn(3, 2, dtype=torch.float64)

    def measure(condition: Tensor, rows: slice, max_steps: int | None) -> dict[str, GradientFlow]:
        given: Any = {"condition": condition[rows], "max_steps": max_steps}
        if both:
            return gradient_each_way(encoder, inputs[rows], lengths[rows], **given)
        return {"": gradient_by_lag(encoder, inputs[rows], lengths[rows], **given)}

    whole, end = measure(condition, slice(None), None), measure(condition, slice(None), 3)
    repeated = measure(condition.unsqueeze(1).expand(-1, T, -1), slice(None), 3)
    assert whole.keys() == end.keys()
    for name, flow in end.items():
        assert len(flow.norms) == 3
        torch.testing.assert_close(flow.norms, whole[name].norms[:3], rtol=1e-6, atol=0)
        torch.testing.assert_close(repeated[name].norms, flow.norms, rtol=1e-6, atol=0)


def test_rough_inputs_are_measured_in_the_weights_precision() -> None:
    """Under autocast what an encoder reads is in bfloat16, its weights are not."""
    encoder, inputs = RecurrentEncoder(D, H), torch.randn(2, T, D).bfloat16()
    assert torch.equal(gradient_by_lag(encoder, inputs).norms, gradient_by_lag(encoder, inputs.float()).norms)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="reads in one direction: use gradient_each_way"):
        gradient_by_lag(RecurrentEncoder(D, H, bidirectional=True), torch.randn(1, T, D))
    with pytest.raises(UsageError, match="reads in one direction: use gradient_by_lag"):
        gradient_each_way(RecurrentEncoder(D, H), torch.randn(1, T, D))
    for inputs, lengths in ((torch.randn(1, 0, D), None), (torch.randn(1, T, D), torch.tensor([0]))):
        with pytest.raises(UsageError, match="a sequence of one step or more"):
            gradient_by_lag(RecurrentEncoder(D, H), inputs, lengths)
    with pytest.raises(UsageError, match="rows is 0, allowed is 1 or more"):
        GradientFlowCallback(rows=0)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_watch_gives_the_losss_own_gradient_by_lag(cell: CellName, both: bool) -> None:
    """Against autograd through a plain loop over steps, of a loss that reads every output; from a state handed in."""
    encoder = RecurrentEncoder(D, H, cell=cell, bidirectional=both).double().eval()
    inputs, lengths, ways = torch.randn(2, T, D, dtype=torch.float64), torch.tensor([T, 4]), 2 if both else 1
    start = tuple(torch.randn(2, ways, H, dtype=torch.float64) for _ in range(encoder.num_states))
    watch = Watch(nn.ModuleDict({"encoder": encoder}))
    encoded = encoder(inputs, lengths, state=start)
    encoded.outputs.pow(3).sum().backward()
    watch.close()
    flows = watch.flows(rows=2, max_steps=T)
    assert list(flows) == (["encoder.forward", "encoder.backward"] if both else ["encoder"])
    for way, flow in enumerate(flows.values()):
        norms = torch.zeros(2, T, dtype=torch.float64)
        for row, length in enumerate(lengths.tolist()):
            read = inputs[row : row + 1, :length].flip(1) if way else inputs[row : row + 1, :length]
            state, states, layer = tuple(part[row : row + 1, way] for part in start), [], encoder.layers[way]
            for step in range(length):
                _, after = layer(read[:, step : step + 1], torch.tensor([1]), state)
                state = tuple(part.requires_grad_() for part in after)
                states.append(state[: encoder.num_states])
            loss = states[-1][0].pow(3).sum()  # the last output is the hidden state
            slopes = torch.autograd.grad(loss, [part for each in states for part in each], allow_unused=True)
            for place, slope in enumerate(slopes):
                lag = length - 1 - place // encoder.num_states
                norms[row, lag] += 0.0 if slope is None else slope.square().sum()
        expected = torch.cat([norms[:, :4].sqrt().mean(dim=0), norms[0, 4:].sqrt()])
        torch.testing.assert_close(flow.norms[:, 0].double(), expected, rtol=1e-6, atol=0)


class _Recorder(Logger):
    name, version = "recorder", "0"

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, float] = {}
        self.media: list[str] = []

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.figures |= metrics


class _Model(LightningModule):
    def __init__(self, *, by_state: bool) -> None:
        super().__init__()
        self.encoder, self.output, self.by_state = RecurrentEncoder(D, H, cell="gru"), nn.Linear(H, 1), by_state
        self.probes: list[Tensor] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        inputs, lengths = batch
        encoded = self.encoder(inputs, lengths)
        last = encoded.state[0][:, -1] if self.by_state else encoded.outputs[torch.arange(len(inputs)), lengths - 1]
        return self.output(last).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("by_state", [False, True])
def test_callback_logs_the_losss_own_gradient(by_state: bool, tmp_path: Any) -> None:
    model, recorder, callback = _Model(by_state=by_state), _Recorder(), GradientFlowCallback(2, rows=2, max_steps=4)
    inputs, lengths = torch.randn(3, T, D), torch.tensor([T, 3, 5])
    loader: Any = torch.utils.data.DataLoader([(inputs, lengths)] * 3, batch_size=None)  # type: ignore[arg-type]
    trainer = Trainer(max_steps=3, logger=recorder, callbacks=[callback], enable_checkpointing=False, accelerator="cpu",
                      enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(model, loader)
    with torch.enable_grad():
        outputs = model.encoder(inputs, lengths).outputs
        last = outputs[torch.arange(3), lengths - 1].detach().requires_grad_()
        (probe,) = torch.autograd.grad(model.output(last).square().sum(), [last])
    measured = callback.flows["encoder"].norms
    assert measured.shape == (4, 1)
    torch.testing.assert_close(measured[0, 0], probe[:2].norm(dim=1).mean(), rtol=1e-5, atol=0)
    assert {"gradient/encoder/lag_0", "gradient/encoder/lag_3", "gradient/encoder/layer_0"} <= recorder.figures.keys()
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "gradient-encoder-0000000.png",
        "gradient-encoder-0000002.png",
    ]


def test_rows_that_begin_anew_are_measured_from_there() -> None:
    torch.manual_seed(5)
    encoder = RecurrentEncoder(D, H, options=RecurrentOptions(initial_state="input")).double()
    inputs, state = torch.randn(2, T, D).double(), tuple(30 * torch.randn(2, 1, H).double() for _ in range(2))

    def norms(given: Any, begins: Any, rows: int = 2) -> Tensor:
        watch = Watch(torch.nn.ModuleDict({"encoder": encoder}))
        encoder(inputs, None, given, None, begins).outputs[:, -1].sum().backward()
        watch.close()
        return watch.flows(rows=rows)["encoder"].norms

    begins = torch.tensor([True, False])
    anew, carried = norms(None, None), norms(state, None)
    assert not torch.allclose(anew, carried)
    torch.testing.assert_close(norms(state, torch.ones(2, dtype=torch.bool)), anew)
    torch.testing.assert_close(norms(state, ~begins, rows=1), norms(state, None, rows=1))
    torch.testing.assert_close(norms(state, begins, rows=1), norms(None, None, rows=1))
    assert encoder.training
