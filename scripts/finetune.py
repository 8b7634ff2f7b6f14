"""Train from another model's weights: ``python scripts/finetune.py --domain translation --source CHECKPOINT``."""

import sys

from domains import available, load
from suite.cli import main

if __name__ == "__main__":
    sys.exit(main("finetune", available=available, load=load))
