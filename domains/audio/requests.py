"""What ``predict`` is asked for: files to generate, each with its conditions, and what it goes on from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy
from numpy.typing import NDArray

from domains.audio.files import FileClip
from suite import kernels
from suite.errors import DataError, UsageError
from suite.seeding import mix

Engine = Literal["auto", "kernel", "torch"]


class Request(NamedTuple):
    """One file to generate: ``steps`` samples into ``path``, with a value for each condition."""

    number: int
    path: Path
    steps: int
    conditions: dict[str, str]
    temperature: float
    seed: int
    prime: Path | None
    mel_from: Path | None
    engine: Engine


class GenerationBatch(NamedTuple):
    """Requests that are generated at the same time."""

    requests: list[Request]


class RequestExamples:
    """Requests as a split."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = list(requests)
        self.lengths: NDArray[numpy.int64] = numpy.array([request.steps for request in requests], dtype=numpy.int64)

    def fetch(self, index: int, seed: int) -> Request:
        """Nothing is left to draw: a request has its own seed."""
        return self.requests[index]


def add_arguments(parser: Any) -> None:
    """The flags of ``predict``."""
    parser.add_argument(
        "--seconds", type=float | None, default=None, help="Length of each file; 1, or that of mel_from."
    )
    parser.add_argument("--count", type=int, default=1, help="How many files.")
    parser.add_argument(
        "--condition", nargs="*", type=str, default=[],
        help="NAME=VALUE for conditions of the model; one that is not given is drawn for each file.",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=1.0, help="Below 1 plays safe, above 1 dares more.")
    parser.add_argument("--seed", type=int, default=0, help="Decides every draw, whatever the engine.")
    parser.add_argument("--prime", type=str | None, default=None, help="Audio file that generation goes on from.")
    parser.add_argument("--mel_from", type=str | None, default=None, help="Audio file whose spectrum is the condition.")
    parser.add_argument("--output", type=str, default="generated", help="Folder for the files.")
    parser.add_argument("--overwrite", action="store_true", help="Write over files of the same names in --output.")
    parser.add_argument("--streams", type=int, default=64, help="Files generated at the same time.")
    parser.add_argument(
        "--engine", type=Engine, default="auto",
        help="kernel: compiled, for a CPU; torch: any device; auto: the kernel where there is a CPU and numba.",
    )  # fmt: skip


def read_requests(options: Any, assets: dict[str, Any]) -> list[Request]:
    """The requests of a command line.

    Raises:
        UsageError: settings that mean nothing, or that the model does not have.
        DataError: a file that cannot be read, a folder that cannot be made, or files that are there already.
    """
    for name in ("count", "streams"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} {getattr(options, name)}: allowed is 1 or more")
    if not 0 < options.temperature < 100:
        raise UsageError(f"--temperature {options.temperature}: allowed is more than 0, and below 100")
    check_engine(options.engine)
    given = _conditions(options.condition, assets["conditions"])
    steps = _steps(options, assets)
    if options.prime is not None and options.mel_from is not None:
        raise UsageError("--prime and --mel_from: nothing says what spectrum the prime had; give one of them")
    if options.prime is not None:
        FileClip(Path(options.prime), rate=assets["sample_rate"])
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: no folder that can be made ({error.strerror}): choose another --output") from None
    paths = [folder / f"{index:04d}.wav" for index in range(options.count)]
    there = [path for path in paths if path.exists()]
    if there and not options.overwrite:
        raise DataError(f"{there[0]} is there already: choose another --output, or add --overwrite")
    requests = []
    for index, path in enumerate(paths):
        rng = numpy.random.default_rng(mix(options.seed, "conditions", index))
        drawn = {name: str(rng.choice(values)) for name, values in assets["conditions"].items()}
        requests.append(
            Request(
                index,
                path,
                steps,
                {**drawn, **given},
                options.temperature,
                mix(options.seed, "samples", index),
                None if options.prime is None else Path(options.prime),
                None if options.mel_from is None else Path(options.mel_from),
                options.engine,
            )
        )
    return requests


def check_engine(kind: Engine, *, device: str = "cpu") -> None:
    """Refuse the kernel that was asked for by name where it cannot run: another engine must not be taken for it.

    Raises:
        UsageError: no numba, or a ``device`` that is no CPU.
    """
    if kind != "kernel":
        return
    if not kernels.AVAILABLE:
        raise UsageError(
            "--engine kernel needs numba, which is not installed or is switched off by NUMBA_DISABLE_JIT; allowed here "
            "are auto and torch (the same samples, but slower): install numba, or take one of them"
        )
    if device != "cpu":
        raise UsageError(
            f"--engine kernel is for a CPU, and the model is on {device}; allowed there are auto and torch: add "
            "--trainer.accelerator cpu, or take one of them"
        )


def _conditions(given: Sequence[str], known: dict[str, list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            raise UsageError(f"--condition {text}: allowed are NAME=VALUE, each name once")
        if name not in known:
            raise UsageError(f"--condition {text}: the model has {', '.join(known) or 'no conditions'}")
        if value not in known[name]:
            raise UsageError(f"--condition {text}: allowed for {name} are {', '.join(known[name])}")
        found[name] = value
    return found


def _steps(options: Any, assets: dict[str, Any]) -> int:
    """Samples in each file."""
    rate = assets["sample_rate"]
    if options.seconds is not None and not 1 / rate <= options.seconds <= 1e6:
        raise UsageError(f"--seconds {options.seconds}: allowed is a sample's length to a million")
    steps = round((1.0 if options.seconds is None else options.seconds) * rate)
    if options.mel_from is None:
        if assets["mel"] is not None:
            raise UsageError("the model is conditioned on a spectrum: give --mel_from FILE")
        return steps
    if assets["mel"] is None:
        raise UsageError("--mel_from: the model is not conditioned on a spectrum: leave it out")
    frames = FileClip(Path(options.mel_from), rate=rate).frames
    if options.seconds is not None and steps > frames:
        raise UsageError(
            f"--seconds {options.seconds}: {options.mel_from} lasts {frames / rate:.2f}; allowed is that or less"
        )
    return frames if options.seconds is None else steps
