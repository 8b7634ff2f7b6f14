"""Run by test_tracked_translation in a process of its own: ``fit`` several times, as the script does it.

The argument is JSON: a list of ``{"variables": {...}, "argv": [...]}``. Connections other than local sockets are
refused and reported, and so is what each run changed in the environment: the last line of standard output.
"""

import json
import os
import socket
import sys
from typing import Any

import wandb

from tests.commands import run

attempts: list[str] = []
_connect = socket.socket.connect


def _refuse(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX:
        attempts.append(str(address))
        raise ConnectionRefusedError(f"no connections here: {address}")
    _connect(self, address)


def fit(variables: dict[str, str], argv: list[str]) -> dict[str, Any]:
    """One run under a few environment variables, and how it ended."""
    os.environ.update(variables)
    before = dict(os.environ)
    ran = run("fit", *argv)
    changed = sorted(name for name in {**before, **os.environ} if before.get(name) != os.environ.get(name))
    for name in variables:
        del os.environ[name]
    return {**ran._asdict(), "changed": changed}


if __name__ == "__main__":
    socket.socket.connect = _refuse  # type: ignore[method-assign,assignment]
    runs = [fit(each["variables"], each["argv"]) for each in json.loads(sys.argv[1])]
    wandb.teardown()  # what the client sends late, it sends now
    print(json.dumps({"attempts": attempts, "runs": runs}))
