"""What ``predict`` does with results: a file of them, one failure among many, windows in order, huge inputs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domains.text.data import TextData
from domains.text.language_model import LanguageModule
from domains.text.model import TextModule
from suite import data, prediction
from suite.console import report
from suite.data import SuiteDataModule
from suite.errors import SuiteError
from tests import toy
from tests.commands import TOY_CONFIGS, Ran, assert_one_line, fit_toy, run, trained
from tests.predicted import BAD, GOOD, predict, texts_run

LINES = [f"{GOOD} {number}" for number in range(10)]
STDIN = "".join(f"{line}\n" for line in LINES).encode()
Step = Callable[[TextModule, Any, int], list[dict[str, Any]]]


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[list[str]], Exception | None]) -> list[list[str]]:
    """Have prediction of texts raise what ``fails`` gives for the texts of a batch; collects these."""
    step, seen = TextModule.predict_step, []

    def predict_step(self: TextModule, batch: Any, batch_index: int) -> list[dict[str, Any]]:
        seen.append(list(batch.inputs))
        if error := fails(batch.inputs):
            raise error
        return step(self, batch, batch_index)

    monkeypatch.setattr(TextModule, "predict_step", predict_step)
    return seen


def failures_at(text: str, error: Exception) -> Callable[[list[str]], Exception | None]:
    return lambda texts: error if text in texts else None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SuiteError("no hypothesis"), "no hypothesis"),
        (RuntimeError("a\nb"), "RuntimeError: a b"),
        (MemoryError(), "out of memory: the input is too long for this machine"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes"), "out of memory: the input is too long"),
    ],
)
def test_one_bad_input_takes_no_other_result_away(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict("--format", "jsonl", stdin=STDIN)
    seen = failing(monkeypatch, failures_at(LINES[3], error))
    ran = predict("--format", "jsonl", stdin=STDIN)
    assert ran.status == 1
    assert ran.err == "predict: 1 of 10 input(s) gave no prediction: the result of each says why\n"
    results = [json.loads(line) for line in ran.lines]
    assert [each["index"] for each in results] == list(range(10))
    assert results[3].keys() == {"index", "input", "error"}
    assert results[3]["input"] == LINES[3]
    assert results[3]["error"].startswith(reason)
    for result, line in zip(results, whole.lines, strict=True):
        expected = json.loads(line)
        if "error" not in result:
            assert result["label"] == expected["label"]
            assert result["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
    assert len(seen) == 11, "the batch, and then each of its texts"
    text = predict(stdin=STDIN)
    assert text.status == 1
    assert text.lines[3].startswith(f"error\t{reason}")
    assert len(text.lines) == 10


def test_a_batch_that_is_too_large_is_predicted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda texts: MemoryError() if len(texts) > 1 else None)
    ran = predict(stdin=STDIN)
    assert (ran.status, len(ran.lines), ran.err) == (0, 10, "")


def test_every_input_may_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing(monkeypatch, lambda texts: ValueError("broken"))
    ran = predict("--output", tmp_path / "out.jsonl", stdin=STDIN)
    assert ran.status == 1
    assert "10 of 10 input(s) gave no prediction" in ran.err
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in lines] == ["ValueError: broken"] * 10
    assert "Traceback" in predict("--debug", stdin=b"a\n").err


def test_an_id_names_the_input_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'id,review\nx,"{GOOD}"\ny,"{BAD}"\n')
    failing(monkeypatch, failures_at(BAD, SuiteError("why")))
    ran = predict(tmp_path / "a.csv", "--id_column", "id")
    assert ran.lines[1] == "y\terror\twhy"
    found = json.loads(predict(tmp_path / "a.csv", "--format", "jsonl").lines[1])
    assert found == {"index": 1, "id": "y", "input": BAD, "error": "why"}


def windowed(monkeypatch: pytest.MonkeyPatch, size: int = 4) -> None:
    monkeypatch.setattr(SuiteDataModule, "prediction_window", size)


def test_results_come_window_by_window_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [json.loads(line) for line in predict("--format", "jsonl", stdin=STDIN).lines]
    windowed(monkeypatch)
    events: list[str] = []

    def note(text: str) -> None:
        events.append("result")
        report(text)

    def count(texts: list[str]) -> None:
        events.append(f"batch of {len(texts)}")

    monkeypatch.setattr(prediction, "report", note)
    failing(monkeypatch, count)
    ran = predict("--format", "jsonl", stdin=STDIN)
    parts = [json.loads(line) for line in ran.lines]
    assert [each["input"] for each in parts] == [each["input"] for each in whole] == LINES
    assert [each["index"] for each in parts] == list(range(10))
    assert events == [*["batch of 4", *["result"] * 4] * 2, "batch of 2", *["result"] * 2]


def test_what_was_predicted_is_there_when_a_later_input_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    windowed(monkeypatch)
    failing(monkeypatch, failures_at(LINES[8], KeyboardInterrupt()))  # type: ignore[arg-type]
    ran = predict(stdin=STDIN)
    assert ran.status != 0
    assert len(ran.lines) == 8
    output = tmp_path / "out.txt"
    output.write_text("before\n")
    ran = predict("--output", output, stdin=STDIN)
    assert ran.status != 0
    assert output.read_text() == "before\n", "an older file is not replaced by a part"
    (partial,) = tmp_path.glob("out.txt.*.partial")
    assert len(partial.read_text().splitlines()) == 8
    assert f"out.txt is not written; the 8 results so far are in {partial}" in ran.err


def test_windows_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--length", 8, "--format", "jsonl")
    whole = predict(*flags, name="language", stdin=STDIN).lines
    windowed(monkeypatch, 3)
    assert predict(*flags, name="language", stdin=STDIN).lines == whole


@pytest.mark.parametrize("name", ["classifier", "language"])
def test_a_huge_input_stands_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*LINES[:5], "word " * 60_000, *LINES[5:]]
    sizes = []
    kind: Any = {"classifier": TextModule, "language": LanguageModule}[name]
    step = kind.predict_step

    def predict_step(self: Any, batch: Any, batch_index: int) -> list[dict[str, Any]]:
        sizes.append(sorted(map(len, batch.inputs)))
        return step(self, batch, batch_index)

    monkeypatch.setattr(kind, "predict_step", predict_step)
    flags = ("--length", 2) if name == "language" else ()
    ran = predict(*flags, name=name, stdin="".join(f"{line}\n" for line in lines).encode())
    assert ran.status == 0, ran
    assert len(ran.lines) == 11
    if name == "language":  # a classifier cuts it at data.max_length
        assert sizes == [[300_000], [len(line) for line in LINES]]


@pytest.mark.parametrize("flags", [(), ("--format", "jsonl")])
def test_the_file_holds_what_standard_output_would(flags: tuple[str, ...], tmp_path: Path) -> None:
    printed = predict(*flags, stdin=STDIN)
    output = tmp_path / "out"
    ran = predict(*flags, "--output", output, stdin=STDIN)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"Written to {output}: 10 results\n"
    assert output.read_text(encoding="utf-8") == printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_name_of_the_file_decides_the_format(tmp_path: Path) -> None:
    predict("--output", tmp_path / "a.JSONL", stdin=b"one\n")
    assert json.loads((tmp_path / "a.JSONL").read_text())["input"] == "one"
    predict("--output", tmp_path / "a.tsv", stdin=b"one\n")
    assert (tmp_path / "a.tsv").read_text().count("\t") == 1
    predict("--output", tmp_path / "b.txt", "--format", "jsonl", stdin=b"one\n")
    assert json.loads((tmp_path / "b.txt").read_text())["input"] == "one"
    contradiction = predict("--output", tmp_path / "c.jsonl", "--format", "text", stdin=b"one\n")
    assert_one_line(contradiction, 2, "c.jsonl", "--format is text")


def test_no_input_gives_an_empty_file(tmp_path: Path) -> None:
    ran = predict("--output", tmp_path / "a.txt", stdin=b"")
    assert ran.status == 0
    assert ran.out.endswith("a.txt: 0 results\n")
    assert (tmp_path / "a.txt").read_bytes() == b""


def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "in.txt"
    text.write_text("one\n")
    (tmp_path / "link.txt").symlink_to(text)
    monkeypatch.setattr(TextData, "prediction_inputs", lambda *_, **__: pytest.fail("inputs are read"))
    for output, status, part in (
        (tmp_path, 1, "a folder"),
        (tmp_path / "none" / "a.txt", 1, "there is no such folder"),
        (tmp_path / "a.csv", 2, ".csv is not written"),
        (tmp_path / "a.jsonl.gz", 2, ".jsonl.gz is not written"),
        (tmp_path / "a.XLSX", 2, ".xlsx is not written"),
        (text, 2, "is also read"),
        (tmp_path / "link.txt", 2, "is also read"),
        ("", 2, "output is ''"),
    ):
        assert_one_line(predict(text, "--output", output), status, part)
    assert text.read_text() == "one\n"


def test_a_link_and_a_device_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    assert predict("--output", tmp_path / "link.txt", stdin=STDIN).status == 0
    assert (tmp_path / "link.txt").is_symlink()
    assert len((tmp_path / "real.txt").read_text().splitlines()) == 10
    assert predict("--output", os.devnull, stdin=STDIN).status == 0
    assert Path(os.devnull).is_char_device()


def test_a_full_disk_is_one_line() -> None:
    ran = predict("--output", "/dev/full", stdin=STDIN)
    assert_one_line(ran, 1, "/dev/full: cannot be written")


def test_every_domain_has_an_output(tmp_path: Path) -> None:
    assert fit_toy("--runs", tmp_path, "--name", "a").status == 0
    common: dict[str, Any] = {"stdin": b"1\n2\n", "application": toy, "configs": TOY_CONFIGS}
    ran = run("predict", "--checkpoint", tmp_path / "toy" / "a", "--output", tmp_path / "out.jsonl", **common)
    assert ran.status == 0, ran
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    translated = run("predict", "--checkpoint", trained(), "--output", tmp_path / "t.txt", stdin=b"A forest.\n\n")
    assert translated.status == 0, translated
    assert (tmp_path / "t.txt").read_text().count("\n") == 2


def fields(ran: Ran, path: Path) -> list[set[str]]:
    assert ran.status == 0, ran
    return [set(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def test_results_of_evaluate_and_predict_have_the_same_fields(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f'review,label\n"{GOOD}",pos\n"{BAD}",neg\n')
    output = tmp_path / "a.jsonl"
    predicted = fields(predict(table, "--output", output), output)
    flags = ("--data.dataset", "files", "--data.test", table, "--output", output)
    evaluated = fields(run("evaluate", "--checkpoint", texts_run("classifier"), *flags), output)
    assert [each - {"target"} for each in evaluated] == predicted
    assert all("target" in each for each in evaluated)


def test_batches_are_planned_once_for_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan, planned = data.plan_batches, []

    def plan_batches(lengths: Any, **limits: Any) -> Any:
        planned.append(len(lengths))
        return plan(lengths, **limits)

    monkeypatch.setattr(data, "plan_batches", plan_batches)
    ran = fit_toy("--runs", tmp_path, "--name", "a", "--data.size", 60, "--trainer.max_epochs", 3)
    assert ran.status == 0, ran
    assert sorted(planned) == [15, 15, 60], "once for each of train, val and test"


def test_other_limits_or_examples_are_planned_again() -> None:
    lines = TextData(sample_size=40, batch_size=4)
    assert len(lines.loader("train", shuffle=False)) == 10
    lines.batch_size = 8
    assert len(lines.loader("train", shuffle=False)) == 5
    for count in (3, 30):
        lines.set_inputs(["a"] * count)
        assert sum(len(batch.indices) for batch in lines.predict_dataloader()) == count
