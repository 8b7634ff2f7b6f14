"""What ``predict`` is asked for: files to generate, each with its conditions, and what it goes on from."""

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy
from numpy.typing import NDArray

from domains.audio.checking import check_files
from domains.audio.files import ENDINGS, FileClip, open_clip
from domains.audio.request_table import Wish, read_wishes
from suite import kernels
from suite.errors import DataError, SuiteError, UsageError
from suite.folders import files_below
from suite.labels import clean_name
from suite.seeding import mix

Engine = Literal["auto", "kernel", "torch"]
_LONGEST_NAME = 240  # bytes; systems take 255, and an unfinished file has a longer name


class Request(NamedTuple):
    """One file to generate: ``steps`` samples into ``path``, with a value for each condition.

    ``draws`` is the seed of its samples, made of ``seed``, which the user gave, and of its number. ``problem`` is why
    nothing can be generated; ``isolated`` is whether a problem must not stop the other requests.
    """

    number: int
    path: Path
    steps: int
    conditions: dict[str, str]
    temperature: float
    seed: int
    draws: int
    prime: Path | None
    mel_from: Path | None
    engine: Engine
    problem: str | None = None
    isolated: bool = False


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
        "requests", nargs="?", type=str, default=None,
        help="Manifest (.csv, .tsv, .jsonl, .parquet) with a row for each file: columns of conditions, and of seconds, "
        "seed, output (file name), prime, mel_from.",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float | None, default=None, help="Length of each file; 1, or that of mel_from."
    )
    parser.add_argument(
        "--count", type=int, default=1, help="How many files; with several of prime or mel_from, for each."
    )
    parser.add_argument(
        "--condition", nargs="*", type=str, default=[],
        help="NAME=VALUE for conditions of the model; one that is not given is drawn for each file.",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=1.0, help="Below 1 plays safe, above 1 dares more.")
    parser.add_argument("--seed", type=int, default=0, help="Decides every draw, whatever the engine.")
    parser.add_argument(
        "--prime",
        type=str | None,
        default=None,
        help="Audio file that generation goes on from; a folder or glob of them.",
    )
    parser.add_argument(
        "--mel_from", type=str | None, default=None,
        help="Audio file whose spectrum is the condition; a folder or glob of them.",
    )  # fmt: skip
    parser.add_argument("--output", type=str, default="generated", help="Folder for the files.")
    parser.add_argument("--overwrite", action="store_true", help="Write over files of the same names in --output.")
    parser.add_argument("--streams", type=int, default=64, help="Files generated at the same time.")
    parser.add_argument(
        "--engine", type=Engine, default="auto",
        help="kernel: compiled, for a CPU; torch: any device; auto: the kernel where there is a CPU and numba.",
    )  # fmt: skip


def read_requests(options: Any, assets: dict[str, Any]) -> list[Request]:
    """The requests of a command line, in order.

    Of several from a manifest or from several files, one that cannot be met has a ``problem``.

    Raises:
        UsageError: settings that mean nothing, or that the model does not have.
        DataError: a file that cannot be read, a folder that cannot be made, or files that are there already.
    """
    _check_flags(options, assets)
    given = _conditions(options.condition, assets["conditions"])
    wishes, isolated = _wishes(options, assets, given)
    sources = {path for wish in wishes for path in (wish.prime, wish.mel_from) if path}
    clips, problems = _open_sources(sorted(sources), rate=assets["sample_rate"])
    folder = _make_folder(Path(options.output))
    names = [wish.output or f"{index:04d}.wav" for index, wish in enumerate(wishes)]
    counts = Counter(map(_file_name, names))
    requests = []
    for index, (wish, name) in enumerate(zip(wishes, names, strict=True)):
        steps, problem = 1, wish.problem
        try:
            if not problem:
                _check_values(wish.conditions, assets["conditions"], flag="condition")
                _check_name(name, counts)
                steps = _steps(wish, clips, problems, assets)
        except SuiteError as error:
            if not isolated:
                raise
            problem = str(error)
        seed, number = (options.seed, index) if wish.seed is None else (wish.seed, 0)
        rng = numpy.random.default_rng(mix(seed, "conditions", number))
        drawn = {each: str(rng.choice(values)) for each, values in assets["conditions"].items()}
        requests.append(
            Request(
                index,
                folder / _file_name(name),
                steps,
                {**drawn, **wish.conditions},
                options.temperature,
                seed,
                mix(seed, "samples", number),
                wish.prime,
                wish.mel_from,
                options.engine,
                problem,
                isolated,
            )
        )
    _refuse_present([request for request in requests if not request.problem], overwrite=options.overwrite)
    return requests


