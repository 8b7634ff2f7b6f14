"""Translation's own rows: a training step against its matrix products, batched beam search against single sentences."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from domains.translation import sample
from domains.translation.data import PairBatch, PairExamples, TranslationData
from domains.translation.decoder import DecoderConfig
from domains.translation.model import DecodingConfig, TranslationModule
from suite.console import notice
from suite.optim import OptimConfig, build_optimizer, finish_gradients
from suite.process import has_bfloat16
from suite.recurrent import EncoderConfig
from suite.restore import load_module
from suite.timing import Row, compare, in_turns
from suite.vocabulary import BOS, EOS, SPECIALS, Tokenizer

HIDDEN, VOCABULARY, BATCH, LENGTH, SENTENCES = 256, 8000, 64, 20, 1000


def measure(*, checkpoint: str | None, load: Callable[[str], Any], rounds: int) -> list[Row]:
    """All rows; those that need a trained model only where ``checkpoint`` names one."""
    rows = [step_against_products(torch.float32, rounds=rounds)]
    if has_bfloat16("cpu"):
        rows.append(step_against_products(torch.bfloat16, rounds=rounds))
    else:
        notice("benchmark: no row for bf16, as this CPU has no kernels for it")
    if checkpoint is None:
        notice("benchmark: beam search needs a trained model: give --checkpoint (make fit leaves one under runs/)")
        return rows
    module = cast(TranslationModule, load_module(Path(checkpoint), load=load))
    return [*rows, batched_beam(module)]


def step_against_products(dtype: torch.dtype, *, rounds: int) -> Row:
    """A whole training step (forward, loss, backward, clipping, Adam) against its matrix products alone."""
    module, batch = _module(), _batch()
    optimizer, parameters = build_optimizer(module, module.optim), list(module.parameters())

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = module.compute(batch)
        output.loss_sum.backward()
        finish_gradients(parameters, module.optim, scale=1.0 / output.weight, clip=1.0, by_value=False)
        optimizer.step()
        optimizer.zero_grad()

    times = in_turns({"ours": step, "reference": _products(dtype)}, rounds=4 * rounds)
    speed = BATCH * LENGTH / statistics.median(times["ours"])
    name = f"training step over its matrix products, {'fp32' if dtype == torch.float32 else 'bf16'}"
    return compare(name, times, bar=1.3, note=f"{speed:,.0f} target tokens/s")


def _module() -> TranslationModule:
    pieces = [*SPECIALS, *(f"w{number}" for number in range(VOCABULARY - len(SPECIALS)))]
    state = Tokenizer(pieces, level="word").state()
    module = TranslationModule(
        {"source": state, "target": None, "languages": ["en", "de"]},
        embedding_size=HIDDEN,
        encoder=EncoderConfig(cell="lstm", hidden_size=HIDDEN),
        decoder=DecoderConfig(cell="lstm", hidden_size=HIDDEN),
        tie="all",
        label_smoothing=0.1,
        optim=OptimConfig(),
    )
    return module.train()


def _batch() -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(len(SPECIALS), VOCABULARY, (BATCH, LENGTH), generator=generator)
    target = torch.randint(len(SPECIALS), VOCABULARY, (BATCH, LENGTH + 1), generator=generator)
    source[:, -1], target[:, 0], target[:, -1] = EOS, BOS, EOS
    lengths = torch.full((BATCH,), LENGTH)
    return PairBatch(source, lengths, target, lengths, list(range(BATCH)), [""] * BATCH, [""] * BATCH)


def _products(dtype: torch.dtype) -> Callable[[], None]:
    """Every matrix product of the step, forward and backward, with operands that are there already."""
    rows, gates = BATCH * LENGTH, 4 * HIDDEN

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype)

    linear = [(rows, HIDDEN, gates)] * 3  # input projections: encoder in both directions, decoder
    linear += [(rows, 2 * HIDDEN, HIDDEN), (rows, 3 * HIDDEN, HIDDEN)]  # attention keys; context and state to features
    linear += [(rows, HIDDEN, VOCABULARY), (BATCH, 4 * HIDDEN, 2 * HIDDEN)]  # output layer; bridge
    operands: list[tuple[Tensor, Tensor]] = []
    for count, size, width in linear:
        inputs, weight, slopes = (
            torch.randn(shape).to(dtype) for shape in ((count, size), (size, width), (count, width))
        )
        operands += [(inputs, weight), (slopes, weight.t()), (inputs.t(), slopes)]
    state, recurrent, slope = (
        torch.randn(shape).to(dtype) for shape in ((BATCH, HIDDEN), (HIDDEN, gates), (BATCH, gates))
    )
    for _ in range(3):  # encoder in both directions, decoder
        operands += [(state, recurrent), (slope, recurrent.t())] * LENGTH
        operands.append((draw(HIDDEN, rows), draw(rows, gates)))
    queries, keys, values = (draw(BATCH, LENGTH, size) for size in (HIDDEN, HIDDEN, 2 * HIDDEN))
    weights = draw(BATCH, LENGTH, LENGTH)
    batched = [(queries, keys.transpose(1, 2)), (weights, values), (weights, keys), (weights, queries)]
    batched += [(values, values.transpose(1, 2)), (weights, values)]

    def run() -> None:
        for left, right in operands:
            torch.mm(left, right)
        for left, right in batched:
            torch.bmm(left, right)

    return run


def batched_beam(module: TranslationModule) -> Row:
    """Beam search over many sentences in batches against one sentence at a time: time, lines and scores."""
    source, target = module.source_tokenizer, module.target_tokenizer
    examples = PairExamples(sample.generate("test", size=SENTENCES), source=source, target=target)
    data = TranslationData(assets=module.assets, batch_size=100, max_tokens=None)
    data._examples["bench"] = examples
    decoding = DecodingConfig(beam_size=5)
    batches = list(data.loader("bench", shuffle=False))
    singles = [data.collate([examples.fetch(index, 0)]) for index in range(SENTENCES)]
    seconds, found = [], []
    for collection in (batches, singles):
        begin = time.perf_counter()
        results = [each for batch in collection for each in module.translate(batch, decoding=decoding)]
        seconds.append(time.perf_counter() - begin)
        found.append({each["index"]: each for each in results})
    same = [index for index in found[0] if found[0][index]["translation"] == found[1][index]["translation"]]
    gap = max(abs(found[0][index]["score"] - found[1][index]["score"]) for index in same)
    share = 100 * len(same) / SENTENCES
    ratio = seconds[1] / seconds[0]
    note = f"{share:.1f}% identical lines, scores within {gap:.1e}"
    met = ratio >= 3 and share >= 99.5 and gap <= 1e-4
    return Row(
        f"beam 5 on {SENTENCES} sentences, speed-up by batching", seconds[0], seconds[1], ratio, ">= 3", met, note
    )
