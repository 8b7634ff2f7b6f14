"""``predict``: inputs from a file or standard input, results to standard output, in order."""

import json
import sys
from collections.abc import Sequence

from suite.cli import Domains
from suite.console import report
from suite.parser import SuiteParser
from suite.restore import restore
from suite.sources import read_lines


def predict(arguments: Sequence[str], domains: Domains) -> None:
    """Predict each line of FILE, or of standard input, with ``--checkpoint``."""
    module, data, trainer, options = restore("predict", arguments, domains, add=_add)
    inputs = read_lines(options.file) if options.file not in (None, "-") else _standard_input()
    if not inputs:
        return
    data.set_inputs(inputs)
    batches = trainer.predict(module, datamodule=data) or []
    results = sorted((result for batch in batches for result in batch), key=lambda each: each["index"])
    for result in results:
        if options.format == "jsonl":
            report(json.dumps(result, ensure_ascii=False))
        else:
            for line in module.lines(result):
                report(line)