def _check_flags(options: Any, assets: dict[str, Any]) -> None:
    for name in ("count", "streams"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    if not 0 < options.temperature < 100:
        raise UsageError(f"--temperature must be above 0 and below 100, got {options.temperature}.")
    check_engine(options.engine)
    if options.requests is not None and options.count != 1:
        raise UsageError(f"--count {options.count}: {options.requests} has a row for each file: leave --count out")
    if options.prime is not None and options.mel_from is not None:
        raise UsageError("--prime and --mel_from: nothing says what spectrum the prime had; give one of them")


def _wishes(options: Any, assets: dict[str, Any], given: dict[str, str]) -> tuple[list[Wish], bool]:
    """What is asked for, in order, and whether a problem of one leaves the others."""
    primes, spectra = _expand("prime", options.prime), _expand("mel_from", options.mel_from)
    if options.requests is not None:
        if len(primes) > 1 or len(spectra) > 1:
            raise UsageError(f"several files of --prime or --mel_from beside {options.requests}: give them as a column")
        rows = read_wishes(Path(options.requests).expanduser(), conditions=list(assets["conditions"]))
        seconds = options.seconds
        return [
            row._replace(
                conditions={**given, **row.conditions},
                seconds=seconds if row.seconds is None else row.seconds,
                prime=row.prime or (None if row.mel_from else primes[0]),
                mel_from=row.mel_from or (None if row.prime else spectra[0]),
            )
            for row in rows
        ], True
    wishes = [
        Wish(given, options.seconds, prime=prime, mel_from=spectrum)
        for prime in primes
        for spectrum in spectra
        for _ in range(options.count)
    ]
    return wishes, len(primes) * len(spectra) > 1


def _expand(flag: str, given: str | None) -> list[Path | None]:
    """The files that a flag means: itself, those of a folder, or those that match."""
    if given is None:
        return [None]
    path = Path(given).expanduser()
    if path.is_dir():
        found = [each for each in files_below(path) if each.suffix.lower() in ENDINGS]
        if not found:
            raise DataError(f"--{flag} {given}: no files {', '.join(ENDINGS)} in it or below")
        return list(found)
    if glob.has_magic(given) and not path.exists():
        matching = sorted(Path(each) for each in glob.glob(str(path), recursive=True))
        if not matching:
            raise DataError(f"--{flag} {given}: no file matches")
        return list(matching)
    return [path]


def _open_sources(paths: Sequence[Path], *, rate: int) -> tuple[dict[Path, FileClip], dict[Path, str]]:
    """The files that requests go on from, checked as those of a split are, and what is wrong with others."""
    clips, problems = {}, {}
    for path in paths:
        try:
            clips[path] = open_clip(path, rate=rate)
        except DataError as error:
            problems[path] = str(error)
    faults = check_files(list(clips.values()), "predict")
    return clips, problems | {path: faults[clip.name] for path, clip in clips.items() if clip.name in faults}


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: no folder that can be made ({error.strerror}): choose another --output") from None
    return folder


def _file_name(name: str) -> str:
    return name if name.lower().endswith(".wav") else f"{name}.wav"


def _check_name(name: str, counts: Counter[str]) -> None:
    if Path(name).name != name or name.startswith(".") or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise DataError(f"output must be the name of a file in --output, without a folder, got {name!r}")
    if counts[_file_name(name)] > 1:
        raise DataError(f"output is {name!r} in {counts[_file_name(name)]} rows: give each file another name")


def _refuse_present(requests: Sequence[Request], *, overwrite: bool) -> None:
    there = [request.path for request in requests if request.path.exists()]
    if there and not overwrite:
        raise DataError(f"{there[0]} is there already: choose another --output, or add --overwrite")


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
        same = {clean_name(each): each for each in reversed(known[name])}  # older models have unclean values
        found[name] = value if value in known[name] else same.get(clean_name(value), value)
    _check_values(found, known, flag="--condition")
    return found


def _check_values(conditions: dict[str, str], known: dict[str, list[str]], *, flag: str) -> None:
    for name, value in conditions.items():
        if value not in known[name]:
            raise UsageError(f"{flag} {name}={value}: allowed for {name} are {', '.join(known[name])}")


def _steps(wish: Wish, clips: dict[Path, FileClip], problems: dict[Path, str], assets: dict[str, Any]) -> int:
    """Samples in a file.

    Raises:
        UsageError: a length that means nothing; a spectrum that is missing, or not taken.
        DataError: a file to go on from that cannot be read.
    """
    rate = assets["sample_rate"]
    if wish.seconds is not None and not 1 / rate <= wish.seconds <= 1e6:
        raise UsageError(f"--seconds must be from the length of one sample to a million, got {wish.seconds}")
    steps = round((1.0 if wish.seconds is None else wish.seconds) * rate)
    if wish.prime is not None and wish.mel_from is not None:
        raise UsageError("prime and mel_from: nothing says what spectrum the prime had; give one of them")
    if wish.mel_from is None and assets["mel"] is not None:
        raise UsageError("the model is conditioned on a spectrum: give --mel_from FILE")
    if wish.mel_from is not None and assets["mel"] is None:
        raise UsageError("--mel_from: the model is not conditioned on a spectrum: leave it out")
    for path in (wish.prime, wish.mel_from):
        if path in problems:
            raise DataError(problems[path])
    if wish.mel_from is None:
        return steps
    frames = clips[wish.mel_from].frames
    if wish.seconds is not None and steps > frames:
        raise UsageError(
            f"--seconds must be at most {frames / rate:.2f}, the length of {wish.mel_from}, got {wish.seconds}"
        )
    return frames if wish.seconds is None else steps
