"""Recurrent encoders; useful without Lightning: ``from suite.recurrent import RecurrentEncoder``."""

from suite.recurrent.config import EncoderConfig
from suite.recurrent.encoder import Encoded, RecurrentEncoder
from suite.recurrent.fused import FusedCell, State

__all__ = ["Encoded", "EncoderConfig", "FusedCell", "RecurrentEncoder", "State"]
