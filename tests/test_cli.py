"""The command line of fit: precedence, one-line errors with exit status, help, and what a run leaves. DESIGN 4 to 6."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import toy
from tests.commands import QUIET, TOY_CONFIGS, Ran, assert_one_line, fit_toy, run, trained


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def settings(*argv: Any) -> dict[str, Any]:
    """What would be run."""
    ran = fit_toy(*argv, "--print_config")
    assert ran.status == 0, ran
    return dict(yaml.safe_load(ran.out))


def unrecognised(flag: str) -> Ran:
    return run("fit", "--domain", "translation", flag, "1")


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--trainer.max_epoch", "--trainer.max_epochs"),
        ("--model.hiden", None),
        ("--model.encoder.cel", "--model.encoder.cell"),
        ("--model.encoder.hiden_size", "--model.encoder.hidden_size"),
        ("--model.droput", "--model.dropout"),
        ("--optim.learning_rate", "--optim.lr"),
        ("--data.vocabulary.siz", "--data.vocabulary.size"),
        ("--tracking.mod", "--tracking.mode"),
        ("--tracking.nonsense", None),
        ("--sed", "--seed"),
        ("--resum", "--resume"),
    ],
)
def test_a_flag_that_is_no_flag_is_refused_with_the_nearest(flag: str, meant: str | None) -> None:
    ran = unrecognised(flag)
    assert_one_line(ran, 2, flag)
    if meant is None:
        assert "did you mean --optim" not in ran.err
    else:
        assert f"did you mean {meant}?" in ran.err


def test_no_suggestion_where_the_name_is_right() -> None:
    for flag, value in (("--model.hidden_size", "many"), ("--optim.name", "adamm"), ("--seed", "1.5"), ("-c", "none")):
        assert "did you mean" not in fit_toy(flag, value).err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {hiden_size: 3}\n", ["hiden_size", "did you mean --model.hidden_size?"]),
        ("sed: 3\n", ["sed", "did you mean --seed?"]),
        ("optim: {learning_rate: 1}\n", ["learning_rate", "did you mean --optim.lr?"]),
        ("model: {hidden_size: many}\n", ["model.hidden_size is many", "allowed is a whole number"]),
        ("model: 3\n", ["model", "3"]),
        ("optim: {name: adamm}\n", ["optim.name is adamm", "adam or adamw"]),
        ("tracking: {mode: sometimes}\n", ["tracking.mode is sometimes", "online, offline, disabled or null"]),
        ("model: {hidden_size: 3\n", ["recipe.yaml", "line 2"]),
        ("\thidden_size: 3\n", ["recipe.yaml", "line 1"]),
        ("- 1\n- 2\n", ["recipe.yaml"]),
        ("only words\n", ["recipe.yaml"]),
        ("trainer: {strategy: ddp_spawn}\n", ["ddp_spawn", "use ddp"]),
    ],
)
def test_a_bad_recipe_is_one_line(text: str, parts: list[str], tmp_path: Path) -> None:
    assert_one_line(fit_toy("-c", write(tmp_path, text), "--runs", tmp_path / "runs"), 2, *parts)


def test_a_recipe_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert_one_line(fit_toy("-c", tmp_path / "none.yaml"), 2, "none.yaml")
    assert_one_line(fit_toy("-c", tmp_path), 2, str(tmp_path))
    assert_one_line(fit_toy("-c"), 2, "--config")
    (tmp_path / "latin.yaml").write_bytes(b"# \xe4\nseed: 1\n")
    assert_one_line(fit_toy("-c", tmp_path / "latin.yaml"), 2, "latin.yaml", "not UTF-8")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model.hidden_size", "many"], ["model.hidden_size is many", "allowed is a whole number"]),
        (["--model.hidden_size", "0"], ["hidden_size", "0", "1 or more"]),
        (["--threads", "0"], ["threads", "0"]),
        (["--samples", "-1"], ["samples", "-1"]),
        (["--patience", "-1"], ["patience", "-1"]),
        (["--data.num_workers", "-1"], ["num_workers", "-1"]),
        (["--trainer.strategy", "ddp_spawn"], ["ddp_spawn", "use ddp"]),
        (["--trainer.max_epochs", "-5"], ["max_epochs", "-5"]),
        (["--trainer.gradient_clip_algorithm", "sharp"], ["sharp", "norm"]),
        (["--trainer.gradient_clip_val", "-1"], ["trainer.gradient_clip_val is -1", "0 or more"]),
        (["--trainer.gradient_clip_val", ".nan"], ["trainer.gradient_clip_val is nan", "0 or more"]),
        (["--trainer.accumulate_grad_batches", "0"], ["trainer.accumulate_grad_batches is 0", "1 or more"]),
        (["--trainer.max_epochs", "0"], ["trainer.max_epochs is 0", "1 or more, or -1"]),
        (["--trainer.max_steps", "0"], ["trainer.max_steps is 0", "1 or more, or -1"]),
        (["--trainer.precision", "transformer-engine"], ["trainer: ", "transformer"]),
        (["--trainer.limit_train_batches", "0"], ["trainer.limit_train_batches is 0", "trains nothing"]),
        (["--trainer.log_every_n_steps", "0"], ["trainer.log_every_n_steps must be at least 1, got 0"]),
        (["--trainer.strategy", "foo"], ["trainer.strategy foo", "no such strategy", "auto, ddp,", "fsdp"]),
        (["--trainer.strategy", "fsdp", "--trainer.accelerator", "cpu"], ["fsdp", "requires a GPU"]),
        (["--trainer.precision", "17"], ["trainer.precision", "17", "bf16-mixed"]),
        (["--trainer.callbacks+=NoSuch"], ["trainer.callbacks", "NoSuch"]),
        (["--task", "nothing"], ["nothing", "next_value"]),
        (["--name", "a/b"], ["--name", "a/b"]),
        (["stray"], ["stray"]),
    ],
)
def test_a_bad_value_is_one_line(flags: list[str], parts: list[str], tmp_path: Path) -> None:
    assert_one_line(fit_toy("--runs", tmp_path, *flags), 2, *parts)


def test_debug_shows_the_traceback() -> None:
    ran = fit_toy("--debug", "--model.hiden_size", 3)
    assert ran.status == 2
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("fit: ")
    assert "Traceback" in fit_toy("--trainer.gradient_clip_algorithm", "sharp", "--debug", "--runs", "/dev/null").err


def test_flags_win_wherever_they_stand(tmp_path: Path) -> None:
    recipe = write(tmp_path, "model: {hidden_size: 3}\n")
    flag = ("--model.hidden_size", 4)
    for given in (("-c", recipe), (f"-c{recipe}",), (f"-c={recipe}",), (f"--config={recipe}",)):
        assert settings(*given)["model"]["hidden_size"] == 3, given
    for argv in (("-c", recipe, *flag), (*flag, "-c", recipe), (*flag, f"--config={recipe}"), (*flag, f"-c{recipe}")):
        assert settings(*argv)["model"]["hidden_size"] == 4, argv


def test_precedence_is_flag_then_recipe_then_default(tmp_path: Path) -> None:
    default = yaml.safe_load((TOY_CONFIGS / "toy" / "default.yaml").read_text())["optim"]["lr"]
    recipe = write(tmp_path, "optim: {lr: 0.5}\n")
    later = write(tmp_path, "optim: {lr: 0.6}\n", "later.yaml")
    assert settings()["optim"]["lr"] == default != 0.5
    assert settings("-c", recipe)["optim"]["lr"] == 0.5
    assert settings("-c", recipe, "-c", later)["optim"]["lr"] == 0.6
    assert settings("-c", recipe, "--optim.lr", 0.7)["optim"]["lr"] == 0.7
    # What a recipe leaves out is as in the default.
    assert settings("-c", recipe)["optim"]["schedule"] == settings()["optim"]["schedule"]


def test_a_missing_default_is_refused(tmp_path: Path) -> None:
    ran = run("fit", "--domain", "toy", application=toy, configs=tmp_path)
    assert_one_line(ran, 2, "default.yaml", "missing")


@pytest.mark.parametrize(
    ("verb", "named"),
    [*((verb, "--domain NAME --help") for verb in ("fit", "finetune", "crossvalidate", "compare", "diagnose")),
     *((verb, "--checkpoint FILE_OR_RUN_FOLDER --help") for verb in ("evaluate", "predict"))],
)  # fmt: skip
def test_help_alone_says_what_to_give(verb: str, named: str) -> None:
    ran = run(verb, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: {verb}.py --")
    assert named in ran.out
    if "--domain" in named:
        assert "audio" in ran.out
        assert "translation" in ran.out


def test_help_has_the_groups_in_order_each_flag_with_text_type_and_default() -> None:
    ran = run("fit", "--domain", "translation", "--help")
    assert ran.status == 0
    assert not ran.err
    assert ran.out.startswith("usage: fit.py --domain NAME")
    assert ran.out.index("\n\n") < 100, "usage is one line"
    groups = ["--domain ", "--task ", "--model ", "--data ", "--optim ", "--tracking ", "--trainer "]
    places = [ran.out.index(f"  {group}") for group in groups]
    assert places == sorted(places)
    entries = re.split(r"\n  (?=-)", re.sub(r"\n\n[^ ].*\n", "\n", ran.out))[1:]
    flags = {entry.split()[0].rstrip(","): " ".join(entry.split()) for entry in entries}
    own = [flag for flag in flags if re.match(r"--(domain|task|(model|data|decoding|optim|tracking|trainer)\.)", flag)]
    own = [flag for flag in own if not flag.endswith(".help") and "CONFIG Path to" not in flags[flag]]
    assert len(own) > 70
    for flag in own:
        found = re.fullmatch(r"(\S+) (.*?)\((required, )?type: .+default: .+\)", flags[flag])
        assert found, flags[flag]
        text = re.sub(rf"{re.escape(flag)}\+?|\[ITEM,\.\.\.\]|\{{\S+\}}|[A-Z_]{{2,}},?", "", found.group(2))
        assert text.strip(), f"{flag} has no text: {flags[flag]}"


def test_a_name_that_exists_is_never_written_over(tmp_path: Path) -> None:
    taken = tmp_path / "toy" / "mine"
    taken.mkdir(parents=True)
    (taken / "kept.txt").write_text("kept")
    assert_one_line(fit_toy("--runs", tmp_path, "--name", "mine"), 2, str(taken), "exists", "--name", "--resume")
    assert [path.name for path in taken.iterdir()] == ["kept.txt"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, "a file", "file")
    assert_one_line(fit_toy("--runs", file, "--name", "a"), 1, str(file), "--runs")
    assert file.read_text() == "a file"


def test_a_run_leaves_what_it_should() -> None:
    folder = trained()
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.csv", "checkpoints", "samples"}
    names = sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt"))
    assert names[:2] == ["best.ckpt", "last.ckpt"]
    assert [name[:5] for name in names[2:]] == ["step-", "step-"]
    everything = {path.name for path in (folder / "checkpoints").iterdir()}
    assert everything == {*names, *(f"{name}.sha256" for name in names)}
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {"train/loss", "train/grad_norm", "train/lr", "train/tokens_per_second", "val/loss", "val/bleu"}
    assert wanted | {"val/perplexity", "val/chrf", "step", "epoch", "test/bleu"} <= rows[0].keys()
    for name in wanted:
        assert any(row[name] for row in rows), name
    tables = sorted((folder / "samples").glob("*.jsonl"))
    assert len(tables) == 2
    first = [json.loads(line) for line in tables[0].read_text(encoding="utf-8").splitlines()]
    second = [json.loads(line) for line in tables[1].read_text(encoding="utf-8").splitlines()]
    assert first[0].keys() == {"source", "reference", "translation"}
    assert [row["source"] for row in first] == [row["source"] for row in second], "the same sentences each time"
    assert len(list((folder / "samples").glob("*.png"))) == 2


def test_a_run_ends_with_what_a_person_wants_to_know() -> None:
    said = (trained().parent.parent / "fit.out").read_text(encoding="utf-8")
    for part in (str(trained()), "best.ckpt", "smooth:exp|version:", "nc:6|nw:0", "scripts/evaluate.py", "predict.py"):
        assert part in said
    assert len(re.findall(r"^  source ", said, flags=re.MULTILINE)) == 5


def test_a_users_callback_is_added_to_the_standing_ones(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    callback = ("--trainer.callbacks+=tests.commands.Recorder", f"--trainer.callbacks.file={seen}")
    ran = fit_toy("--runs", tmp_path, "--name", "a", *callback)
    assert ran.status == 0, ran
    names = seen.read_text().split()
    assert {"StepSeed", "LearningRate", "StepLog", "Samples", "RunCheckpoints", "Recorder"} <= set(names)


def test_a_callback_with_an_enumeration_does_not_spoil_config_and_checkpoint(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--name", "a", "--trainer.callbacks+=lightning.pytorch.callbacks.Timer")
    assert ran.status == 0, ran
    saved = yaml.safe_load((tmp_path / "toy" / "a" / "config.yaml").read_text())
    assert saved["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"
    checkpoint = tmp_path / "toy" / "a" / "checkpoints" / "last.ckpt"
    torch.load(checkpoint, weights_only=True)


def test_disabled_tracking_writes_nothing_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit_toy(*QUIET, "--name", "a").status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert not [path for path in tmp_path.rglob("*") if "wandb" in path.name]


def test_no_such_verb() -> None:
    assert_one_line(run("fly"), 2, "fly")


def test_a_file_of_one_group_comes_before_flags_and_after_recipes(tmp_path: Path) -> None:
    recipe = write(tmp_path, "trainer: {log_every_n_steps: 5, accumulate_grad_batches: 2, precision: bf16-mixed}")
    group = write(tmp_path, "log_every_n_steps: 6\nlimit_val_batches: 3\n", "t.yaml")
    flags = ["--trainer.limit_val_batches=1", "--trainer", str(group), "-c", str(recipe)]
    for given in (flags, [flags[0], f"--trainer={group}", f"--config={recipe}"]):
        trainer = settings(*given)["trainer"]
        assert (trainer["log_every_n_steps"], trainer["accumulate_grad_batches"]) == (6, 2)
        assert (trainer["limit_val_batches"], trainer["precision"]) == (1, "bf16-mixed")
        assert trainer["gradient_clip_val"] == 1.0  # of the defaults
