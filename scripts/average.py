"""Average checkpoints of a run: ``python scripts/average.py RUN --last 5``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("average", available=available, load=load))
