"""What can be chosen around a cell: each option does what it says, is off in eval where it should be, or is refused."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.recurrent import CELLS, CellName, RecurrentEncoder, RecurrentOptions
from suite.recurrent.dropout import Zoneout
from suite.recurrent.fused import FusedLayer
from suite.recurrent.options import WITH_MATRIX, WITH_MEMORY
from suite.recurrent.penalties import activation_penalty, recurrent_weights, temporal_penalty
from suite.sequence import length_mask, reverse_valid
from tests.test_recurrent_cells import EXACT, RAGGED, D, H, T, build, slopes, start_state

FULL = torch.full((4,), T)


def everything(cell: CellName) -> RecurrentOptions:
    """Every regulariser that the cell has."""
    return RecurrentOptions(
        input_dropout=0.3,
        output_dropout=0.3,
        variational=True,
        weight_dropout=0.3 if cell in WITH_MATRIX else 0.0,
        zoneout=0.2,
        zoneout_memory=0.2 if cell in WITH_MEMORY else 0.0,
        initial_state="random",
    )


@pytest.mark.parametrize("cell", CELLS)
def test_eval_is_deterministic_with_every_regulariser_on(cell: CellName) -> None:
    encoder = RecurrentEncoder(D, H, cell=cell, num_layers=2, dropout=0.4, options=everything(cell))
    inputs = torch.randn(4, T, D)
    assert not torch.equal(encoder(inputs, RAGGED).outputs, encoder(inputs, RAGGED).outputs)
    encoder.eval()
    before = torch.get_rng_state()
    first, second = encoder(inputs, RAGGED), encoder(inputs, RAGGED)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.outputs, second.outputs)
    assert all(torch.equal(one, other) for one, other in zip(first.state, second.state, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("place", ["input_dropout", "output_dropout", "dropout", "weight_dropout", "zoneout"])
def test_each_place_drops_in_training(cell: CellName, place: str) -> None:
    if place == "weight_dropout" and cell not in WITH_MATRIX:
        with pytest.raises(UsageError, match=f"weight_dropout is for .*, not {cell}: leave it 0"):
            RecurrentEncoder(D, H, cell=cell, options=RecurrentOptions(weight_dropout=0.1))
        return
    options = RecurrentOptions() if place == "dropout" else RecurrentOptions(**{place: 0.5})  # type: ignore[arg-type]
    encoder = RecurrentEncoder(D, 16, cell=cell, num_layers=2, dropout=0.5 if place == "dropout" else 0.0,
                               options=options)  # fmt: skip
    inputs = torch.randn(4, T, D)
    assert not torch.equal(encoder(inputs, RAGGED).outputs, encoder(inputs, RAGGED).outputs)
    outputs = encoder(inputs, RAGGED).outputs
    assert outputs.masked_select(~length_mask(RAGGED, T).unsqueeze(2)).eq(0).all()


def test_variational_masks_are_one_for_all_steps() -> None:
    encoder = RecurrentEncoder(D, 64, options=RecurrentOptions(output_dropout=0.5, variational=True))
    encoded = encoder(torch.randn(4, T, D), FULL)
    assert encoded.undropped is not None
    dropped = encoded.outputs == 0
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0.3 < float(dropped.float().mean()) < 0.7
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(encoded.outputs[~dropped], 2.0 * encoded.undropped[~dropped], rtol=1e-6, atol=0)
    free = (
        RecurrentEncoder(D, 64, options=RecurrentOptions(output_dropout=0.5))(torch.randn(4, T, D), FULL).outputs == 0
    )
    assert not torch.equal(free, free[:, :1].expand_as(free))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu", "peephole_lstm"])
def test_a_dropped_weight_is_the_cell_with_that_weight(cell: CellName) -> None:
    """In training each element is zero or scaled, one draw a pass; the parameter and its name stay as they are."""
    options = RecurrentOptions(weight_dropout=0.5)
    encoder = build(cell, options=options)
    plain = build(cell)
    assert encoder.state_dict().keys() == plain.state_dict().keys()
    layer = encoder.layers[0]
    torch.manual_seed(5)
    drawn = layer.draw_weight()  # type: ignore[operator]
    (weight, *_) = layer.recurrent_weights()  # type: ignore[operator]
    zero = drawn == 0
    assert 0.2 < float(zero.float().mean()) < 0.8
    torch.testing.assert_close(drawn[~zero], 2.0 * weight[~zero], **EXACT)
    plain.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        plain.layers[0].recurrent_weights()[0].copy_(drawn)  # type: ignore[operator]
    inputs = torch.randn(4, T, D, dtype=torch.float64)
    for lengths in (RAGGED, FULL):
        torch.manual_seed(5)
        torch.testing.assert_close(encoder(inputs, lengths).outputs, plain(inputs, lengths).outputs, **EXACT)


def test_zoneout_keeps_some_units_for_a_step() -> None:
    encoder = RecurrentEncoder(D, 64, options=RecurrentOptions(zoneout=0.3, zoneout_memory=0.6))
    start = (torch.randn(4, 1, 64), torch.randn(4, 1, 64))
    encoded = encoder(torch.randn(4, 1, D), torch.ones(4, dtype=torch.long), start)
    for place, share in ((0, 0.3), (1, 0.6)):
        kept = (encoded.state[place] == start[place]).float().mean()
        assert abs(float(kept) - share) < 0.12, "256 draws: four deviations"


@pytest.mark.parametrize("cell", CELLS)
def test_condition_enters_every_step(cell: CellName) -> None:
    """One vector a sequence is the same as that vector at every step; padding of one has no part in anything."""
    encoder = build(cell, layers=2, both=True, condition=2).eval()
    inputs, condition = torch.randn(4, T, D, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    once = encoder(inputs, RAGGED, condition=condition)
    repeated = condition.unsqueeze(1).expand(-1, T, -1).clone()
    repeated[~length_mask(RAGGED, T)] = float("nan")
    torch.testing.assert_close(once.outputs, encoder(inputs, RAGGED, condition=repeated).outputs, **EXACT)
    none = encoder(inputs, RAGGED).outputs
    assert torch.equal(none, encoder(inputs, RAGGED, condition=torch.zeros(4, 2)).outputs)
    assert not torch.allclose(none, once.outputs)
    joined = build(cell, layers=2, both=True).eval()
    assert joined.layers[0].num_states == encoder.layers[0].num_states
    with pytest.raises(UsageError, match=r"the condition has shape \(4, 3\), allowed are \(4, 2\) and \(4, 6, 2\)"):
        encoder(inputs, RAGGED, condition=torch.zeros(4, 3))
    with pytest.raises(UsageError, match="a condition is given, but this encoder has condition_size 0"):
        joined(inputs, RAGGED, condition=condition)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_residual_adds_the_input_of_each_layer_of_equal_size(cell: CellName, both: bool) -> None:
    residual = build(cell, layers=3, both=both, options=RecurrentOptions(residual=True)).eval()
    plain = [build(cell, both=both).eval() for _ in range(3)]
    inputs, directions = torch.randn(4, T, D, dtype=torch.float64), 2 if both else 1
    expected = inputs
    for number, each in enumerate(plain):
        size = each.output_size if number else D
        stage = RecurrentEncoder(size, H, cell=cell, bidirectional=both).double().eval()
        for direction in range(directions):
            stage.layers[direction].load_state_dict(residual.layers[number * directions + direction].state_dict())
        above = stage(expected, RAGGED).outputs
        expected = above + expected if number else above
    torch.testing.assert_close(residual(inputs, RAGGED).outputs, expected, **EXACT)


def test_residual_needs_equal_sizes() -> None:
    with pytest.raises(UsageError, match="residual needs a layer whose input and output have the same size"):
        RecurrentEncoder(D, H, options=RecurrentOptions(residual=True))
    RecurrentEncoder(H, H, options=RecurrentOptions(residual=True))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "batchnorm_lstm"])
def test_checkpointing_over_time_changes_no_number(cell: CellName, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, states and gradients; with zoneout the masks of a chunk are the same when it is computed again."""
    options = replace(everything(cell), initial_state="zero")
    encoder = build(cell, layers=2, both=True, options=options)
    inputs = torch.randn(4, T, D, dtype=torch.float64, requires_grad=True)

    def run(size: int | None) -> list[Tensor]:
        encoder.options = replace(encoder.options, checkpoint_steps=size)
        torch.manual_seed(7)
        encoded = encoder(inputs, RAGGED)
        parts = (encoded.outputs, *encoded.state)
        return [*parts, *slopes(parts, [inputs, *encoder.parameters()])]

    first, second = run(2), run(2)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    mask = torch.full((1, 4, H), 0.3, dtype=torch.float64)  # the same at every step and for every row

    def draw(self: Zoneout, steps: int, start: Tensor) -> Tensor | None:
        return mask if self.p else None

    monkeypatch.setattr(Zoneout, "draw", draw)
    torch.testing.assert_close(run(2), run(None), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("cell", "zoneout"), [("peephole_lstm", 0.0), ("peephole_lstm", 0.2), ("layernorm_gru", 0.0), ("mingru", 0.0)]
)
def test_checkpointing_keeps_less(cell: CellName, zoneout: float) -> None:
    """What is alive between forward and backward: what autograd saved, and what Python's collector can reach."""

    def alive() -> int:
        gc.collect()
        tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
        found = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
        return sum(found.values())

    def kept(size: int | None) -> int:
        options = RecurrentOptions(checkpoint_steps=size, zoneout=zoneout)
        encoder = RecurrentEncoder(8, 64, cell=cell, options=options)
        inputs = torch.randn(4, 400, 8, requires_grad=True)
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        before = alive()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = encoder(inputs, torch.full((4,), 400)).outputs
        held = alive() - before
        outputs.sum().backward()
        return held + sum(seen.values())

    assert kept(20) < 0.5 * kept(None)


