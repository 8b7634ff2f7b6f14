"""The recurrent cells' speed against ``torch.nn``, in the same process, in turns."""

import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from suite.benchmarks.recurrent_gpu import gpu_ways
from suite.console import report
from suite.errors import UsageError
from suite.parser import SuiteParser
from suite.process import has_bfloat16, prepare_process
from suite.recurrent.encoder import RecurrentEncoder
from suite.recurrent.options import CELLS, CellName
from suite.timing import Row, compare, in_turns, table

_Call = tuple[str, bool]  # a cell, and whether backward too
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Shape(NamedTuple):
    """Batch, steps, and features of inputs and states alike."""

    batch: int
    steps: int
    size: int

    def __str__(self) -> str:
        return f"B {self.batch}, T {self.steps}, H {self.size}"


# The shapes of the bars: a batch of sentences, and a long sequence.
SENTENCES, LONG = Shape(32, 128, 256), Shape(8, 2048, 256)
# Per bar: what, the cell, the shape, and the highest share of the reference's training time.
_BARS: tuple[tuple[CellName, Shape, float], ...] = (
    ("peephole_lstm", SENTENCES, 1.7),
    ("layernorm_lstm", SENTENCES, 1.7),
    ("layernorm_gru", SENTENCES, 1.7),
    ("mingru", LONG, 1 / 2.5),
)


