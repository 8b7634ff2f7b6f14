"""``evaluate``: the figures of a checkpoint on a split, and what it generated, line by line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.cli import Domains
from suite.closing import figure_lines, test_figures
from suite.console import is_first_process, notice, report
from suite.domain import Task
from suite.gather import gather_results
from suite.parser import SuiteParser
from suite.restore import restore_with_origin
from suite.result_file import ResultFile, check_output
from suite.trained_data import check_evaluated


def evaluate(arguments: Sequence[str], domains: Domains) -> None:
    """Evaluate ``--checkpoint`` on ``--data.split``; ``--output`` keeps each result as a line of JSON.

    Raises:
        SuiteError: no such split, no folder for the output, a damaged checkpoint, data that cannot be read, or data
            that changed since training.
    """
    restored, origin = restore_with_origin("evaluate", arguments, domains, add=_add)
    module, data, trainer, options = restored
    if options.output is not None:
        check_output(options.output, inputs=[options.checkpoint])
    data.test_split = options.split
    lines = check_evaluated(origin.trained, data, options.split, asked=origin.asked, named=origin.named)
    data.examples(options.split)
    module.kept = []
    trainer.test(module, datamodule=data, verbose=False)
    report(f"{options.split}: {len(data.examples(options.split).lengths):,} examples")
    for line in lines:
        report(line)
    for line in figure_lines(test_figures(trainer), module):
        report(line)
    for line in module.evaluation_lines("test"):
        report(line)
    results = gather_results(module.kept)
    for note in module.prediction_notes(results):
        notice(note)
    if options.output is not None and is_first_process():
        output = Path(options.output)
        write_results(output, results)
        written = [output, *module.write_evaluation("test", output.parent, output.stem)]
        report(f"Written to {', '.join(map(str, written))}")


def _add(parser: SuiteParser, task: Task) -> None:
    parser.add_argument("--data.split", dest="split", type=str, default="test", help="Which split of the data.")
    parser.add_argument("--output", type=str | None, default=None, help="File for the results, one JSON line each.")


def write_results(path: Path, results: list[dict[str, Any]]) -> None:
    """Write results as JSON lines.

    Raises:
        SuiteError: the file cannot be written.
    """
    with ResultFile(str(path)) as file:
        for result in results:
            file.write([json.dumps(result, ensure_ascii=False)])