class TestInitialState:
    """What a sequence starts from when no state is handed in."""

    def encoder(self, kind: Any, *, cell: CellName = "lstm", both: bool = True) -> RecurrentEncoder:
        return build(cell, layers=2, both=both, options=RecurrentOptions(initial_state=kind))

    @pytest.mark.parametrize("cell", CELLS)
    def test_learned_is_a_parameter(self, cell: CellName) -> None:
        encoder = self.encoder("learned", cell=cell).eval()
        value = encoder.initial.value
        assert value.shape == (encoder.num_states, 4, H)
        state = tuple(part.expand(4, -1, -1) for part in value)
        inputs = torch.randn(4, T, D, dtype=torch.float64)
        encoded = encoder(inputs, RAGGED)
        assert torch.equal(encoded.outputs, encoder(inputs, RAGGED, state).outputs)
        (slope,) = torch.autograd.grad(encoded.outputs.square().sum(), [value])
        assert slope.abs().sum(dim=(1, 2)).all()
        assert torch.equal(encoded.state[0][2], value[0])  # an empty row keeps it
        assert not RecurrentEncoder(D, H, options=RecurrentOptions(initial_state="learned")).initial.value.any()

    def test_random_is_drawn_in_training_alone(self) -> None:
        encoder = self.encoder("random")
        inputs = torch.randn(4, T, D, dtype=torch.float64)
        assert not torch.equal(encoder(inputs, FULL).outputs, encoder(inputs, FULL).outputs)
        drawn = encoder.initial(torch.randn(500, T, D), FULL)
        assert [part.shape for part in drawn] == [(500, 4, H)] * 2
        assert abs(float(drawn[0].std()) - 0.1) < 0.01
        plain = build("lstm", layers=2, both=True)
        plain.load_state_dict(encoder.state_dict())
        assert torch.equal(encoder.eval()(inputs, FULL).outputs, plain(inputs, FULL).outputs)

    @pytest.mark.parametrize("both", [False, True])
    def test_input_is_a_layer_on_the_first_step_of_each_direction(self, both: bool) -> None:
        encoder = self.encoder("input", both=both)
        inputs = torch.randn(4, T, D, dtype=torch.float64)
        first, last = inputs[:, 0], reverse_valid(inputs, RAGGED)[:, 0]
        maps = [layer(step).tanh() for layer, step in zip(encoder.initial.project, (first, last), strict=False)]
        states = torch.stack([each.unflatten(1, (2, 2, H)) for each in maps], dim=3).flatten(2, 3)  # layer, direction
        expected = encoder(inputs, RAGGED, (states[:, 0], states[:, 1])).outputs
        torch.testing.assert_close(encoder(inputs, RAGGED).outputs, expected, **EXACT)

    def test_a_state_that_is_handed_in_goes_first(self) -> None:
        state = start_state(build("lstm", layers=2, both=True), 4)
        inputs, found = torch.randn(4, T, D, dtype=torch.float64), []
        for kind in ("zero", "random", "learned", "input"):
            torch.manual_seed(9)
            encoder = RecurrentEncoder(D, H, num_layers=2, bidirectional=True,
                                       options=RecurrentOptions(initial_state=kind)).double()  # fmt: skip
            found.append(encoder(inputs, RAGGED, state).outputs)
        assert all(torch.equal(each, found[0]) for each in found)


