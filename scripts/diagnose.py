"""Where a recipe spends its time and memory: ``python scripts/diagnose.py --domain translation``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("diagnose", available=available, load=load))
