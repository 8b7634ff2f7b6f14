"""The toy domain's own script: ``python -m tests.toy.command VERB --domain toy ...``."""

import sys
from pathlib import Path

from suite.cli import main
from tests.toy import available, load

CONFIGS = Path(__file__).parent / "configs"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], available=available, load=load, configs=CONFIGS, argv=sys.argv[2:]))
