"""The encoder as a group of settings: the flags ``--model.encoder.*`` of every domain."""

from dataclasses import dataclass, field
from typing import ClassVar

from suite.effects import Declared, Needs, one_of
from suite.errors import said_of
from suite.recurrent.encoder import RecurrentEncoder
from suite.recurrent.options import CELLS_WITH, CellName, RecurrentOptions


@dataclass(frozen=True)
class EncoderConfig:
    """The recurrent encoder.

    Args:
        cell: Which recurrence.
        hidden_size: Features of the state in each direction.
        num_layers: Layers on top of each other.
        bidirectional: Read the sequence backwards too.
        options: What else can be chosen around the cell.
    """

    only_with: ClassVar[Declared] = {
        **{f"options.{name}": one_of("cell", *cells) for name, cells in CELLS_WITH.items()},
        "options.variational": Needs(
            ("num_layers", "model.dropout", "options.input_dropout", "options.output_dropout"),
            lambda layers, dropout, first, last: bool(first or last or (layers > 1 and dropout)),
            "set {2} or {3} above 0",
        ),
    }

    cell: CellName = "lstm"
    hidden_size: int = 256
    num_layers: int = 1
    bidirectional: bool = True
    options: RecurrentOptions = field(default_factory=RecurrentOptions)

    def build(self, input_size: int, *, dropout: float = 0.0) -> RecurrentEncoder:
        """An encoder of these settings; ``dropout`` stands between its layers.

        Raises:
            UsageError: as ``RecurrentEncoder``, beginning with the name of this group of settings.
        """
        with said_of("model.encoder"):
            return RecurrentEncoder(
                input_size,
                self.hidden_size,
                cell=self.cell,
                num_layers=self.num_layers,
                bidirectional=self.bidirectional,
                dropout=dropout,
                options=self.options,
            )
