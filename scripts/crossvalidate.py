"""Train and test on each of several folds: ``python scripts/crossvalidate.py --domain text --folds 5``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("crossvalidate", available=available, load=load))