def bias_of(encoder: RecurrentEncoder) -> Tensor:
    layer = encoder.layers[0]
    return layer.rnn.bias_ih_l0 if isinstance(layer, FusedLayer) else layer.bias  # type: ignore[return-value]


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_weights_start_orthogonal_or_as_identity(cell: CellName) -> None:
    if cell in WITH_MATRIX:
        weight = RecurrentEncoder(D, H, cell=cell).recurrent_weights()[0]
        for gate in weight.split(H):
            torch.testing.assert_close(gate @ gate.t(), torch.eye(H), rtol=0, atol=1e-5)
    options = RecurrentOptions(recurrent_init="identity")
    if cell not in ("rnn_tanh", "rnn_relu", "rnn"):
        with pytest.raises(UsageError, match="recurrent_init is for rnn_tanh, rnn_relu, rnn, not"):
            RecurrentEncoder(D, H, cell=cell, options=options)
        return
    encoder = RecurrentEncoder(200, H, cell=cell, options=options)
    assert torch.equal(encoder.recurrent_weights()[0], torch.eye(H))
    weight_ih = next(parameter for name, parameter in encoder.named_parameters() if "weight_ih" in name)
    assert 0.0005 < float(weight_ih.std()) < 0.002


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "rnn"])
def test_vanilla_cells_may_start_as_those_of_torch(cell: CellName) -> None:
    torch.manual_seed(0)
    ours = RecurrentEncoder(40, 25, cell=cell, num_layers=2, options=RecurrentOptions(recurrent_init="uniform"))
    for name, parameter in ours.named_parameters():
        # Uniform within 1 / sqrt(25): the largest of many comes close to it, and the deviation is it over sqrt(3).
        assert 0.16 < float(parameter.abs().max()) <= 0.2, name
        assert 0.08 < float(parameter.std()) < 0.15, name


