"""What a cell does not have, and what does not fit it, is refused with one line."""

import math
from typing import Any

import pytest
import torch

from suite.errors import UsageError
from suite.recurrent import CELLS, CellName, RecurrentEncoder, RecurrentOptions
from suite.recurrent.config import EncoderConfig
from tests.test_recurrent_cells import RAGGED, D, H, T


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("nope", {}, "cell is nope, allowed are rnn_tanh, "),
        ("lstm", {"activation": "relu"}, "activation is for rnn, indrnn, not lstm"),
        ("rnn_tanh", {"activation": "tanh"}, "activation is for rnn, indrnn, not rnn_tanh"),
        ("rnn", {"activation": "swish"}, "activation is swish, allowed are tanh, relu"),
        ("gru", {"zoneout_memory": 0.1}, "zoneout_memory is for lstm, .*, not gru"),
        ("gru", {"forget_bias": 0.0}, "forget_bias is for lstm, .*, not gru"),
        ("rnn_relu", {"chrono_steps": 10}, "chrono_steps is for lstm, .*, not rnn_relu"),
        ("lstm", {"chrono_steps": 10, "forget_bias": 1.0}, "chrono_steps sets the forget gates' bias itself"),
        ("lstm", {"chrono_steps": 2}, "chrono_steps is 2, allowed is 3 or more"),
        ("lstm", {"statistics_steps": 7}, "statistics_steps is for batchnorm_lstm, not lstm"),
        ("batchnorm_lstm", {"statistics_steps": 0}, "statistics_steps is 0, allowed is 1 or more"),
        ("lstm", {"zoneout": 1.0}, r"zoneout is 1\.0, allowed is 0 up to but not including 1"),
        ("lstm", {"zoneout": math.nan}, "zoneout is nan"),
        ("lstm", {"input_dropout": -0.1}, r"input_dropout is -0\.1"),
        ("lstm", {"temporal_penalty": -1.0}, r"temporal_penalty is -1\.0"),
        ("batchnorm_lstm", {"checkpoint_steps": 5}, "checkpoint_steps is for rnn_tanh, .*, not batchnorm_lstm"),
        ("lstm", {"checkpoint_steps": 0}, "checkpoint_steps is 0, allowed is 1 or more"),
        ("lstm", {"initial_state": "ones"}, "initial_state is ones, allowed are zero, random, learned, input"),
    ],
)
def test_refuses_what_a_cell_does_not_have(cell: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RecurrentEncoder(D, H, cell=cell, options=RecurrentOptions(**options))


@pytest.mark.parametrize("cell", CELLS)
def test_refuses_inputs_and_states_that_do_not_fit(cell: CellName) -> None:
    encoder = RecurrentEncoder(D, H, cell=cell, num_layers=2)
    inputs, state = torch.randn(4, T, D), tuple(torch.zeros(4, 2, H) for _ in range(encoder.num_states))
    for wrong in (torch.ones(4, T, D, dtype=torch.long), torch.randn(4, T, D + 1), torch.randn(4, D)):
        with pytest.raises(UsageError, match=r"inputs are .*, expected \(B, T, 3\) of a floating type"):
            encoder(wrong, RAGGED)
    with pytest.raises(UsageError, match="lengths are float32, expected whole numbers"):
        encoder(inputs, RAGGED.float())
    with pytest.raises(UsageError, match="lengths reach 7"):
        encoder(inputs, torch.tensor([1, 7, 2, 3]))
    for wrong_state in ((*state, state[0]), tuple(part[:, :1] for part in state), state[1:], (state[0][..., :1],)):
        with pytest.raises(UsageError, match="the state has shapes"):
            encoder(inputs, RAGGED, wrong_state)
    with pytest.raises(UsageError, match=r"the state is of torch\.int64"):
        encoder(inputs, RAGGED, tuple(part.long() for part in state))


def test_a_state_of_another_cell_is_refused() -> None:
    inputs = torch.randn(4, T, D)
    gru, lstm = RecurrentEncoder(D, H, cell="gru"), RecurrentEncoder(D, H, cell="lstm")
    with pytest.raises(UsageError, match="expected 1 of"):
        gru(inputs, RAGGED, lstm(inputs, RAGGED).state)
    with pytest.raises(UsageError, match="expected 2 of"):
        lstm(inputs, RAGGED, gru(inputs, RAGGED).state)


def test_refuses_what_is_no_state_no_condition_and_no_beginning() -> None:
    encoder = RecurrentEncoder(D, H, cell="lstm", bidirectional=True, condition_size=2)
    inputs, state = torch.randn(4, T, D), tuple(torch.zeros(4, 2, H) for _ in range(2))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"begins": torch.tensor([True, False])}, r"begins has shape \(2,\), expected \(4,\) or \(4, 2\)"),
        ({"begins": torch.ones(4, 3, dtype=torch.bool)}, r"begins has shape \(4, 3\), expected \(4,\) or \(4, 2\)"),
        ({"begins": torch.ones(4, dtype=torch.long)}, "begins is int64, expected a torch.Tensor of bool"),
        ({"begins": [True] * 4}, "begins is a list, expected a torch.Tensor of bool"),
        ({"begins": torch.tensor([True]), "state": None}, r"begins has shape \(1,\)"),
        ({"state": (None, None)}, r"the state has a NoneType in it, expected 2 tensors of \(4, 2, "),
        ({"condition": [1.0, 2.0]}, "the condition is a list, expected a torch.Tensor"),
        ({"lengths": RAGGED.to(torch.complex64)}, "lengths are complex64, expected whole numbers"),
        ({"lengths": RAGGED.to(torch.uint16)}, "lengths are uint16, expected whole numbers"),
    ]
    for given, message in cases:
        with pytest.raises(UsageError, match=message):
            encoder(inputs, **{"lengths": RAGGED, "state": state, **given})


def test_settings_are_refused_by_the_name_of_their_part() -> None:
    config = EncoderConfig(options=RecurrentOptions(zoneout=1.5))
    with pytest.raises(UsageError, match=r"^model\.encoder: zoneout is 1\.5, allowed is 0 up to but not including 1$"):
        config.build(3)
