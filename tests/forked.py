"""A verb in processes forked from this one, so that nothing is imported again: by itself, or as ranks of a launcher."""

import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from tests.interrupted import run


class Forked(NamedTuple):
    """How a process ended, and what it wrote to standard error."""

    status: int
    err: str


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun tells the processes that it starts on one node."""
    return {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def in_processes(
    when: str,
    arguments: list[str],
    *,
    verb: str = "fit",
    ranks: int = 1,
    of_rank: Sequence[dict[str, str]] | None = None,
    variables: dict[str, str] | None = None,
    seconds: float = 240,
) -> list[Forked]:
    """Run a verb, interrupted at ``when`` (see ``tests.interrupted``), in ``ranks`` forked processes.

    ``variables`` are added to the environment of all. Each is told its rank by its own of ``of_rank``; by those of
    torchrun if not given.
    """
    port = free_port()
    if of_rank is None:
        of_rank = [rank_variables(rank, ranks, port) if ranks > 1 else {} for rank in range(ranks)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(ranks)]

        def work(rank: int) -> None:
            for name in [name for name in os.environ if name.startswith("SUITE_RUN")]:
                del os.environ[name]  # a run that was begun in this process says so to processes it starts
            os.environ.update((variables or {}) | of_rank[rank])
            if "KILL_GROUP" in os.environ:
                os.setpgid(0, 0)  # a group of its own, so that this one lives on
            cast(Any, rank_zero_only).rank = rank  # a process that is started anew reads it at import
            with files[rank].open("w", buffering=1) as sys.stderr:
                os.dup2(sys.stderr.fileno(), 2)
                try:
                    status = run(when, verb, arguments)
                except SystemExit as stop:
                    status = int(stop.code or 0)
                except BaseException:
                    traceback.print_exc()
                    status = 1
            os._exit(status)

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=work, args=(rank,)) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
            process.kill()  # does nothing to one that has ended
            process.join()
        return [Forked(int(each.exitcode or 0), file.read_text()) for each, file in zip(processes, files, strict=True)]
