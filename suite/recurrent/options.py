"""Which recurrence, and everything that can be chosen around it; what a cell does not have is refused."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from suite.errors import UsageError
from suite.recurrent.fused import FusedCell

CellName = Literal[
    "rnn_tanh", "rnn_relu", "lstm", "gru", "rnn", "peephole_lstm", "layernorm_lstm", "layernorm_gru",
    "batchnorm_lstm", "indrnn", "mingru", "minlstm",
]  # fmt: skip
Activation = Literal["tanh", "relu", "leaky_relu", "elu", "gelu", "softsign", "sigmoid"]
InitialStateKind = Literal["zero", "random", "learned", "input"]
RecurrentInit = Literal["orthogonal", "identity", "uniform"]

CELLS: tuple[CellName, ...] = get_args(CellName)
FUSED: tuple[FusedCell, ...] = get_args(FusedCell)
VANILLA = ("rnn_tanh", "rnn_relu", "rnn", "indrnn")
MINIMAL = ("mingru", "minlstm")
WITH_MEMORY = ("lstm", "peephole_lstm", "layernorm_lstm", "batchnorm_lstm")
WITH_MATRIX = tuple(cell for cell in CELLS if cell not in ("indrnn", *MINIMAL))


@dataclass(frozen=True)
class RecurrentOptions:
    """What can be chosen around a cell.

    Args:
        activation: Of cells rnn (tanh if not given) and indrnn (relu if not given).
        residual: Add a layer's input to its output where both have the same size (the first layer's often has not).
        input_dropout: Probability of dropping an input feature of the first layer.
        output_dropout: Probability of dropping a feature of the last layer's output.
        variational: One dropout mask for all steps of a sequence (Gal and Ghahramani 2016), between layers too.
        weight_dropout: Probability of dropping a recurrent weight, drawn once a pass (Merity et al. 2018).
        zoneout: Probability that a hidden unit keeps its value for a step (Krueger et al. 2017); its mean in eval.
        zoneout_memory: The same for an LSTM's cell state.
        activation_penalty: Weight of the outputs' mean square in ``RecurrentEncoder.penalty`` (Merity et al. 2017).
        temporal_penalty: Weight of the mean square of what changes between steps, likewise.
        recurrent_init: Recurrent matrices at the start: orthogonal, or identity with small input weights (Le, Jaitly
            and Hinton 2015), or all weights and biases uniform as in torch.nn, for vanilla cells.
        forget_bias: Forget gates' bias at the start, for LSTM kinds; 1 if not given.
        chrono_steps: Gate biases for dependencies of up to so many steps (Tallec and Ollivier 2018).
        initial_state: Without a state handed in: zero, random (zero in eval), learned, or from the first input.
        statistics_steps: Steps that batchnorm_lstm keeps statistics of their own for; later ones share the last.
        checkpoint_steps: Keep activations for so many steps only and compute them again in the backward pass.
    """

    activation: Activation | None = None
    residual: bool = False
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    variational: bool = False
    weight_dropout: float = 0.0
    zoneout: float = 0.0
    zoneout_memory: float = 0.0
    activation_penalty: float = 0.0
    temporal_penalty: float = 0.0
    recurrent_init: RecurrentInit = "orthogonal"
    forget_bias: float | None = None
    chrono_steps: int | None = None
    initial_state: InitialStateKind = "zero"
    statistics_steps: int = 100
    checkpoint_steps: int | None = None

    def check(self, cell: str) -> None:
        """Refuse values that mean nothing, and what ``cell`` does not have.

        Raises:
            UsageError: naming the option.
        """
        if cell not in CELLS:
            raise UsageError(f"cell is {cell}, allowed are {', '.join(CELLS)}")
        self._check_values()
        for field in fields(self):
            allowed = CELLS_WITH.get(field.name)
            if allowed is not None and cell not in allowed and getattr(self, field.name) != field.default:
                raise UsageError(f"{field.name} is for {', '.join(allowed)}, not {cell}: leave it {field.default}")
        if self.chrono_steps is not None and self.forget_bias is not None:
            raise UsageError("chrono_steps sets the forget gates' bias itself: leave forget_bias out")

    def _check_values(self) -> None:
        for name in ("input_dropout", "output_dropout", "weight_dropout", "zoneout", "zoneout_memory"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}, allowed is 0 up to but not including 1")
        for name in ("activation_penalty", "temporal_penalty"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}, allowed is 0 or more")
        for name, low in (("chrono_steps", 3), ("statistics_steps", 1), ("checkpoint_steps", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"{name} is {value}, allowed is {low} or more")
        kinds = {"activation": Activation, "initial_state": InitialStateKind, "recurrent_init": RecurrentInit}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(f"{name} is {value}, allowed are {', '.join(get_args(kind))}")


_GATED = tuple(cell for cell in CELLS if cell not in VANILLA)
CELLS_WITH: dict[str, tuple[str, ...]] = {
    "activation": ("rnn", "indrnn"),
    "weight_dropout": WITH_MATRIX,
    "zoneout_memory": WITH_MEMORY,
    "recurrent_init": ("rnn_tanh", "rnn_relu", "rnn"),
    "forget_bias": (*WITH_MEMORY, "minlstm"),
    "chrono_steps": _GATED,
    "statistics_steps": ("batchnorm_lstm",),
    # Steps that are computed again would meet other running statistics than the first time.
    "checkpoint_steps": tuple(cell for cell in CELLS if cell != "batchnorm_lstm"),
}
