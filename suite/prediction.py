"""``predict``: a domain's inputs (lines of text, unless its data module says otherwise), results in order."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from suite.cli import Domains
from suite.console import is_first_process, notice, one_line, report
from suite.data import SuiteDataModule
from suite.domain import Task
from suite.errors import DataError, UsageError
from suite.failures import Failure, Guard
from suite.file_formats import extension_of
from suite.gather import gather_results
from suite.inputs import Inputs
from suite.module import SuiteModule
from suite.parser import SuiteParser
from suite.restore import restore
from suite.result_file import ResultFile, check_output

Format = Literal["text", "jsonl"]


def predict(arguments: Sequence[str], domains: Domains) -> None:
    """Predict each input with ``--checkpoint``: one result an input, in order.

    Raises:
        DataError: after all results, if some of them are an ``error`` in place of a prediction.
    """
    module, data, trainer, options = restore("predict", arguments, domains, add=_add)
    output: str | None = None if _has_own_output(type(data)) else options.output
    form = _format(options.format, output)
    if output is not None:
        check_output(output, inputs=[*(options.get("files") or []), options.checkpoint])
    inputs = data.prediction_inputs(options, processes=trainer.world_size)
    if not inputs:  # of a file as of standard input: a pipe of nothing gives nothing, and is no error
        notice("predict: the input is empty, so nothing is predicted")
    with _open(output) as file:
        results = Results(module, inputs, form=form, marked=options.get("id_column") is not None, file=file)
        if inputs:
            _run(module, data, trainer, inputs, results, debug=options.debug)
    for note in module.prediction_notes(results.kept):
        notice(note)
    if output is not None:
        report(f"Written to {output}: {results.count:,} results")
    if results.failed:
        raise DataError(f"{results.failed} of {results.count} input(s) gave no prediction: the result of each says why")


class Results(Callback):
    """Writes results in the order of the inputs, as soon as all before them are there.

    Args:
        module: writes a result as text.
        inputs: what was predicted; ids and files of ``Inputs`` are put into the results.
        form: lines of text or of JSON.
        marked: a line of text begins with the input's id.
        file: where to, standard output if ``None``.
    """

    def __init__(
        self, module: SuiteModule, inputs: Sequence[Any], *, form: Format, marked: bool, file: ResultFile | None
    ) -> None:
        self.module, self.form, self.marked, self.file = module, form, marked, file
        self.inputs = inputs if isinstance(inputs, Inputs) else None
        self.count = self.failed = 0
        self.kept: list[dict[str, Any]] = []
        """Of each result what ``prediction_notes`` may look at."""
        self._waiting: dict[int, list[dict[str, Any]]] = {}
        self._next = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for result in outputs or []:
            self._waiting.setdefault(result["index"], []).append(result)
        while self._next in self._waiting:
            self.write(self._waiting.pop(self._next))
            self._next += 1
        if self.file is not None:
            self.file.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for index in sorted(self._waiting):
            self.write(self._waiting.pop(index))

    def write(self, results: Sequence[dict[str, Any]]) -> None:
        """Write results that are next in order."""
        for result in results:
            self.count += 1
            self.failed += "error" in result
            self.kept.append({key: value for key, value in result.items() if isinstance(value, bool | int | float)})
            lines = self._lines(result)
            if self.file is not None:
                self.file.write(lines)
            elif is_first_process():
                for line in lines:
                    report(line)

    def _lines(self, result: dict[str, Any]) -> list[str]:
        marks = {} if self.inputs is None else self.inputs.marks(result["index"])
        if self.form == "jsonl":
            rest = {key: value for key, value in result.items() if key != "index"}
            return [json.dumps({"index": result["index"], **marks, **rest}, ensure_ascii=False)]
        text = isinstance(result, Failure)
        lines = [f"error\t{one_line(result['error'])}"] if text else self.module.lines(result)
        return [f"{one_line(marks.get('id', ''))}\t{line}" for line in lines] if self.marked else lines


def _run(
    module: SuiteModule,
    data: SuiteDataModule,
    trainer: Trainer,
    inputs: Sequence[Any],
    results: Results,
    *,
    debug: bool,
) -> None:
    """Predict and write: with one process window by window, with several all of them when they are gathered."""
    data.set_inputs(inputs)
    if trainer.world_size > 1:
        batches = trainer.predict(module, datamodule=data) or []
        results.write(gather_results([result for batch in batches for result in batch]))
        return
    trainer.callbacks.append(results)  # type: ignore[attr-defined]
    with Guard(module, data, trainer, debug=debug):
        trainer.predict(module, datamodule=data, return_predictions=False)


@contextlib.contextmanager
def _open(output: str | None) -> Iterator[ResultFile | None]:
    """The file of results in the first process, ``None`` in others and without one."""
    if output is None or not is_first_process():
        yield None
        return
    with ResultFile(output) as file:
        yield file


def _format(given: Format | None, output: str | None) -> Format:
    """The format asked for, or that of the name of the file.

    Raises:
        UsageError: they contradict each other.
    """
    is_lines = output is not None and extension_of(output) == ".jsonl"
    if is_lines and given == "text":
        raise UsageError(f"--output {output} holds JSON lines by its name, and --format is text: name it .txt or .tsv")
    return given or ("jsonl" if is_lines else "text")


def _add(parser: SuiteParser, task: Task) -> None:
    task.data.add_prediction_arguments(parser)
    if not _has_own_output(task.data):
        parser.add_argument(
            "--output", type=str | None, default=None,
            help="File for the results, in place of standard output; it is there once it is whole.",
        )  # fmt: skip
    parser.add_argument(
        "--format", type=Format | None, default=None,
        help="Lines of text, or of JSON; that of --output by its name (.jsonl), else text.",
    )  # fmt: skip


def _has_own_output(data: type[SuiteDataModule]) -> bool:
    """Whether a domain declares an ``--output`` itself, such as a folder for what it generates."""
    parser = SuiteParser()
    data.add_prediction_arguments(parser)
    return "--output" in parser._option_string_actions
