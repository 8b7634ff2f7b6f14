"""How a run ends: the best checkpoint is tested, and a person reads what came out and what to do next."""

import math
import shlex
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from suite.checkpoint import RECORD_KEY, read, weights_of
from suite.console import from_here, one_line, report
from suite.data import SuiteDataModule
from suite.gather import gather_results
from suite.limits import partial_label, share_of_batches
from suite.module import SuiteModule
from suite.run_checkpoints import RunCheckpoints
from suite.run_folder import CHECKPOINTS
from suite.run_folder import SAMPLES as SAMPLES_FOLDER
from suite.sharding import load_weights
from suite.tracking import Mode, closing_lines, label_partial

SAMPLES = 5


class Outcome:
    """Test metrics of the best checkpoint, a few results in the order of the data, CPU ``threads`` of the training.

    ``validation`` has the metrics of the validation that made this checkpoint the best, ``monitored`` the name and
    direction (min or max) of the one that decided. ``partial`` is the label of a test that did not see all batches.
    """

    def __init__(self, figures: dict[str, float], samples: list[dict[str, Any]], best: Path | None) -> None:
        self.figures, self.samples, self.best = figures, samples, best
        self.threads = 1
        self.validation: dict[str, float] = {}
        self.monitored: tuple[str, str] | None = None
        self.partial: str | None = None

    def take_validation(self, record: dict[str, Any]) -> None:
        """Take the validation from the ``record`` of the checkpoint; earlier versions recorded one metric only."""
        monitored = record.get("monitored")
        if not monitored or monitored["value"] is None:
            return
        self.monitored = monitored["name"], monitored["mode"]
        self.validation = {monitored["name"]: monitored["value"], **record.get("validation", {})}

    @property
    def score(self) -> float:
        """The value of the monitored metric; NaN without a validation."""
        return math.nan if self.monitored is None else self.validation[self.monitored[0]]


def test_best(trainer: Trainer, module: SuiteModule, data: SuiteDataModule, folder: Path) -> Outcome:
    """Load the best checkpoint of a run, without validations the last one, and evaluate it on the test split."""
    best, last = (folder / CHECKPOINTS / name for name in (RunCheckpoints.BEST, RunCheckpoints.LAST))
    found = best if best.is_file() else None
    trainer.strategy.barrier("test")
    tested = found or (last if last.is_file() else None)
    record: dict[str, Any] = {}
    if tested:  # the last one too: its moving average is what evaluate and predict would take
        checkpoint = read(tested)
        record = checkpoint[RECORD_KEY]
        load_weights(module, weights_of(checkpoint))
    module.kept, module.kept_below = [], SAMPLES
    trainer.test(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        module.write_evaluation("test", folder / SAMPLES_FOLDER, "test")
    samples, module.kept, module.kept_below = gather_results(module.kept)[:SAMPLES], None, None
    outcome = Outcome(test_figures(trainer), samples, found)
    if found:
        outcome.take_validation(record)
    outcome.partial = partial_label(trainer, data, "test")
    if outcome.partial is not None:
        used, total = share_of_batches(trainer, data, "test")
        label_partial(trainer, label=outcome.partial, share=used / total)
    return outcome


def test_figures(trainer: Trainer) -> dict[str, float]:
    """The figures of the test that ``trainer`` has just run, by name."""
    found = trainer.callback_metrics.items()
    return {name.removeprefix("test/"): float(value) for name, value in found if name.startswith("test/")}


def figure_lines(figures: dict[str, float], module: SuiteModule) -> list[str]:
    """Figures by name, with the signature of those that have variants."""
    signatures = module.signatures()
    width = max(12, *map(len, figures)) if figures else 12
    return [
        f"  {name:<{width}} {value:10.4f}" + (f"   {signatures[name]}" if name in signatures else "")
        for name, value in figures.items()
    ]


def report_outcome(outcome: Outcome, module: SuiteModule, *, folder: Path, mode: Mode, domain: str, usage: str) -> None:
    """Print how the run ended; ``usage`` is what ``predict`` is called with beside the checkpoint."""
    report(f"\nRun folder       {from_here(folder)}")
    report(f"Best checkpoint  {from_here(outcome.best) if outcome.best else 'none: no validation was run'}")
    report("\nTest" if outcome.partial is None else f"\nTest ({outcome.partial})")
    for line in figure_lines(outcome.figures, module):
        report(line)
    for line in module.evaluation_lines("test"):
        report(line)
    for sample in outcome.samples:
        texts = module.shown(sample)
        if texts:
            report("")
        for name, value in texts.items():
            report(f"  {name:<12} {one_line(value)}")
    report("")
    for line in closing_lines(mode, folder):
        report(line)
    checkpoint = from_here(outcome.best or folder)
    report("\nNext")
    report(f"  {command('evaluate', '--checkpoint', checkpoint, '--output', 'results.jsonl')}")
    report(f"  {command('predict', '--checkpoint', checkpoint)} {usage}")
    report(f"  {command('fit', '--domain', domain, '--help')}")


def command(verb: str, *words: str) -> str:
    """A command of the suite as it is to be typed here."""
    python = from_here(Path(sys.executable), resolve=False)
    return shlex.join([python, from_here(Path(__file__).parent.parent / "scripts" / f"{verb}.py"), *words])
