"""A real run of translation, tracked offline, read back with the client's own reader; and runs without tracking."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from suite.wandb_logger import STEP, client_folders, read_run_id
from tests.commands import SMALL
from tests.test_tracking import Listener, clean_environment, history, summary

EPOCHS, STEPS = 2, 3  # an epoch
TRAIN = ("train/loss", "train/lr", "train/grad_norm", "train/tokens_per_second")
VAL = ("val/loss", "val/perplexity", "val/bleu", "val/chrf", "val/exact")
TEST = tuple(name.replace("val", "test") for name in VAL)
# Lightning's own advertisements are off by one variable; by the other, processes that it starts find the run folder.
# The last is Lightning's own, which is taken back where there is no GPU (``suite.process``).
MAY_CHANGE = {"POSSIBLE_USER_WARNINGS", "SUITE_RUN_FOLDER", "PYTORCH_NVML_BASED_CUDA_CHECK"}


def command(name: str, *more: str, epochs: int = 1) -> list[str]:
    return [
        *("--domain", "translation", *SMALL, "--runs", "runs", "--name", name, "--samples", "3"),
        *("--data.sample_size", "200", "--data.vocabulary.size", "120", "--data.max_tokens", "null"),
        *("--data.batch_size", "8", "--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", str(STEPS)),
        *("--trainer.limit_val_batches", "2", "--trainer.limit_test_batches", "2", *more),
    ]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One process, four runs: tracked, disabled by flag, by variable, and the variable beaten by the flag."""
    base = tmp_path_factory.mktemp("tracked")
    listener = Listener()
    runs: list[dict[str, Any]] = [
        {"variables": {}, "argv": command("tracked", epochs=EPOCHS)},
        {"variables": {"WANDB_MODE": "online"}, "argv": command("flag", "--tracking.mode", "disabled")},
        {"variables": {"WANDB_MODE": "disabled"}, "argv": command("variable")},
        {"variables": {"WANDB_MODE": "disabled"}, "argv": command("beaten", "--tracking.mode", "offline")},
    ]
    result = subprocess.run(
        [sys.executable, "-m", "tests.tracked_fit", json.dumps(runs)],
        cwd=base,
        env=clean_environment(base / "home", **listener.variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    assert [run["status"] for run in said["runs"]] == [0] * len(runs), said
    folder = base / "runs" / "translation" / "tracked"
    (tracked_run,) = client_folders(folder, "*run-*")
    return SimpleNamespace(
        **{"base": base, "folder": folder, "runs": said["runs"], "attempts": said["attempts"]},
        **{"visits": listener.visits, "stderr": result.stderr, "wandb": tracked_run},
        **{"summary": summary(tracked_run), "history": history(tracked_run)},
    )


def values(tracked: SimpleNamespace, key: str) -> list[tuple[int, float]]:
    """Step and value, wherever W&B's history has the key."""
    return [(line[STEP], line[key]) for line in tracked.history if key in line]


def rows(tracked: SimpleNamespace) -> list[dict[str, str]]:
    with (tracked.folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_no_network_no_question_and_the_same_environment(tracked: SimpleNamespace) -> None:
    assert tracked.attempts == []
    assert tracked.visits == 0
    assert "wandb:" not in tracked.stderr
    for run in tracked.runs:
        assert set(run["changed"]) <= MAY_CHANGE
        assert "Traceback" not in run["err"]
        assert "wandb:" not in run["err"]


def test_config_is_the_whole_settings(tracked: SimpleNamespace) -> None:
    config = {key: value for key, value in tracked.summary["config"].items() if key != "_wandb"}
    assert config == yaml.safe_load((tracked.folder / "config.yaml").read_text(encoding="utf-8"))
    groups = {"domain", "task", "seed", "threads", "model", "data", "optim", "decoding", "tracking", "trainer"}
    assert groups <= config.keys()
    assert config["model"]["encoder"]["cell"] == "gru"
    assert config["data"]["vocabulary"]["size"] == 120
    assert (tracked.summary["name"], tracked.summary["project"]) == ("tracked", "sequence-suite")
    assert (tracked.summary["state"], tracked.summary["exit_code"]) == ("finished", 0)


def test_every_figure_is_there_at_every_step(tracked: SimpleNamespace) -> None:
    for key in TRAIN:
        assert [step for step, _ in values(tracked, key)] == list(range(1, EPOCHS * STEPS + 1)), key
    for key in VAL:
        assert [step for step, _ in values(tracked, key)] == [STEPS, 2 * STEPS], key
    for key in TEST:
        assert len(values(tracked, key)) == 1, key
    for key in (*TRAIN, *VAL, *TEST):
        assert all(math.isfinite(value) for _, value in values(tracked, key)), key
    assert all(value > 0 for key in TRAIN for _, value in values(tracked, key))
    for split in ("val", "test"):
        pairs = zip(values(tracked, f"{split}/loss"), values(tracked, f"{split}/perplexity"), strict=True)
        assert all(math.isclose(math.exp(loss), perplexity, rel_tol=1e-4) for (_, loss), (_, perplexity) in pairs)


def test_epoch_and_step_never_go_back(tracked: SimpleNamespace) -> None:
    steps = [line[STEP] for line in tracked.history]
    assert len(steps) == len(tracked.history)
    assert steps == sorted(steps)
    epochs = [value for _, value in values(tracked, "epoch")]
    assert epochs == sorted(epochs)
    assert set(epochs) >= set(range(EPOCHS))


def test_metrics_file_has_the_same_values(tracked: SimpleNamespace) -> None:
    for key in (*TRAIN, *VAL, *TEST):
        written = [(int(row["step"]), float(row[key])) for row in rows(tracked) if row[key]]
        assert written == values(tracked, key), key
    steps = [int(row["step"]) for row in rows(tracked)]
    assert steps == sorted(steps)


def test_each_validation_has_its_table(tracked: SimpleNamespace) -> None:
    found = [line for line in tracked.history if "samples/table.path" in line]
    assert [line[STEP] for line in found] == [STEPS, 2 * STEPS]
    tables = [json.loads((tracked.wandb / "files" / line["samples/table.path"]).read_text()) for line in found]
    for step, table in zip((STEPS, 2 * STEPS), tables, strict=True):
        assert table["columns"] == ["source", "reference", "translation"]
        assert len(table["data"]) == 3
        kept = (tracked.folder / "samples" / f"step-{step:07d}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [list(json.loads(line).values()) for line in kept] == table["data"]
    # The same sentences each time; what is made of them may differ.
    assert [row[:2] for row in tables[0]["data"]] == [row[:2] for row in tables[1]["data"]]
    assert all(source and reference for source, reference, _ in tables[0]["data"])


def test_each_validation_has_its_image(tracked: SimpleNamespace) -> None:
    found = [line for line in tracked.history if "samples/figure.path" in line]
    assert [line[STEP] for line in found] == [STEPS, 2 * STEPS]
    for line in found:
        image = (tracked.wandb / "files" / line["samples/figure.path"]).read_bytes()
        assert image.startswith(b"\x89PNG")
        assert image == (tracked.folder / "samples" / f"step-{line[STEP]:07d}.png").read_bytes()
    assert len({line["samples/figure.path"] for line in found}) == EPOCHS


def test_the_run_says_how_to_upload_it(tracked: SimpleNamespace) -> None:
    assert f"wandb sync runs/translation/tracked/wandb/{tracked.wandb.name}" in tracked.runs[0]["out"]
    assert tracked.summary["run_id"] == read_run_id(tracked.folder)


@pytest.mark.parametrize(("name", "number"), [("flag", 1), ("variable", 2)])
def test_disabled_leaves_no_wandb(name: str, number: int, tracked: SimpleNamespace) -> None:
    folder = tracked.base / "runs" / "translation" / name
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.csv", "checkpoints", "samples"}
    assert "wandb" not in tracked.runs[number]["out"]
    assert not (tracked.base / "wandb").exists()


def test_the_flag_beats_the_variable(tracked: SimpleNamespace) -> None:
    folder = tracked.base / "runs" / "translation" / "beaten"
    (run,) = client_folders(folder, "*run-*")
    assert run.name.startswith("offline-run-")
    assert [line for line in history(run) if "val/bleu" in line]
    assert "wandb sync" in tracked.runs[3]["out"]


def test_nothing_is_written_elsewhere(tracked: SimpleNamespace) -> None:
    assert {path.name for path in tracked.base.iterdir()} <= {"runs", "home"}
    home = Path(tracked.base / "home")
    assert not [path for path in home.rglob("*") if "artifact" in path.name or "wandb-metadata" in path.name]
