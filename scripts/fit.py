"""Train a model: ``python scripts/fit.py --domain translation``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("fit", available=available, load=load))
