"""``predict``: inputs from a file or standard input, results to standard output, in order."""

import codecs
import json
import sys
from collections.abc import Sequence
from typing import Literal

from suite.cli import Domains
from suite.console import report
from suite.errors import DataError, UsageError
from suite.gather import gather_results
from suite.parser import SuiteParser
from suite.restore import restore
from suite.sources import read_lines


def predict(arguments: Sequence[str], domains: Domains) -> None:
    """Predict each line of FILE, or of standard input, with ``--checkpoint``."""
    module, data, trainer, options = restore("predict", arguments, domains, add=_add)
    if options.file in (None, "-") and trainer.world_size > 1:
        raise UsageError("standard input is for one process: give a FILE, or --trainer.devices 1")
    inputs = read_lines(options.file) if options.file not in (None, "-") else _standard_input()
    if not inputs:
        return
    data.set_inputs(inputs)
    batches = trainer.predict(module, datamodule=data) or []
    for result in gather_results([result for batch in batches for result in batch]):
        if options.format == "jsonl":
            report(json.dumps(result, ensure_ascii=False))
        else:
            for line in module.lines(result):
                report(line)


def _add(parser: SuiteParser) -> None:
    parser.add_argument("file", nargs="?", type=str, default=None, help="Inputs, one a line; standard input without.")
    parser.add_argument("--format", type=Literal["text", "jsonl"], default="text", help="Lines of text, or of JSON.")


def _standard_input() -> list[str]:
    """Lines of standard input; as in files, a UTF-8 byte order mark is dropped.

    Raises:
        DataError: bytes that are not UTF-8, naming the line.
    """
    lines = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"standard input, line {number}: not UTF-8 (byte {error.start + 1}): convert it") from None
    return texts
