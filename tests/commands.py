"""What the tests of commands share: a verb run in this process, and one small trained translation run."""

import atexit
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

import domains
import suite.fitting
from domains.translation import sample
from suite.cli import CONFIGS, main
from tests import toy

ROOT = Path(__file__).parent.parent
TOY_CONFIGS = ROOT / "tests" / "toy" / "configs"
QUIET = ("--tracking.mode", "disabled")
# Every setting that matters to a test stands here, whatever configs/translation/default.yaml says.
PINNED = (
    *("--model.encoder.cell", "gru", "--model.decoder.cell", "gru", "--model.attention", "general"),
    *("--model.tie", "output", "--model.dropout", "0.1", "--data.vocabulary.level", "bpe"),
    *("--data.vocabulary.joint", "true", "--data.batch_size", "null", "--data.max_tokens", "1000"),
    *("--optim.name", "adamw", "--optim.schedule", "cosine", "--optim.lr", "0.02", "--optim.warmup_steps", "10"),
)
SMALL = (
    *PINNED,
    *("--model.embedding_size", "16", "--model.encoder.hidden_size", "16", "--model.decoder.hidden_size", "16"),
    *("--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--trainer.log_every_n_steps", "1"),
    *("--decoding.beam_size", "1", "--decoding.max_length", "10"),
)
_shared: dict[str, Path] = {}


class Recorder(Callback):
    """A callback as a user may have one: writes the standing callbacks' names where ``file`` says.

    Args:
        file: Where to.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(self.file).write_text(" ".join(type(each).__name__ for each in trainer.callbacks))  # type: ignore[attr-defined]


class Ran(NamedTuple):
    """How a command ended: exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output in lines; other separators of Unicode than the line feed are part of a line."""
        return self.out.split("\n")[:-1]


def run(verb: str, *argv: Any, stdin: bytes | None = None, application: Any = domains, configs: Path = CONFIGS) -> Ran:
    """Run a verb as its script does, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    if stdin is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(
                    verb,
                    available=application.available,
                    load=application.load,
                    configs=configs,
                    argv=[str(argument) for argument in argv],
                )
            except SystemExit as stop:  # --help and --print_config
                status = int(stop.code or 0)
    finally:
        sys.stdin = before
    return Ran(status, out.getvalue(), err.getvalue())


def with_callback(monkeypatch: pytest.MonkeyPatch, callback: Callback) -> None:
    """Give each trainer that is built from now on one more callback."""
    build = suite.fitting.build_trainer

    def build_with(*args: Any, **kwargs: Any) -> Trainer:
        trainer = build(*args, **kwargs)
        trainer.callbacks.append(callback)  # type: ignore[attr-defined]
        return trainer

    monkeypatch.setattr(suite.fitting, "build_trainer", build_with)


def fit_toy(*argv: Any) -> Ran:
    """``fit`` in the toy domain: one epoch, untracked."""
    common = (*QUIET, "--trainer.max_epochs", 1)
    return run("fit", "--domain", "toy", *common, *argv, application=toy, configs=TOY_CONFIGS)


def assert_one_line(ran: Ran, status: int, *parts: str) -> None:
    """The command failed with ``status`` and one line that has all ``parts``."""
    assert ran.status == status, ran
    assert ran.err.count("\n") == 1, ran.err
    assert not ran.out, ran.out
    assert "Traceback" not in ran.err
    assert "usage:" not in ran.err
    for part in parts:
        assert part in ran.err, (part, ran.err)


def write_table(path: Path, pairs: list[tuple[str, str]], *, separator: str = "\t") -> Path:
    """Pairs as a table with the columns source and target."""
    lines = [f"source{separator}target", *(separator.join(pair) for pair in pairs)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pairs_of(split: str, size: int) -> list[tuple[str, str]]:
    """The first pairs of a split of the embedded sample, short ones: their translation is soon learnt."""
    return [pair for pair in sample.generate(split, size=size * 8) if len(pair[0].split()) <= 8][:size]


def shared(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` fills once in a test session, whichever file asks first."""
    if name not in _shared:
        folder = Path(tempfile.mkdtemp(prefix=f"suite-{name}-"))
        _shared[name] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        make(folder)
    return _shared[name]


def _train(folder: Path) -> None:
    files = []
    for split, name, size in (("train", "train", 400), ("validation", "val", 20), ("test", "test", 41)):
        files += [f"--data.{name}", write_table(folder / f"{name}.tsv", pairs_of(split, size))]
    ran = run(
        "fit",
        *("--domain", "translation", "--data.dataset", "files", *files, *QUIET, "--runs", folder, "--name", "tiny"),
        *PINNED,
        *("--model.embedding_size", 32, "--model.encoder.hidden_size", 32, "--model.decoder.hidden_size", 48),
        *("--data.vocabulary.size", 300),
        *("--trainer.max_epochs", 10, "--trainer.check_val_every_n_epoch", 5, "--trainer.log_every_n_steps", 5),
        *("--decoding.beam_size", 3, "--decoding.max_length", 40),
    )
    if ran.status:
        pytest.fail(f"the small translation run failed: {ran.err}")
    (folder / "fit.out").write_text(ran.out, encoding="utf-8")


def trained() -> Path:
    """The run folder of a small trained translation model; its data stands two folders up."""
    return shared("translation", _train) / "translation" / "tiny"
