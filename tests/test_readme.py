"""Every command of the README is one that the command line takes; those on a trained model are run."""

import re
import shlex
from pathlib import Path

import pytest

import domains
from suite import checkpoint
from suite.cli import CONFIGS
from suite.effects import find_unused
from suite.parser import recipes_first
from suite.peek import peek_domain
from suite.verb_parsers import fit_parser, run_needs
from tests.commands import QUIET, ROOT, pairs_of, run, trained


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")


def commands_of(text: str) -> list[str]:
    return [line.split("  #")[0].strip() for line in re.findall(r"^    (\S.*scripts/.*)$", text, flags=re.MULTILINE)]


TEXT = read("README.md")
COMMANDS = commands_of(TEXT)
TUNING = [each for each in [*COMMANDS, *commands_of(read("docs/finetuning.md"))] if "finetune.py" in each]


def test_there_are_commands_of_each_kind() -> None:
    assert {re.search(r"scripts/(\w+)\.py", command).group(1) for command in COMMANDS} == {  # type: ignore[union-attr]
        "fit", "evaluate", "predict", "finetune", "benchmark", "average", "diagnose",
    }  # fmt: skip
    assert len(TUNING) > 3


@pytest.mark.parametrize("command", [each for each in COMMANDS if "scripts/fit.py" in each and "--help" not in each])
def test_fit_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command.split("scripts/fit.py", 1)[1])
    domain = domains.load(peek_domain(arguments, domains.available()))
    parser = fit_parser(domain, domain.default, defaults=CONFIGS / domain.name / "default.yaml")
    config = parser.parse_args(recipes_first(arguments))
    assert not find_unused(dict(config.items()), parser.given(arguments), run_needs(domain.task(None))).problems


@pytest.mark.parametrize("command", [each for each in COMMANDS if "scripts/diagnose.py" in each])
def test_diagnose_commands_parse(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command.split("scripts/diagnose.py", 1)[1])
    outputs = [str(tmp_path / word) if word.endswith(".json") else word for word in arguments]
    small = ["--data.dataset", "sample", "--data.sample_size", "200", *QUIET, "--steps", "1"]
    ran = run("diagnose", *outputs, *small)
    assert ran.status == 0, ran
    assert [path.name for path in tmp_path.iterdir()] == [word for word in arguments if word.endswith(".json")]


@pytest.mark.parametrize("command", [each for each in COMMANDS if "scripts/average.py" in each])
def test_average_commands(command: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    content = checkpoint.read(trained() / "checkpoints" / "last.ckpt")
    for step in (content["global_step"], content["global_step"] - 1):
        checkpoint.write({**content, "global_step": step}, folder / "checkpoints" / f"step-{step}.ckpt")
    words = shlex.split(command.split("scripts/average.py", 1)[1])
    ran = run("average", *(str(folder) if word == "runs/translation/NAME" else word for word in words))
    assert ran.status == 0, ran
    (average,) = folder.glob("average-*.ckpt")
    assert run("predict", "--checkpoint", average, stdin=b"A dog is sleeping.\n").status == 0


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if "NAME" in each and re.search(r"(evaluate|predict|benchmark)\.py", each)]
)
def test_commands_on_a_run(command: str, tmp_path: Path) -> None:
    verb, rest = re.search(r"scripts/(\w+)\.py (.*)", command).groups()  # type: ignore[union-attr]
    arguments = [
        str(trained()) if word == "runs/translation/NAME" else str(tmp_path / word) if word.endswith(".jsonl") else word
        for word in shlex.split(rest)
    ]
    ran = run(verb, *arguments, stdin=b"A dog is sleeping.\n")
    assert ran.status == 0, ran
    assert ran.lines


@pytest.mark.parametrize("command", sorted(set(TUNING)))
def test_finetune_commands_run(command: str, tmp_path: Path) -> None:
    """As they stand, but for the run that they go on from, the size of the sample and the number of steps."""
    pairs, rows = tmp_path / "pairs.tsv", [("english", "german"), *pairs_of("train", 60)]
    pairs.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    given = {"runs/translation/NAME": str(trained()), "pairs.tsv": str(pairs)}
    arguments = [given.get(word, word) for word in shlex.split(command.split("scripts/finetune.py", 1)[1])]
    short = [f"--trainer.{name}=1" for name in ("max_steps", "limit_val_batches", "limit_test_batches")]
    size = [] if "files" in arguments else ["--data.sample_size=60"]
    ran = run("finetune", *arguments, *short, *size, *QUIET, "--runs", tmp_path / "runs")
    assert ran.status == 0, ran.err
    assert "Source " in ran.err


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
