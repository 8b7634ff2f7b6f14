"""Figures of classes against scikit-learn, class weights against torch.nn, and what is written about them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.image import imread
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, top_k_accuracy_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

from suite import classification
from suite.classification import (
    ClassificationModule,
    Scores,
    encode_labels,
    label_assets,
    label_results,
    weigh_classes,
)
from suite.confusion import ClassReport
from suite.errors import DataError, SuiteError, UsageError
from suite.vocabulary import Labels

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


class Batch(NamedTuple):
    values: Tensor
    labels: Tensor
    indices: list[int]
    inputs: list[str]


class Linear(ClassificationModule):
    def __init__(self, assets: dict[str, Any], **settings: Any) -> None:
        super().__init__(assets, **settings)
        self.output = nn.Linear(3, len(self.labels))

    def score(self, batch: Batch) -> Scores:
        return Scores(self.output(batch.values))


def batches(sizes: list[int], *, classes: int, missing: int | None = None) -> list[Batch]:
    found = []
    for number, size in enumerate(sizes):
        labels = torch.randint(classes, (size,))
        if missing is not None:
            labels[labels == missing] = (missing + 1) % classes
        indices = list(range(10 * number, 10 * number + size))
        found.append(Batch(torch.randn(size, 3), labels, indices, [f"item {index}" for index in indices]))
    return found


def assets_of(classes: int) -> dict[str, Any]:
    return {"labels": [f"c{number}" for number in range(classes)], "counts": list(range(1, classes + 1))}


def evaluate(module: Linear, given: list[Batch]) -> dict[str, float]:
    quiet: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**quiet, enable_model_summary=False)
    loader: Any = DataLoader(given, batch_size=None)  # type: ignore[arg-type]
    trainer.test(module, loader, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(("classes", "missing"), [(2, None), (3, 1), (7, None)])
def test_figures_are_those_of_scikit_learn(classes: int, missing: int | None) -> None:
    module, given = Linear(assets_of(classes)), batches([5, 8, 1, 7], classes=classes, missing=missing)
    module.kept = []
    figures = evaluate(module, given)
    truth = torch.cat([each.labels for each in given]).numpy()
    logits = torch.cat([module(each) for each in given]).detach()
    found = logits.argmax(dim=1).numpy()
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth, found), abs=1e-6)
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, found, average="macro"), abs=1e-6)
    assert figures["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, torch.tensor(truth))), abs=1e-6)
    assert ("top5_accuracy" in figures) == (classes > 5)
    if classes > 5:
        expected = top_k_accuracy_score(truth, logits.numpy(), k=5, labels=range(classes))
        assert figures["top5_accuracy"] == pytest.approx(expected, abs=1e-6)
    rows = module.reports["test"].by_class()
    kinds = precision_recall_fscore_support(truth, found, labels=range(classes), zero_division=float("nan"))
    for number, row in enumerate(rows):
        for key, column in zip(("precision", "recall", "f1", "support"), kinds, strict=True):
            value = float("nan") if row[key] is None else row[key]
            assert value == pytest.approx(column[number], nan_ok=True), (row, key)
    assert [each["target"] for each in module.kept] == [f"c{label}" for label in truth]
    assert [each["label"] for each in module.kept] == [f"c{label}" for label in found]


@pytest.mark.parametrize(("kept", "below", "made"), [(False, None, 0), (True, None, 3), (True, 11, 2), (True, 0, 0)])
def test_results_are_made_only_if_they_are_kept(
    kept: bool, below: int | None, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, calls, make = Linear(assets_of(3)), [], classification.label_results

    def label_results(*arguments: Any) -> list[dict[str, Any]]:
        calls.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(classification, "label_results", label_results)
    module.kept, module.kept_below = [] if kept else None, below
    evaluate(module, batches([6, 3, 2], classes=3))
    assert len(calls) == made
    if kept:
        indices = [*range(6), 10, 11, 12, 20, 21]
        expected = [index for index in indices if below is None or index < below]
        assert [each["index"] for each in module.kept or []] == expected


def test_a_second_evaluation_starts_from_nothing() -> None:
    module, given = Linear(assets_of(3)), batches([6], classes=3)
    evaluate(module, given)
    evaluate(module, given)
    assert sum(map(sum, module.reports["test"].matrix)) == 6


@pytest.mark.parametrize("kind", ["balanced", "root"])
def test_class_weights_are_those_of_torch_with_mean_one(kind: Any) -> None:
    counts = [1, 4, 15]
    weights = weigh_classes(counts, kind)
    assert weights is not None
    assert float((weights * torch.tensor(counts)).sum() / sum(counts)) == pytest.approx(1.0)
    power = 1.0 if kind == "balanced" else 0.5
    assert float(weights[0] / weights[2]) == pytest.approx(15**power)
    if kind == "balanced":
        assert weights.tolist() == pytest.approx([20 / (3 * count) for count in counts])  # scikit-learn's "balanced"
    labels = torch.tensor([index for index, count in enumerate(counts) for _ in range(count)])
    module = Linear({"labels": ["a", "b", "c"], "counts": counts}, class_weights=kind, label_smoothing=0.1)
    batch = Batch(torch.randn(20, 3), labels, list(range(20)), [""] * 20)
    output = module.train().compute(batch)
    plain = nn.CrossEntropyLoss(weight=weights, label_smoothing=0.1, reduction="sum")(module(batch), labels)
    torch.testing.assert_close(output.loss_sum, plain)
    assert int(output.weight) == 20
    torch.testing.assert_close(
        module.eval().compute(batch).loss_sum, nn.functional.cross_entropy(module(batch), labels, reduction="sum")
    )
    assert "class_weight" not in module.state_dict()


def test_no_class_weights() -> None:
    assert weigh_classes([1, 9], "none") is None


def test_results_name_the_label_and_every_probability() -> None:
    batch = Batch(torch.zeros(2, 3), torch.zeros(2), [4, 9], ["one", "two"])
    first, second = label_results(batch, torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]]), Labels(["a", "b", "c"]))
    assert (first["index"], first["input"], first["label"]) == (4, "one", "c")
    assert (second["index"], second["label"]) == (9, "a")
    assert list(first["probabilities"]) == ["a", "b", "c"]
    assert sum(first["probabilities"].values()) == pytest.approx(1.0)
    assert Linear.lines(second) == [f"a\t{second['probabilities']['a']:.4f}"]


def test_assets_are_sorted_labels_with_their_counts() -> None:
    assert label_assets(["10", "9", "10"], where="x.csv") == {"labels": ["9", "10"], "counts": [1, 2]}
    with pytest.raises(DataError, match=r"x\.csv: there is only the class 'a'; at least two classes"):
        label_assets(["a", "a"], where="x.csv")
    with pytest.raises(DataError, match=r"x\.csv: there is no class"):
        label_assets([], where="x.csv")


def test_labels_that_training_did_not_have_are_counted_and_the_others_listed() -> None:
    names = Labels(["bad", "good"])
    assert encode_labels(["good", "bad"], names, where="val.csv") == [1, 0]
    with pytest.raises(DataError, match=r"val\.csv: 2 label\(s\).*'fine' \(2 times\), 'ok' \(1 times\).*'bad', 'good'"):
        encode_labels(["good", "fine", "ok", "fine"], names, where="val.csv")


def test_report_as_text_json_and_image(tmp_path: Path) -> None:
    report = ClassReport(["cat", "dog", "owl"], [[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    lines = report.lines()
    assert lines[1].split() == ["cat", "0.6000", "0.7500", "0.6667", "4"]
    assert lines[2].split() == ["dog", "0.0000", "-", "0.0000", "0"]
    paths = report.write(tmp_path / "new", "test")
    assert [path.name for path in paths] == ["test.confusion.json", "test.confusion.png"]
    content = json.loads(paths[0].read_text())
    assert content["matrix"] == [[3, 1, 0], [0, 0, 0], [2, 0, 2]]
    assert content["classes"][1] == {"label": "dog", "precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    image = imread(paths[1])
    assert image.shape[0] > 100
    assert image.std() > 0


def test_report_of_many_classes_shows_the_worst() -> None:
    matrix = [
        [10 - row % 10 if row == column else row % 10 * (column == 0) for column in range(30)] for row in range(30)
    ]
    lines = ClassReport([f"c{number}" for number in range(30)], matrix).lines()
    assert len(lines) == 22
    assert lines[-1] == "  and 10 more classes"
    assert float(lines[1].split()[3]) < float(lines[20].split()[3])


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label_smoothing is 1"):
        Linear(assets_of(2), label_smoothing=1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SuiteError, match="file: cannot be written"):
        ClassReport(["a", "b"], [[1, 0], [0, 1]]).write(tmp_path / "file", "x")