@pytest.mark.parametrize("cell", [*WITH_MEMORY, "minlstm"])
def test_forget_gates_start_open(cell: CellName) -> None:
    place = 0 if cell == "minlstm" else 1
    for options, value in ((RecurrentOptions(), 1.0), (RecurrentOptions(forget_bias=2.5), 2.5)):
        blocks = bias_of(RecurrentEncoder(D, H, cell=cell, options=options)).split(H)
        assert [set(block.tolist()) for block in blocks] == [
            {value} if number == place else {0.0} for number in range(len(blocks))
        ]


@pytest.mark.parametrize("cell", [cell for cell in CELLS if "rnn" not in cell])
def test_chrono_gates_keep_for_up_to_so_many_steps(cell: CellName) -> None:
    """A unit's time constant, one over what it forgets a step, is between 2 and the number of steps, uniformly."""
    steps = 200
    encoder = RecurrentEncoder(D, 2000, cell=cell, options=RecurrentOptions(chrono_steps=steps))
    blocks = bias_of(encoder).double().split(2000)
    kind = cell.rpartition("_")[2]
    keep = {
        "lstm": lambda: torch.sigmoid(blocks[1]),
        "gru": lambda: torch.sigmoid(blocks[1]),
        "mingru": lambda: 1.0 - torch.sigmoid(blocks[0]),
        "minlstm": lambda: torch.sigmoid(blocks[0]) / (torch.sigmoid(blocks[0]) + torch.sigmoid(blocks[1])),
    }[kind]()
    constants = 1.0 / (1.0 - keep)
    assert 2.0 <= float(constants.min()) < 5.0
    assert steps - 5 < float(constants.max()) <= steps
    assert abs(float(constants.mean()) - (steps / 2 + 1)) < 6.0
    if kind == "lstm":
        assert torch.equal(blocks[0], -blocks[1])


def test_penalties_are_means_over_valid_steps() -> None:
    outputs, lengths = torch.randn(3, 5, 2, dtype=torch.float64), torch.tensor([5, 1, 3])
    outputs[1, 1:], outputs[2, 3:] = float("nan"), float("inf")
    valid = torch.cat([outputs[0], outputs[1, :1], outputs[2, :3]])
    steps = torch.cat([outputs[0].diff(dim=0), outputs[2, :3].diff(dim=0)])
    torch.testing.assert_close(activation_penalty(outputs, lengths), valid.square().mean(), **EXACT)
    torch.testing.assert_close(temporal_penalty(outputs, lengths), steps.square().mean(), **EXACT)
    assert float(temporal_penalty(outputs[:, :1], torch.ones(3, dtype=torch.long))) == 0.0
    assert float(activation_penalty(outputs, torch.zeros(3, dtype=torch.long))) == 0.0


def test_penalty_weighs_dropped_outputs_and_raw_changes() -> None:
    options = RecurrentOptions(activation_penalty=2.0, temporal_penalty=3.0, output_dropout=0.5)
    encoder = RecurrentEncoder(D, H, options=options)
    encoded = encoder(torch.randn(4, T, D), RAGGED)
    assert encoded.undropped is not None
    expected = 2.0 * activation_penalty(encoded.outputs, RAGGED) + 3.0 * temporal_penalty(encoded.undropped, RAGGED)
    torch.testing.assert_close(encoder.penalty(encoded), expected)
    assert encoder.penalty(encoded).requires_grad
    plain = RecurrentEncoder(D, H)
    assert float(plain.penalty(plain(torch.randn(4, T, D), RAGGED))) == 0.0


def test_recurrent_weights_of_a_model_are_found_once() -> None:
    shared = RecurrentEncoder(D, H, cell="peephole_lstm", num_layers=2)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.Linear(2, 2)), "c": RecurrentEncoder(D, H)})
    shapes = [tuple(weight.shape) for weight in recurrent_weights(model)]
    assert shapes == [(4 * H, H), (3, H), (4 * H, H), (3, H), (4 * H, H)]
    assert recurrent_weights(RecurrentEncoder(D, H, cell="mingru")) == []
