"""Evaluate and predict with a small trained translator: figures, one line for each line, bad checkpoints."""

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics import BLEU, CHRF

from tests.commands import Ran, assert_one_line, pairs_of, run, trained

# What may be said after results: how many of them are cut.
EMPTY = r"predict: the input is empty, so nothing is predicted\n"
CUT = r"(\d+ translation\(s\) reached the limit of tokens .* and are cut: .*\n)?"
NUL = r"(data: .*: 1 NUL characters, first in line 1; they are kept\n)?"
SENTENCES = [source for source, _ in pairs_of("test", 41)]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return trained() / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def evaluated(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, list[dict[str, Any]]]:
    """What evaluate said, and the results that it wrote."""
    output = tmp_path_factory.mktemp("evaluated") / "hypotheses.jsonl"
    ran = run("evaluate", "--checkpoint", checkpoint, "--output", output)
    assert ran.status == 0, ran
    return ran, [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def predict(checkpoint: Path, text: bytes, *flags: Any) -> Ran:
    ran = run("predict", "--checkpoint", checkpoint, *flags, stdin=text)
    assert ran.status == 0, ran
    assert re.fullmatch(NUL + CUT if ran.out else EMPTY, ran.err), "nothing else to say on standard error"
    return ran


def figure(ran: Ran, name: str) -> float:
    found = re.search(rf"^  {name}\s+(\S+)", ran.out, flags=re.MULTILINE)
    assert found, ran.out
    return float(found.group(1))


def test_figures_are_those_of_sacrebleu(evaluated: tuple[Ran, list[dict[str, Any]]]) -> None:
    ran, results = evaluated
    hypotheses = [result["translation"] for result in results]
    references = [[result["reference"] for result in results]]
    for name, scorer in (("bleu", BLEU()), ("chrf", CHRF())):
        assert figure(ran, name) == pytest.approx(scorer.corpus_score(hypotheses, references).score, abs=5e-5)
        assert str(scorer.get_signature()) in ran.out
    assert figure(ran, "bleu") > 1
    exact = 100 * sum(each["translation"] == each["reference"] for each in results) / len(results)
    assert figure(ran, "exact") == pytest.approx(exact, abs=5e-5)
    assert figure(ran, "perplexity") == pytest.approx(2.718281828 ** figure(ran, "loss"), rel=1e-3)


def test_results_are_written_in_the_order_of_the_data(evaluated: tuple[Ran, list[dict[str, Any]]]) -> None:
    ran, results = evaluated
    assert [(each["source"], each["reference"]) for each in results] == pairs_of("test", 41)
    assert [each["index"] for each in results] == list(range(41))
    assert "test: 41 examples" in ran.out


def test_evaluate_gives_the_figures_that_training_ended_with(evaluated: tuple[Ran, list[dict[str, Any]]]) -> None:
    said = Ran(0, (trained().parent.parent / "fit.out").read_text(encoding="utf-8"), "")
    for name in ("bleu", "chrf", "perplexity", "loss"):
        assert figure(evaluated[0], name) == figure(said, name)


def test_predict_is_what_evaluate_scored(checkpoint: Path, evaluated: tuple[Ran, list[dict[str, Any]]]) -> None:
    ran = predict(checkpoint, "\n".join(SENTENCES).encode())
    assert ran.lines == [each["translation"] for each in evaluated[1]]


def test_lines_of_a_table(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("source,target\nA forest is white.,x\n")
    assert len(predict(checkpoint, b"", tmp_path / "some.csv", "--lines").lines) == 2
    rows = run("predict", "--checkpoint", checkpoint, tmp_path / "some.csv")
    assert (rows.status, rows.lines) == (0, predict(checkpoint, b"A forest is white.\n").lines)


def test_another_split(checkpoint: Path) -> None:
    ran = run("evaluate", "--checkpoint", checkpoint, "--data.split", "val", "--beam_size", 1)
    assert ran.status == 0
    assert "val: 20 examples" in ran.out
    assert_one_line(run("evaluate", "--checkpoint", checkpoint, "--data.split", "dev"), 2, "dev", "train, val, test")


def test_an_output_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "none" / "out.jsonl"
    assert_one_line(run("evaluate", "--checkpoint", checkpoint, "--output", output), 1, str(output), "folder")
    ran = run("evaluate", "--checkpoint", checkpoint, "--output", tmp_path)
    assert_one_line(ran, 1, f"{tmp_path}: a folder, where --output is a file")


def test_evaluation_says_how_many_translations_are_cut(checkpoint: Path) -> None:
    ran = run("evaluate", "--checkpoint", checkpoint, "--max_length", "1")
    assert ran.status == 0, ran.err
    assert "translation(s) reached the limit of tokens (--max_length 1, " in ran.err


@pytest.mark.parametrize(
    "text",
    [
        b"A forest is white.\n\n  \nThe windows are modern.\n",
        b"A forest is white.\nThe windows are modern.",
        b"A forest is white.\r\n\r\nThe windows are modern.\r\n",
        b"\n",
        b"\n\n\n",
        b"",
        "A\u2028forest\x0bis\x85white.\nThe windows\tare \u00a0modern.\n".encode(),
        "\u2708 \u6f22\u5b57 \x00 \U0001f600\n".encode(),
        b"</s> <pad>\n<s>\n",
        b"\xef\xbb\xbfA forest is white.\n",
        (b"A forest is white and " * 300) + b"\n" + b"x" * 3000 + b"\nA forest is white.\n",
    ],
)
def test_one_line_for_each_line_from_file_and_from_standard_input(
    text: bytes, checkpoint: Path, tmp_path: Path
) -> None:
    lines = text.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    ran = predict(checkpoint, text)
    assert len(ran.lines) == len(lines)
    for line, translation in zip(lines, ran.lines, strict=True):
        assert bool(line.strip()) or not translation
    assert predict(checkpoint, text, "-").out == ran.out
    (tmp_path / "in.txt").write_bytes(text)
    from_file = predict(checkpoint, b"", tmp_path / "in.txt")
    assert from_file.out == ran.out
    assert ("the input is empty, so nothing is predicted" in from_file.err) == (not text)
    assert from_file.err.replace(str(tmp_path / "in.txt"), "standard input") == ran.err


def test_line_ends_and_byte_order_marks_do_not_change_translations(checkpoint: Path) -> None:
    plain = predict(checkpoint, "\n".join(SENTENCES[:3]).encode()).lines
    windows = predict(checkpoint, b"\xef\xbb\xbf" + "\r\n".join([*SENTENCES[:3], ""]).encode()).lines
    assert windows == plain


def test_lines_do_not_depend_on_their_neighbours(checkpoint: Path) -> None:
    together = predict(checkpoint, "\n".join(SENTENCES[:8]).encode()).lines
    backwards = predict(checkpoint, "\n".join(SENTENCES[7::-1]).encode()).lines
    single = [predict(checkpoint, sentence.encode()).lines[0] for sentence in SENTENCES[:3]]
    assert together == backwards[::-1]
    assert together[:3] == single


def test_translations_that_are_cut_are_said(checkpoint: Path) -> None:
    text = "\n".join(SENTENCES[:3]).encode()
    ran = predict(checkpoint, text, "--max_length", 2)
    assert ran.err.startswith("3 translation(s) reached the limit of tokens (--max_length 2, --max_ratio 2)")
    assert len(ran.lines) == 3
    ran = predict(checkpoint, text, "--max_ratio", "1e30")
    assert ran.lines == predict(checkpoint, text, "--max_ratio", 1000).lines


def test_a_pipe_is_read_as_a_file(checkpoint: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = "\n".join(SENTENCES[:2]).encode()
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(text,), daemon=True).start()
    assert predict(checkpoint, b"", tmp_path / "pipe").lines == predict(checkpoint, text).lines


def test_n_best_and_formats(checkpoint: Path) -> None:
    text = f"{SENTENCES[0]}\n\n{SENTENCES[1]}\n".encode()
    ran = predict(checkpoint, text, "--beam_size", 4, "--n_best", 3)
    rows = [line.split("\t") for line in ran.lines]
    assert [row[0] for row in rows] == ["0", "0", "0", "1", "2", "2", "2"]
    results = [json.loads(line) for line in predict(checkpoint, text, *_flags(4, 3), "--format", "jsonl").lines]
    assert [result["index"] for result in results] == [0, 1, 2]
    assert [result["source"] for result in results] == [SENTENCES[0], "", SENTENCES[1]]
    for result in results:
        scores = [each["score"] for each in result["n_best"]]
        assert scores == sorted(scores, reverse=True)
        assert result["n_best"][0] == {"translation": result["translation"], "score": result["score"]}
    assert [row[2] for row in rows] == [each["translation"] for result in results for each in result["n_best"]]
    # The best of n is what is printed without n, and the number kept decides it.
    assert predict(checkpoint, text, "--beam_size", 4).lines == [result["translation"] for result in results]


def _flags(beam_size: int, n_best: int) -> tuple[Any, ...]:
    return "--beam_size", beam_size, "--n_best", n_best


def test_length_penalty_changes_scores_and_lengths(checkpoint: Path) -> None:
    text = "\n".join(SENTENCES).encode()
    results = {}
    for penalty in (0, 1, 5):
        ran = predict(checkpoint, text, "--length_penalty", penalty, "--format", "jsonl")
        results[penalty] = [json.loads(line) for line in ran.lines]
    lengths = {key: sum(len(each["translation"]) for each in value) for key, value in results.items()}
    assert lengths[0] <= lengths[1] <= lengths[5]
    assert lengths[0] < lengths[5]
    assert [each["score"] for each in results[0]] != [each["score"] for each in results[1]]


def test_settings_not_given_are_those_of_the_checkpoint(checkpoint: Path) -> None:
    text = "\n".join(SENTENCES).encode()
    assert predict(checkpoint, text).out == predict(checkpoint, text, "--beam_size", 3, "--max_length", 40).out
    assert predict(checkpoint, text).out != predict(checkpoint, text, "--beam_size", 1).out


def test_decoding_settings_from_a_file_and_flags_over_them(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "greedy.yaml").write_text("beam_size: 1\n")
    text = "\n".join(SENTENCES).encode()
    greedy = predict(checkpoint, text, "--beam_size", 1).out
    assert predict(checkpoint, text, "-c", tmp_path / "greedy.yaml").out == greedy
    assert (
        predict(checkpoint, text, "--beam_size", 3, "-c", tmp_path / "greedy.yaml").out == predict(checkpoint, text).out
    )


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model.dropout", "0"], ["--model.dropout", "cannot change what was trained"]),
        (["--model.encoder.cell=gru"], ["--model.encoder.cell", "cannot change"]),
        (["--optim.lr", "1"], ["--optim.lr", "cannot change"]),
        (["--data.vocabulary.level", "char"], ["--data.vocabulary.level", "cannot change"]),
        (["--data.max_length", "5"], ["--data.max_length", "cannot change"]),
        (["--data.source_language", "fr"], ["--data.source_language", "cannot change"]),
        (["--data.held_out", "0.5"], ["--data.held_out", "cannot change"]),
        (["--model", "x.yaml"], ["--model"]),
        (["--seed", "1"], ["--seed"]),
        (["--beam", "1"], ["--beam", "did you mean --beam_size?"]),
        (["--n_best", "4"], ["n_best", "4", "beam_size (3)"]),
        (["--beam_size", "0"], ["beam_size", "0"]),
        (["--length_penalty", "-1"], ["length_penalty", "-1"]),
        (["--format", "xml"], ["format", "xml", "jsonl"]),
        (["--threads", "0"], ["threads", "0"]),
        (["--trainer.strategy", "ddp_spawn"], ["ddp_spawn"]),
        (["--trainer.max_epochs", "1"], ["--trainer.max_epochs"]),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_flags_that_are_refused(verb: str, flags: list[str], parts: list[str], checkpoint: Path) -> None:
    if verb == "evaluate" and flags[0] == "--format":
        parts = ["--format"]
    assert_one_line(run(verb, "--checkpoint", checkpoint, *flags, stdin=b"A\n"), 2, *parts)


def test_a_recipe_cannot_change_what_was_trained(checkpoint: Path, tmp_path: Path) -> None:
    recipes = {"model.dropout": "model: {dropout: 1}", "vocabulary.size": "data: {vocabulary: {size: 5}}"}
    for key, text in {**recipes, "optim.lr": "optim: {lr: 1}"}.items():
        (tmp_path / "a.yaml").write_text(text)
        assert_one_line(run("predict", "--checkpoint", checkpoint, "-c", tmp_path / "a.yaml", stdin=b"A\n"), 2, key)


def test_bad_input_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("predict", "--checkpoint", checkpoint, stdin=b"fine\nnot \xff fine\n")
    assert_one_line(ran, 1, "standard input, line 2", "UTF-8")
    (tmp_path / "bad.txt").write_bytes(b"fine\nfine\n\xe4\n")
    assert_one_line(run("predict", "--checkpoint", checkpoint, tmp_path / "bad.txt"), 1, "bad.txt, line 3", "UTF-8")
    assert_one_line(run("predict", "--checkpoint", checkpoint, tmp_path / "none.txt"), 1, "none.txt", "no such file")
    assert_one_line(run("predict", "--checkpoint", checkpoint, tmp_path), 1, str(tmp_path))


def test_a_checkpoint_has_to_be_named() -> None:
    for verb in ("predict", "evaluate"):
        assert_one_line(run(verb), 2, "--checkpoint", "missing")
        assert_one_line(run(verb, "--checkpoint"), 2, "--checkpoint")


def test_help_of_both_verbs(checkpoint: Path) -> None:
    for verb in ("predict", "evaluate"):
        ran = run(verb, "--checkpoint", checkpoint, "--help")
        assert ran.status == 0
        assert all(flag in ran.out for flag in ("--beam_size", "--data.dataset", "--trainer.accelerator"))
        assert not any(flag in ran.out for flag in ("--model", "--optim", "--data.vocabulary", "--trainer.max_epochs"))


def test_a_run_folder_means_its_best_checkpoint(checkpoint: Path) -> None:
    text = "\n".join(SENTENCES[:5]).encode()
    assert predict(trained(), text).out == predict(checkpoint, text).out
