"""Figures of a checkpoint: ``python scripts/evaluate.py --checkpoint RUN_OR_FILE``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("evaluate", available=available, load=load))
