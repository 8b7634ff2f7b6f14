"""From requests to files: primed, conditioned, a quarter of a second at a time, so that memory does not grow."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from domains.audio.engines import Stepper, make_engine
from domains.audio.files import Clip, open_clip, write_header
from domains.audio.mel import MelConfig, mel_frames
from domains.audio.network import WaveNet
from domains.audio.requests import Request
from suite.console import is_first_process
from suite.errors import DataError, SuiteError
from suite.mu_law import mu_law_decode, mu_law_encode

_PART = 2048  # steps from one write to the next


def generate_files(
    network: WaveNet, assets: dict[str, Any], requests: Sequence[Request], *, device: torch.device
) -> list[dict[str, Any]]:
    """Write the file of each request: those that go on from the same recording at the same time.

    A request that cannot be met gives a result with an ``error`` if it is isolated.

    Raises:
        DataError: a file that cannot be read or written, of requests that are not isolated.
    """
    groups: dict[Any, list[Request]] = {}
    problems = {request.number: request.problem for request in requests if request.problem}
    for request in requests:
        if request.number not in problems:
            groups.setdefault((request.prime, request.mel_from), []).append(request)
    for group in groups.values():
        try:
            problems |= _generate_group(network, assets, group, device=device)
        except SuiteError as error:
            if not group[0].isolated:
                raise
            problems |= {request.number: str(error) for request in group}
    return [_result(request, problems.get(request.number), rate=assets["sample_rate"]) for request in requests]


def _result(request: Request, problem: str | None, *, rate: int) -> dict[str, Any]:
    source = {name: str(getattr(request, name)) for name in ("prime", "mel_from") if getattr(request, name)}
    found = {"index": request.number, "file": str(request.path)}
    if problem:
        return {**found, **source, "error": problem}
    return {
        **found,
        "seconds": request.steps / rate,
        "conditions": request.conditions,
        "seed": request.seed,
        **source,
    }


def _generate_group(
    network: WaveNet, assets: dict[str, Any], requests: Sequence[Request], *, device: torch.device
) -> dict[int, str]:
    """Write the files of requests that differ in length, conditions and draws; why some isolated ones are not there.

    Raises:
        DataError: a file that cannot be read or written.
    """
    first, rate = requests[0], assets["sample_rate"]
    values = assets["conditions"]
    rows = [[values[name].index(request.conditions[name]) for name in values] for request in requests]
    conditions = torch.tensor(rows, dtype=torch.long, device=device).view(len(requests), -1)
    engine = make_engine(network, conditions, kind=first.engine)
    if first.prime is not None:
        _prime(engine, open_clip(first.prime, rate=rate), network, streams=len(requests), classes=assets["classes"])
    source = None if first.mel_from is None else open_clip(first.mel_from, rate=rate)
    sources = [numpy.random.Generator(numpy.random.PCG64(request.draws)) for request in requests]
    steps, problems = max(request.steps for request in requests), dict[int, str]()
    with contextlib.ExitStack() as stack:
        # Under another name until they are whole: an error leaves what was there before.
        parts = [request.path.with_name(f".{request.path.name}.part") for request in requests]
        for part in parts:
            stack.callback(part.unlink, missing_ok=True)
        files = [stack.enter_context(write_header(part, rate=rate)) for part in parts]
        for begin, count in _parts(steps, streams=len(requests), rate=rate):
            local = _local(network, source, assets["mel"], begin, begin + count, streams=len(requests), device=device)
            draws = torch.from_numpy(numpy.stack([each.random(count) for each in sources], axis=1))
            codes = engine.run(draws, temperature=first.temperature, local=local)
            waves = mu_law_decode(codes, assets["classes"]).numpy()
            for number, (request, file) in enumerate(zip(requests, files, strict=True)):
                _write(file, waves[: max(0, request.steps - begin), number], request.path)
        for file, part, request in zip(files, parts, requests, strict=True):
            file.close()
            try:
                _rename(part, request.path)
            except DataError as error:
                if not request.isolated:
                    raise
                problems[request.number] = str(error)
    return problems


def generate_waves(network: WaveNet, conditions: Tensor, local: Tensor | None, *, steps: int, seed: int) -> Tensor:
    """``(B, steps)`` samples in memory, one stream for each of ``conditions (B, K)`` and ``local (B, M, F)`` frames."""
    engine = make_engine(network, conditions)
    draws = torch.from_numpy(numpy.random.default_rng(seed).random((steps, conditions.size(0))))
    upsampled = network.upsample(local, steps)
    codes = engine.run(draws, local=None if upsampled is None else upsampled.transpose(0, 1))
    return mu_law_decode(codes, network.output.out_features).t()


def _prime(engine: Stepper, clip: Clip, network: WaveNet, *, streams: int, classes: int) -> None:
    """Have the streams hear the end of ``clip``, as far back as they can."""
    samples = clip.read(max(0, clip.frames - network.receptive_field), clip.frames)
    codes = mu_law_encode(torch.from_numpy(numpy.ascontiguousarray(samples)), classes)
    forced = codes.unsqueeze(1).expand(-1, streams).contiguous()
    engine.run(torch.zeros(forced.shape, dtype=torch.float64), forced=forced)


def _parts(steps: int, *, streams: int, rate: int) -> Iterator[tuple[int, int]]:
    """Stretches of steps, behind a bar that says how many times as fast as listening it goes, all files together."""
    began = time.perf_counter()
    shown = is_first_process()
    with tqdm(
        total=steps * streams, unit="sample", unit_scale=True, leave=False, disable=None if shown else True
    ) as bar:
        for begin in range(0, steps, _PART):
            count = min(_PART, steps - begin)
            yield begin, count
            bar.update(count * streams)
            speed = (begin + count) * streams / rate / max(time.perf_counter() - began, 1e-9)
            bar.set_postfix_str(f"{speed:.2f} times real time")


def _local(
    network: WaveNet,
    source: Clip | None,
    mel: dict[str, int] | None,
    begin: int,
    end: int,
    *,
    streams: int,
    device: torch.device,
) -> Tensor | None:
    """The upsampled local condition of these steps, the same for every stream: ``(T, B, D)``."""
    if source is None or mel is None:
        return None
    start = begin - begin % mel["hop"]
    frames = mel_frames(source, start, min(end, source.frames), config=MelConfig(**mel))
    frames = frames.to(device, dtype=next(network.parameters()).dtype)
    upsampled = network.upsample(frames.unsqueeze(0), end - start)
    assert upsampled is not None
    return upsampled[0, begin - start :].unsqueeze(1).expand(-1, streams, -1)


def _rename(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}): choose another --output") from None


def _write(file: Any, samples: Any, path: Path) -> None:
    try:
        file.write(samples)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({' '.join(str(error).split())}): free some space") from None
