"""Recurrent encoders; useful without Lightning: ``from suite.recurrent import RecurrentEncoder``."""

from suite.recurrent.config import EncoderConfig
from suite.recurrent.encoder import Encoded, RecurrentEncoder
from suite.recurrent.fused import FusedCell
from suite.recurrent.options import CELLS, CELLS_WITH, CellName, RecurrentOptions
from suite.recurrent.unroll import State

__all__ = [
    "CELLS",
    "CELLS_WITH",
    "CellName",
    "Encoded",
    "EncoderConfig",
    "FusedCell",
    "RecurrentEncoder",
    "RecurrentOptions",
    "State",
]
