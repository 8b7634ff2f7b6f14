"""Predict with a model: ``python scripts/predict.py --checkpoint RUN_OR_FILE ...``; --help says what it takes."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("predict", available=available, load=load))
