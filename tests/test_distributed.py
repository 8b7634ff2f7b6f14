"""Two processes make the steps of one process with the same global batch, and count every example once."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import domains
from tests.commands import ROOT, trained
from tests.finetuned import source_of
from tests.forked import in_processes

pytestmark = pytest.mark.distributed

# No dropout: each process draws its own. Odd sizes: 61 and 15 examples do not share out evenly.
FLAGS: dict[str, list[str]] = {
    "toy": ["--model.dropout=0"],
    "translation": [
        "--data.sample_size=121", "--model.dropout=0", "--model.embedding_size=16",
        "--model.encoder.hidden_size=16", "--model.decoder.hidden_size=16", "--trainer.max_epochs=1",
        "--trainer.limit_test_batches=3", "--trainer.limit_val_batches=5", "--trainer.log_every_n_steps=2",
    ],
    "video": [
        "--data.sample_size=61", "--model.cnn.width=8", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=2",
    ],
    "text": [
        "--data.sample_size=121", "--model.dropout=0", "--model.embedding_size=16",
        "--model.encoder.hidden_size=16", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=2",
    ],
    "audio": [
        "--data.sample_minutes=0.3", "--data.window=1000", "--model.channels=8", "--model.num_layers=4",
        "--model.cycle=3", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=2", "--samples=2",
    ],
}  # fmt: skip


def fit(domain: str, name: str, folder: Path, flags: list[str], *, verb: str = "fit", ranks: int = 1) -> Path:
    arguments = ["--domain", domain, "--runs", str(folder), "--name", name, "--tracking.mode=disabled"]
    arguments += ["--trainer.accelerator=cpu", *FLAGS[domain], *flags]
    if ranks > 1:
        arguments += [f"--trainer.devices={ranks}", "--trainer.strategy=ddp"]
    ended = in_processes("never", arguments, verb=verb, ranks=ranks)
    assert [each.status for each in ended] == [0] * ranks, "\n".join(each.err for each in ended)
    return folder / domain / name


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_two_equal_one(domain: str, folder: Path, common: list[str], *, verb: str = "fit") -> tuple[Path, Path]:
    """Train once by one process and once by two; weights and figures are the same."""
    one = fit(domain, "one", folder, ["--data.batch_size=16", *common], verb=verb)
    two = fit(domain, "two", folder, ["--data.batch_size=8", *common], verb=verb, ranks=2)
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two))
    assert first["global_step"] == second["global_step"] > 0
    for name, weight in first["state_dict"].items():
        torch.testing.assert_close(second["state_dict"][name], weight, rtol=1e-4, atol=1e-5, msg=name)
    compare(rows(one), rows(two))
    return one, two


@pytest.mark.parametrize("domain", ["toy", *domains.available()])
@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_equal_one(domain: str, accumulate: int, tmp_path: Path) -> None:
    assert_two_equal_one(domain, tmp_path, [f"--trainer.accumulate_grad_batches={accumulate}"])


# All groups thaw, one by one; or the lower ones never do, and the strategy is not to wait for them.
GRADUAL, TOP = ["--finetune.unfreeze=steps", "--finetune.unfreeze_every=2"], ["--finetune.groups=1"]
TUNED = [("toy", GRADUAL), ("toy", TOP), *((name, GRADUAL) for name in domains.available())]
TUNED += [pytest.param(name, TOP, marks=pytest.mark.slow) for name in domains.available()]  # type: ignore[misc]


@pytest.mark.parametrize(("domain", "policy"), TUNED)
def test_two_processes_fine_tune_as_one(domain: str, policy: list[str], tmp_path: Path) -> None:
    source = source_of(domain, [*FLAGS[domain], "--data.batch_size=16"])
    common = [f"--source={source}", "--finetune.lr_factor=0.5", "--optim.weight_decay=0.1", *policy]
    runs = assert_two_equal_one(domain, tmp_path, common, verb="finetune")
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"] for run in runs
    ]
    assert states[0].keys() == states[1].keys()
    counts = [sorted({int(each["step"]) for each in state.values()}) for state in states]
    assert counts[0] == counts[1], "parameters were updated in other steps"


def compare(first: list[dict[str, str]], second: list[dict[str, str]]) -> None:
    """Every figure of two runs but the throughput: losses within 1e-5, gradients within 1e-4, text scores exactly."""
    assert len(first) == len(second)
    compared = set()
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            if value and "per_second" not in name:
                tolerance = 1e-4 if "norm" in name else 1e-5
                assert float(right[name]) == pytest.approx(float(value), rel=tolerance), name
                compared.add(name)
    assert {"train/loss", "train/grad_norm", "val/loss", "test/loss"} <= compared


def test_fewer_examples_than_processes_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.interrupted", "never", "fit", "--domain=toy", "--runs", str(tmp_path)]
    command += ["--data.size=1", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    done = subprocess.run([*command, "--tracking.mode=disabled"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "1 examples are fewer than 2 processes: use fewer devices" in done.stderr


def test_two_processes_write_every_result_once_in_order(tmp_path: Path) -> None:
    run = trained()
    common = [f"--checkpoint={run}", "--trainer.accelerator=cpu"]
    written = []
    for name, flags in (("one", []), ("two", ["--trainer.devices=2", "--trainer.strategy=ddp"])):
        output = tmp_path / f"{name}.jsonl"
        script("evaluate", [*common, f"--output={output}", *flags])
        written.append([json.loads(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]])
    assert [each["index"] for each in written[1]] == list(range(41))
    assert [each["translation"] for each in written[0]] == [each["translation"] for each in written[1]]
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(each["source"] for each in written[0]) + "\n", encoding="utf-8")
    predicted = script("predict", [*common, "--trainer.devices=2", "--trainer.strategy=ddp", str(lines)])
    assert predicted.split("\n")[:-1] == [each["translation"] for each in written[0]]


def script(verb: str, arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, f"scripts/{verb}.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
