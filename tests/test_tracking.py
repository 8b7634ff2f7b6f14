"""W&B: a real offline run read back by the client's own reader; modes, keys and steps without one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from suite import tracking, wandb_logger
from suite.errors import SuiteError, UsageError
from suite.tracking import TrackingConfig, build_logger, check_online, closing_lines, resolve_mode

ROOT = Path(__file__).parent.parent


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Without a key or any other W&B setting; everything that a client might read at home is not there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    kept.pop("NETRC", None)
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


class Listener:
    """A proxy that takes no request and counts who came: the client's service process honours proxy variables."""

    def __init__(self) -> None:
        self.visits = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            connection, _ = self.server.accept()
            self.visits += 1
            connection.close()

    @property
    def variables(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        return dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)


def inspect(folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def summary(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def history(folder: Path) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in inspect(folder) if record["type"] == "history"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """One process: a run of six steps and its resumption from the second; see tracked_run.py."""
    base = tmp_path_factory.mktemp("tracked")
    listener = Listener()
    result = subprocess.run(
        [sys.executable, "-m", "tests.tracked_run", "runs/toy"],
        cwd=base,
        env=clean_environment(base / "home", **listener.variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    folder = base / "runs" / "toy"
    return SimpleNamespace(
        base=base,
        folder=folder,
        visits=listener.visits,
        stderr=result.stderr,
        said=json.loads(result.stdout.splitlines()[-1]),
        runs=wandb_logger.client_folders(folder, "*run-*"),
    )


def test_offline_asks_nobody_connects_to_nothing_and_changes_no_environment(tracked):
    assert tracked.visits == 0
    assert tracked.said["attempts"] == []
    assert tracked.said["same_environment"]
    assert "wandb:" not in tracked.stderr
    assert "Please enter" not in tracked.stderr


def test_offline_stays_in_the_run_folder(tracked):
    names = {path.name for path in tracked.folder.iterdir()}
    assert names == {"wandb", "wandb-id.txt", "metrics.csv", "first.ckpt"}
    assert not list((tracked.base / "home").rglob("artifacts"))


def test_offline_run_holds_settings_and_names(tracked):
    read = summary(tracked.runs[0])
    config = {key: value for key, value in read["config"].items() if key != "_wandb"}
    assert config == {
        "model": {"hidden_size": 4, "dropout": 0.5},
        "data": {"files": ["a.csv", "b.csv"], "limit": None},
    }
    assert (read["project"], read["name"], read["tags"], read["notes"]) == (
        "sequence-suite",
        "toy",
        ["test"],
        "a note",
    )
    assert (read["state"], read["exit_code"]) == ("finished", 0)


def test_offline_run_holds_every_number_of_the_metrics_file(tracked):
    rows = [
        (line["trainer/global_step"], key, line[key])
        for folder in tracked.runs
        for line in history(folder)
        for key in ("train/loss", "val/loss")
        if key in line
    ]
    header, *lines = [line.split(",") for line in (tracked.folder / "metrics.csv").read_text().splitlines()]
    written = [
        (int(line[0]), key, float(line[header.index(key)]))
        for line in lines
        for key in ("train/loss", "val/loss")
        if line[header.index(key)]
    ]
    assert len(written) == 8 + 4
    assert dict.fromkeys(sorted(rows)) == dict.fromkeys(sorted(written))  # the last recorded step may come twice


def test_offline_run_holds_table_and_image(tracked):
    media = tracked.runs[0] / "files" / "media"
    shown = summary(tracked.runs[0])["summary"]
    table = json.loads((tracked.runs[0] / "files" / shown["samples"]["path"]).read_text())
    assert table["columns"] == ["text", "score"]
    assert table["data"] == [["a", None], ["b", 6]]  # of the latest validation
    assert len(list((media / "table").iterdir())) == 3
    assert (shown["plot"]["format"], shown["plot"]["caption"]) == ("png", "a line")
    assert list((media / "images").glob("plot_*.png"))
    steps = [line["trainer/global_step"] for line in history(tracked.runs[0]) if "samples.path" in line]
    assert steps == [2, 4, 6]


def test_resumed_run_keeps_its_id_and_its_steps_go_on(tracked):
    assert len(tracked.runs) == 2
    run_id = wandb_logger.read_run_id(tracked.folder)
    assert len(run_id or "") == 8
    assert {summary(folder)["run_id"] for folder in tracked.runs} == {run_id}
    steps = [line["trainer/global_step"] for folder in tracked.runs for line in history(folder)]
    assert steps == sorted(steps)
    assert set(steps) == set(range(1, 9))
    assert "W&B has this run up to step 6" in tracked.stderr


def test_closing_lines_name_the_command_that_uploads_every_part(tracked, monkeypatch):
    monkeypatch.chdir(tracked.base)
    parts = [f"runs/toy/wandb/{folder.name}" for folder in tracked.runs]
    client, *rest = tracked.said["closing"][-1].split()
    assert Path(shutil.which(client) or client).is_file(), "it can be typed as it stands"
    assert Path(client).name == "wandb"
    assert rest == ["sync", *parts]
    assert closing_lines("offline", tracked.folder) == tracked.said["closing"]
    elsewhere = tracked.base / "home"
    monkeypatch.chdir(elsewhere)
    assert str(tracked.runs[0].resolve()) in closing_lines("offline", tracked.folder)[-1]
    assert closing_lines("disabled", tracked.folder) == closing_lines("online", tracked.folder) == []


def test_closing_lines_leave_out_what_was_uploaded_and_give_the_address_online(tmp_path):
    for name, marks in (("offline-run-1-x", ["run-x.wandb.synced"]), ("offline-run-2-x", [])):
        (tmp_path / "wandb" / name).mkdir(parents=True)
        for mark in marks:
            (tmp_path / "wandb" / name / mark).touch()
    line = closing_lines("offline", tmp_path)[-1]
    assert "offline-run-2-x" in line
    assert "offline-run-1-x" not in line
    wandb_logger.write_run_id(tmp_path, "abcd1234", url="https://wandb.ai/me/p/runs/abcd1234")
    assert closing_lines("online", tmp_path) == ["W&B: https://wandb.ai/me/p/runs/abcd1234"]
    assert wandb_logger.read_run_id(tmp_path) == "abcd1234"


@pytest.mark.parametrize(
    ("flag", "variable", "mode"),
    [
        (None, None, "offline"),
        (None, "", "offline"),
        (None, "online", "online"),
        (None, "offline", "offline"),
        (None, "dryrun", "offline"),
        (None, "disabled", "disabled"),
        ("offline", "online", "offline"),
        ("online", "disabled", "online"),
        ("disabled", "online", "disabled"),
        ("offline", "nonsense", "offline"),
    ],
)
def test_flag_before_variable_before_offline(flag, variable, mode):
    environ = {} if variable is None else {"WANDB_MODE": variable}
    assert resolve_mode(TrackingConfig(mode=flag), environ) == mode


def test_an_unknown_variable_is_refused():
    with pytest.raises(UsageError, match=r"WANDB_MODE=on: allowed are online, offline, disabled"):
        resolve_mode(TrackingConfig(), {"WANDB_MODE": "on"})
    with pytest.raises(UsageError, match=r"WANDB_DISABLED must be true or false, got maybe"):
        resolve_mode(TrackingConfig(), {"WANDB_DISABLED": "maybe"})


@pytest.mark.parametrize("value", ["true", "TRUE", "True", "1", "yes", "Y", "on", "t"])
def test_wandb_disabled_means_disabled(value):
    assert resolve_mode(TrackingConfig(), {"WANDB_DISABLED": value}) == "disabled"
    assert resolve_mode(TrackingConfig(), {"WANDB_DISABLED": value, "WANDB_MODE": "online"}) == "disabled"
    assert resolve_mode(TrackingConfig(mode="offline"), {"WANDB_DISABLED": value}) == "offline", "the flag comes first"


@pytest.mark.parametrize("value", ["false", "0", "no", "OFF", "n", "f", ""])
def test_wandb_disabled_that_is_false_changes_nothing(value):
    assert resolve_mode(TrackingConfig(), {"WANDB_DISABLED": value}) == "offline"
    assert resolve_mode(TrackingConfig(), {"WANDB_DISABLED": value, "WANDB_MODE": "online"}) == "online"


def test_wandb_disabled_beside_online_is_reported_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert build_logger(TrackingConfig(), run_folder=tmp_path, settings={}, resume_id=None) is None
    assert "WANDB_DISABLED=true overrides WANDB_MODE=online" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_lightning_without_the_dead_setting_is_no_error(tmp_path, monkeypatch):
    begin = wandb_logger.WandbLogger.__init__

    def without(self, *arguments, **settings):
        begin(self, *arguments, **settings)
        self._wandb_init.pop("anonymous", None)

    monkeypatch.setattr(wandb_logger.WandbLogger, "__init__", without)
    tracker = build_logger(TrackingConfig(mode="offline"), run_folder=tmp_path, settings={}, resume_id=None)
    assert tracker is not None
    assert "anonymous" not in tracker._wandb_init


def test_disabled_leaves_nothing(tmp_path):
    assert build_logger(TrackingConfig(mode="disabled"), run_folder=tmp_path, settings={}, resume_id=None) is None
    assert not list(tmp_path.iterdir())
    tracking.finish(None)


def test_offline_needs_a_folder_that_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SuiteError, match=r"wandb-id\.txt: cannot write"):
        build_logger(TrackingConfig(mode="offline"), run_folder=tmp_path / "file" / "x", settings={}, resume_id=None)


def test_online_without_a_key_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(UsageError, match=r"no API key; .*--tracking\.mode offline"):
        build_logger(TrackingConfig(mode="online"), run_folder=tmp_path / "run", settings={}, resume_id=None)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UsageError, match=r"WANDB_API_KEY invalid.*--tracking\.mode offline"):
        check_online("online")
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'a' * 40}\n")
    check_online("online")
    check_online("offline")


def test_online_without_a_network_fails_soon_and_names_the_flag(tmp_path):
    code = """
import os, pathlib, time
from suite.errors import SuiteError
from suite.tracking import TrackingConfig, build_logger
before, start = dict(os.environ), time.monotonic()
try:
    build_logger(TrackingConfig(mode="online"), run_folder=pathlib.Path("run"), settings={}, resume_id=None)
except SuiteError as error:
    print(f"{time.monotonic() - start} {error}")
assert dict(os.environ) == before
"""
    environment = clean_environment(tmp_path, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="a" * 40)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    seconds, line = result.stdout.splitlines()[0].split(" ", 1)
    assert line.startswith("W&B (online) did not start: ")
    assert "--tracking.mode offline" in line
    assert float(seconds) < 10


class FakeRun:
    """Takes what is logged, as the client's run would."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def log(self, line: dict[str, Any]) -> None:
        self.lines.append(line)


def tracker_at(folder: Path, *, recorded: int, resumed: bool) -> tuple[wandb_logger.WandbTracker, FakeRun]:
    tracker = build_logger(
        TrackingConfig(mode="offline"), run_folder=folder, settings={}, resume_id="abcd1234" if resumed else None
    )
    assert tracker is not None
    run = FakeRun()
    tracker._experiment = run  # type: ignore[assignment]
    tracker._recorded = tracker._latest = recorded
    return tracker, run


def test_media_never_take_the_step_back(tmp_path):
    tracker, run = tracker_at(tmp_path, recorded=-1, resumed=False)
    loggers = [CSVLogger(tmp_path), tracker]
    tracker.log_metrics({"a": 1.0}, 5)
    tracking.log_table(loggers, "t", ["x"], [[1]], 3)
    tracker.log_metrics({"a": 2.0})
    tracker.log_metrics({"a": 3.0}, 7)
    assert [line["trainer/global_step"] for line in run.lines] == [5, 5, 5, 7]


def test_a_resumed_run_leaves_out_what_is_recorded_and_an_evaluation_is_kept(tmp_path):
    tracker, run = tracker_at(tmp_path / "a", recorded=5, resumed=True)
    for step in (3, 4, 5, 6, 0):
        tracker.log_metrics({"a": 1.0}, step)
    assert [line["trainer/global_step"] for line in run.lines] == [5, 6, 6]
    tracker, run = tracker_at(tmp_path / "b", recorded=5, resumed=False)
    tracker.log_metrics({"test": 1.0}, 0)
    assert run.lines == [{"test": 1.0, "trainer/global_step": 5}]


def test_without_tracker_tables_and_images_are_passed_over(tmp_path):
    for loggers in (None, [], CSVLogger(tmp_path), [CSVLogger(tmp_path)]):
        tracking.log_table(loggers, "t", ["x"], [[1]], 0)
        tracking.log_image(loggers, "i", "nowhere.png", 0)
        tracking.finish(loggers)
    assert not list(tmp_path.iterdir())


def test_the_id_belongs_to_the_folder(tmp_path):
    def new(folder: str, resume_id: str | None = None) -> str | None:
        tracker = build_logger(
            TrackingConfig(mode="offline"), run_folder=tmp_path / folder, settings={}, resume_id=resume_id
        )
        return tracker.version if tracker else None

    assert new("a") == new("a") == wandb_logger.read_run_id(tmp_path / "a")
    assert new("a") != new("b")
    assert new("b", "other123") == new("b") == "other123"


def test_other_processes_make_no_run(tmp_path, monkeypatch):
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    tracker = build_logger(TrackingConfig(mode="offline"), run_folder=tmp_path / "run", settings={}, resume_id=None)
    assert tracker is not None
    tracker.log_hyperparams({})
    tracker.log_metrics({"a": 1.0}, 0)
    tracking.log_table(tracker, "t", ["x"], [[1]], 0)
    tracking.finish(tracker)
    assert not (tmp_path / "run").exists()
