"""The error line of a command appears once, not once for each rank."""

import pytest

from suite import cli
from suite.errors import DataError


def fail() -> int:
    return cli._fail("fit", [], DataError("x.csv: empty"), 1)


def test_only_the_first_process_prints_an_error_that_ends_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail() == 1
    assert capsys.readouterr().err == "fit: x.csv: empty\n"
    monkeypatch.setattr(cli, "is_first_process", lambda: False)
    monkeypatch.setattr("suite.cli.signal.signal", lambda *_: None)
    monkeypatch.setattr(cli, "_PARENT", -1)  # rank 0 started this process and has ended
    assert fail() == 1
    assert capsys.readouterr().err == ""


def test_an_error_of_another_process_alone_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "is_first_process", lambda: False)
    monkeypatch.setattr("suite.cli.signal.signal", lambda *_: None)
    monkeypatch.setattr("suite.cli.time.sleep", lambda _: monkeypatch.setattr("suite.cli.time.monotonic", lambda: 1e18))
    assert fail() == 1
    assert capsys.readouterr().err == "fit: x.csv: empty\n"
