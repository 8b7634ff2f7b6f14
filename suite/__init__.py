"""The shared core: recurrent encoders, attention, decoding, data, training services and tracking."""

__version__ = "0.1.0"