def add_flags(parser: SuiteParser) -> None:
    """The flags of this suite."""
    names: Any = Literal[CELLS]
    precisions: Any = Literal[tuple(_DTYPES)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for flag, kind, default, text in (
        ("--cells", names, list(CELLS), "Which cells."),
        ("--lengths", PositiveInt, [128, 512, 2048], "Steps of a sequence."),
        ("--threads", PositiveInt, [1, 2], "CPU threads, one table each."),
        ("--precision", precisions, list(_DTYPES), "Autocast or not."),
    ):
        parser.add_argument(flag, nargs="+", type=kind, default=default, help=text)
    parser.add_argument("--batch", type=PositiveInt, default=8, help="Rows.")
    parser.add_argument("--size", type=PositiveInt, default=256, help="Features of inputs and states.")
    parser.add_argument(
        "--bars", type=bool, default=True, help="First the project's bars on CPU, ways of running a cell on a GPU."
    )
    parser.add_argument("--survey", type=bool, default=True, help="All cells and lengths.")
    parser.add_argument("--device", type=Literal["cpu", "cuda"], default=device, help="Where.")


def run(options: Namespace) -> None:
    """Measure and print: the project's bars, then every cell at every length.

    Raises:
        UsageError: a device that is not there.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no such device here")
    for threads in options.threads if options.device == "cpu" else options.threads[:1]:
        prepare_process(threads=threads)
        report(f"\n{threads} thread(s), {options.device}")
        if options.bars:
            lines = table(bars(rounds=options.rounds)) if options.device == "cpu" else gpu_ways(rounds=options.rounds)
            for line in lines:
                report(line)
        for name in options.precision if options.survey else ():
            if name == "bf16" and not has_bfloat16(options.device):
                report(f"\nbf16: not measured: this {options.device} has no kernels for it")
                continue
            report(f"\n{name}: milliseconds a pass, and the share of torch.nn.LSTM's; B {options.batch}, "
                   f"H {options.size}")  # fmt: skip
            for line in survey(options, dtype=_DTYPES[name]):
                report(line)


def bars(*, rounds: int) -> list[Row]:
    """A row for each bar of the project, training steps on CPU in float32."""
    rows = []
    fused: tuple[CellName, ...] = ("lstm", "gru", "rnn_tanh")
    for cell in fused:
        sides = {"ours": _ours(cell, SENTENCES), "reference": _fused(cell, SENTENCES)}
        times = in_turns(sides, rounds=rounds)
        rows.append(compare(f"{cell} over torch.nn, {SENTENCES}", times, bar=1.05))
    for cell in fused[:2]:
        ragged = torch.linspace(SENTENCES.steps // 4, SENTENCES.steps, SENTENCES.batch).long()
        sides = {
            "ours": _ours(cell, SENTENCES, both=True, lengths=ragged),
            "reference": _fused(cell, SENTENCES, both=True),
        }
        rows.append(compare(f"bidirectional {cell} on ragged rows over padded torch.nn", in_turns(sides, rounds=rounds),
                            bar=1.3))  # fmt: skip
    for cell, shape, bar in _BARS:
        times = in_turns({"ours": _ours(cell, shape), "reference": _fused("lstm", shape)}, rounds=rounds)
        rows.append(compare(f"{cell} over nn.LSTM, {shape}", times, bar=bar))
    return rows


def _training(forward: Callable[[], Tensor], module: nn.Module) -> Callable[[], None]:
    def step() -> None:
        module.zero_grad(set_to_none=True)
        forward().sum().backward()

    return step


def _ours(cell: CellName, shape: Shape, *, both: bool = False, lengths: Tensor | None = None) -> Callable[[], None]:
    encoder = RecurrentEncoder(shape.size, shape.size, cell=cell, bidirectional=both)
    inputs = torch.randn(*shape, requires_grad=True)
    known = torch.full((shape.batch,), shape.steps) if lengths is None else lengths
    return _training(lambda: encoder(inputs, known).outputs, encoder)


def _fused(cell: str, shape: Shape, *, both: bool = False) -> Callable[[], None]:
    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}[cell]
    module = kind(shape.size, shape.size, batch_first=True, bidirectional=both)
    inputs = torch.randn(*shape, requires_grad=True)
    return _training(lambda: module(inputs)[0], module)


def survey(options: Namespace, *, dtype: torch.dtype) -> list[str]:
    """Markdown: a row for each cell, columns forward and training for each length, and the memory of the longest."""
    lengths = sorted(options.lengths)
    head = "".join(f" T {steps} forward | T {steps} training |" for steps in lengths)
    lines = [f"| cell |{head} memory at T {lengths[-1]} |", "|---|" + "---:|" * (2 * len(lengths) + 1)]
    found: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    for steps in lengths:
        calls = {
            (name, training): _call(name, Shape(options.batch, steps, options.size), options.device, dtype, training)
            for name, training in itertools.product(["nn.LSTM", *options.cells], (False, True))
        }
        times = _measure(calls, rounds=options.rounds, device=options.device)
        for (name, _), seconds in times.items():
            found.setdefault(name, []).append(seconds)
        if steps == lengths[-1]:
            memory = {name: _memory(calls[name, True], options.device) for name, training in calls if training}
    for name, values in found.items():
        pairs = zip(values, found["nn.LSTM"], strict=True)
        cells = [f" {value * 1e3:.1f} ({value / base:.2f})" for value, base in pairs]
        lines.append(f"| {name} |{' |'.join(cells)} | {memory[name] / 2**20:.0f} MiB |")
    return lines


def _call(name: str, shape: Shape, device: str, dtype: torch.dtype, training: bool) -> Callable[[], None]:
    inputs = torch.randn(*shape, device=device, requires_grad=training)
    lengths = torch.full((shape.batch,), shape.steps, device=device)
    if name == "nn.LSTM":
        fused = nn.LSTM(shape.size, shape.size, batch_first=True).to(device)
        module: nn.Module = fused
    else:
        encoder = RecurrentEncoder(shape.size, shape.size, cell=name).to(device)  # type: ignore[arg-type]
        module = encoder

    def run() -> None:
        with (
            torch.set_grad_enabled(training),
            torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
        ):
            outputs = fused(inputs)[0] if name == "nn.LSTM" else encoder(inputs, lengths).outputs
        if training:
            module.zero_grad(set_to_none=True)
            outputs.float().sum().backward()

    return run


def _measure(calls: dict[_Call, Callable[[], None]], *, rounds: int, device: str) -> dict[_Call, float]:
    """The median of each call, all in turns."""
    if device == "cuda":
        timed = {key: _synchronised(call) for key, call in calls.items()}
    else:
        timed = calls
    times = in_turns({f"{name}/{training}": call for (name, training), call in timed.items()}, rounds=rounds)
    return {key: sorted(times[f"{key[0]}/{key[1]}"])[rounds // 2] for key in calls}


def _synchronised(call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def _memory(call: Callable[[], None], device: str) -> float:
    """Bytes that one training pass adds at its highest: on CPU what autograd saves, on a GPU the allocator's peak."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return float(sum(kept.values()))
