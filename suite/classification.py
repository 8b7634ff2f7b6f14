"""What every module that tells classes apart shares: loss with class weights, figures by class, results with labels.

A domain's module inherits ``ClassificationModule`` and writes ``logits``; its batches carry ``labels (B,)``,
``indices`` and ``inputs`` (what a result names its input by). Its data module makes ``label_assets``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from suite.class_labels import count_labels, encode_labels, label_assets
from suite.confusion import ClassReport
from suite.console import one_line
from suite.errors import UsageError
from suite.module import Split, StepOutput, SuiteModule
from suite.optim import OptimConfig
from suite.vocabulary import Labels

__all__ = [
    "NO_LABEL",
    "ClassWeights",
    "ClassificationModule",
    "LabelledBatch",
    "Scores",
    "count_labels",
    "encode_labels",
    "label_assets",
    "label_results",
    "weigh_classes",
]

ClassWeights = Literal["none", "balanced", "root"]
TOP_K = 5
NO_LABEL = 0  # what stands for the label of an input to predict, which has none


class LabelledBatch(Protocol):
    """What a batch has to carry."""

    @property
    def labels(self) -> Tensor: ...
    @property
    def indices(self) -> list[int]: ...
    @property
    def inputs(self) -> list[str]: ...


class Scores(NamedTuple):
    """``logits (B, C)``, and attention ``weights (B, T)`` of a pooling that has them.

    ``penalty``, a scalar, is what a recurrent encoder adds to the training loss of an example.
    """

    logits: Tensor
    weights: Tensor | None = None
    penalty: Tensor | None = None


def weigh_classes(counts: Sequence[int], kind: ClassWeights) -> Tensor | None:
    """Weights ``(C,)`` whose mean over the training examples is one; ``None`` where all would be one.

    ``balanced`` is inversely proportional to ``counts (C,)``, ``root`` to their square root.
    """
    if kind == "none":
        return None
    share = torch.tensor(counts, dtype=torch.float64)
    weights = share.clamp_min(1.0) ** (-1.0 if kind == "balanced" else -0.5)
    return (weights * share.sum() / (weights * share).sum()).float()


def label_results(batch: LabelledBatch, logits: Tensor, names: Labels) -> list[dict[str, Any]]:
    """One ``{index, input, label, probabilities}`` a row, probabilities by label."""
    exact = logits.float() if logits.dtype != torch.float64 else logits
    rows = exact.softmax(dim=1).tolist()
    return [
        {
            "index": index,
            "input": text,
            "label": names.names[max(range(len(row)), key=row.__getitem__)],
            "probabilities": dict(zip(names.names, row, strict=True)),
        }
        for index, text, row in zip(batch.indices, batch.inputs, rows, strict=True)
    ]


class ClassificationModule(SuiteModule):
    """A module that gives each example one of the classes in ``assets["labels"]``.

    Training minimises cross entropy with class weights and label smoothing; evaluation reports plain cross entropy.

    Args:
        assets: has ``labels`` and ``counts`` (``label_assets``).
        class_weights: What each class counts in the loss: the same, or more where training has fewer examples.
        label_smoothing: Probability mass spread over all classes in the training loss.
        optim: the optimiser and its schedule.

    Raises:
        UsageError: a label smoothing outside [0, 1).
    """

    monitor: ClassVar[str] = "val/accuracy"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        class_weights: ClassWeights = "none",
        label_smoothing: float = 0.0,
        optim: OptimConfig | None = None,
    ) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise UsageError(f"model.label_smoothing is {label_smoothing}, allowed is 0 up to but not including 1")
        self.labels = Labels.from_state(assets["labels"])
        super().__init__(assets, optim=optim)
        self.label_smoothing = label_smoothing
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", weigh_classes(assets["counts"], class_weights), persistent=False)
        classes = len(self.labels)
        self.confusion = nn.ModuleDict({split: MulticlassConfusionMatrix(classes) for split in ("val", "test")})
        self.reports: dict[Split, ClassReport] = {}

    def score(self, batch: Any) -> Scores:
        """Logits ``(B, C)`` of a batch, with attention weights where there are any."""
        raise NotImplementedError

    def forward(self, batch: Any) -> Tensor:
        """Logits ``(B, C)``."""
        return self.score(batch).logits

    def compute(self, batch: Any) -> StepOutput:
        logits, _, penalty = self.score(batch)
        exact = logits if logits.dtype == torch.float64 else logits.float()
        weight = self.class_weight if self.training else None
        loss = nn.functional.cross_entropy(
            exact,
            batch.labels,
            weight=None if weight is None else weight.to(exact.dtype),
            label_smoothing=self.label_smoothing if self.training else 0.0,
            reduction="sum",
        )
        if self.training and penalty is not None:
            loss = loss + penalty * len(logits)
        # The weights' mean over training is one: the number of examples is what the sum goes over.
        return StepOutput(loss, torch.tensor(len(logits), device=logits.device), logits.detach())

    def make_metrics(self) -> dict[str, Metric]:
        classes = len(self.labels)
        metrics: dict[str, Metric] = {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "macro_f1": MulticlassF1Score(classes, average="macro"),
        }
        if classes > TOP_K:
            metrics[f"top{TOP_K}_accuracy"] = MulticlassAccuracy(classes, top_k=TOP_K, average="micro")
        return metrics

    def update_metrics(self, metrics: dict[str, Metric], batch: Any, output: StepOutput) -> None:
        logits = output.outputs.float()
        for name, metric in metrics.items():
            if name != "loss":
                metric.update(logits, batch.labels)
        split: Split = "test" if self.trainer.testing else "val"
        cast(Metric, self.confusion[split]).update(logits, batch.labels)
        self.keep(lambda: self._targeted(batch, output.outputs), indices=batch.indices)

    def _targeted(self, batch: Any, logits: Tensor) -> list[dict[str, Any]]:
        """``label_results`` with the true label of each row: too slow for a validation that keeps none of them."""
        results, truth = label_results(batch, logits, self.labels), batch.labels.tolist()
        return [{**each, "target": self.labels.names[index]} for each, index in zip(results, truth, strict=True)]

    def on_validation_epoch_start(self) -> None:
        cast(Metric, self.confusion["val"]).reset()

    def on_test_epoch_start(self) -> None:
        cast(Metric, self.confusion["test"]).reset()

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, split: Split) -> None:
        matrix = cast(Metric, self.confusion[split]).compute()  # on every process: it adds their counts up
        self.reports[split] = ClassReport(self.labels.names, matrix.tolist())

    def evaluation_lines(self, split: Split) -> list[str]:
        """Precision, recall and F1 of each class as a table."""
        return self.reports[split].lines() if split in self.reports else []

    def write_evaluation(self, split: Split, folder: Path, stem: str) -> list[Path]:
        """The confusion matrix as JSON and as an image: ``<stem>.confusion.json`` and ``.png``."""
        return self.reports[split].write(folder, stem) if split in self.reports else []

    def predict_step(self, batch: Any, batch_index: int) -> list[dict[str, Any]]:
        return label_results(batch, self.score(batch).logits, self.labels)

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """The label and its probability, with a tab between them; tabs and line breaks in a label are escaped."""
        return [f"{one_line(result['label'])}\t{result['probabilities'][result['label']]:.4f}"]

    @torch.no_grad()
    def sample_table(self, batch: Any) -> tuple[Sequence[str], list[list[Any]]]:
        """Input, true label, predicted label and its probability of each row."""
        results = label_results(batch, self.score(batch).logits, self.labels)
        rows = [
            [each["input"], self.labels.names[target], each["label"], each["probabilities"][each["label"]]]
            for each, target in zip(results, batch.labels.tolist(), strict=True)
        ]
        return ("input", "target", "label", "probability"), rows
