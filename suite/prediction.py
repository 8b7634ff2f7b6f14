"""``predict``: a domain's inputs (lines of text, unless its data module says otherwise), results in order."""

import json
from collections.abc import Sequence
from typing import Literal

from suite.cli import Domains
from suite.console import notice, report
from suite.domain import Task
from suite.errors import DataError
from suite.gather import gather_results
from suite.parser import SuiteParser
from suite.restore import restore


def predict(arguments: Sequence[str], domains: Domains) -> None:
    """Predict each input with ``--checkpoint``: one result an input, in order.

    Raises:
        DataError: after all results, if some of them are an ``error`` in place of a prediction.
    """
    module, data, trainer, options = restore("predict", arguments, domains, add=_add)
    inputs = data.prediction_inputs(options, processes=trainer.world_size)
    if not inputs:  # of a file as of standard input: a pipe of nothing gives nothing, and is no error
        notice("predict: the input is empty, so nothing is predicted")
        return
    data.set_inputs(inputs)
    batches = trainer.predict(module, datamodule=data) or []
    results = gather_results([result for batch in batches for result in batch])
    for result in results:
        if options.format == "jsonl":
            report(json.dumps(result, ensure_ascii=False))
        else:
            for line in module.lines(result):
                report(line)
    for note in module.prediction_notes(results):
        notice(note)
    if failed := sum("error" in result for result in results):
        raise DataError(f"{failed} of {len(results)} input(s) gave no prediction: the line of each says why")


def _add(parser: SuiteParser, task: Task) -> None:
    task.data.add_prediction_arguments(parser)
    parser.add_argument("--format", type=Literal["text", "jsonl"], default="text", help="Lines of text, or of JSON.")
