"""What the tests of fine-tuning share: a checkpoint of each domain to begin with."""

import hashlib
from pathlib import Path

import pytest

import domains
from suite.cli import CONFIGS
from tests import toy
from tests.commands import QUIET, TOY_CONFIGS, Ran, run, shared


def run_in(domain: str, verb: str, *argv: object) -> Ran:
    """Run a verb of training in a domain, the toy one too."""
    seam, configs = (toy, TOY_CONFIGS) if domain == "toy" else (domains, CONFIGS)
    return run(verb, "--domain", domain, *argv, application=seam, configs=configs)


def source_of(domain: str, flags: list[str]) -> Path:
    """The best checkpoint of one epoch with ``flags``, trained once in a test session."""

    def train(folder: Path) -> None:
        ran = run_in(domain, "fit", *QUIET, *flags, "--trainer.max_epochs=1", "--runs", folder, "--name", "source")
        if ran.status:
            pytest.fail(f"the source of {domain} failed: {ran.err}")

    name = f"source-{domain}-{hashlib.sha256(repr(flags).encode()).hexdigest()[:8]}"
    return shared(name, train) / domain / "source" / "checkpoints" / "best.ckpt"
