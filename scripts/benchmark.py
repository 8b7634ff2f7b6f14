"""Measure speed: ``python scripts/benchmark.py --domain translation``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("benchmark", available=available, load=load))
