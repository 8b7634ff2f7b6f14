"""Train and test once for each value of a setting: ``compare.py --domain NAME --setting model.x --values A B``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("compare", available=available, load=load))
