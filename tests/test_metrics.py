"""Metrics against sacrebleu itself, and shards against the whole."""

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from suite.errors import SuiteError
from suite.metrics import CorpusBLEU, CorpusCHRF, ExactMatch, Perplexity, WeightedMean

GOLDEN = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("", "Nothing was said."),
    ("Something was said.", ""),
    ("", ""),
    ("Zwei Männer, die »schön« aßen — naïve façade", "Zwei Männer, die »schön« aßen: naïve Façade"),
    ("猫が好きです。", "犬が好きです。"),
    ("🙂 ok", "🙂 OK"),
    ("a b c d e f g", "a b c d x f g"),
    ("1,000.5 &quot;quoted&quot; <skipped> 3-4", '1,000.5 "quoted" 3-4'),
    ("the the the the", "the cat"),
    ("two  spaces ", "two spaces"),
]
TEXT = st.text(alphabet="abc ABé.,猫", max_size=25)
TEXT_METRICS = [CorpusBLEU, CorpusCHRF, ExactMatch]


def columns(pairs):
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def expected(kind, pairs):
    hypotheses, references = columns(pairs)
    if kind is CorpusBLEU:
        return sacrebleu.corpus_bleu(hypotheses, [references]).score
    if kind is CorpusCHRF:
        return sacrebleu.corpus_chrf(hypotheses, [references]).score
    return 100.0 * sum(a == b for a, b in pairs) / len(pairs)


def measured(kind, *shards):
    metric = kind()
    for shard in shards:
        metric.update(*columns(shard))
    return metric


@pytest.mark.parametrize("kind", TEXT_METRICS)
@pytest.mark.parametrize("pairs", [GOLDEN, GOLDEN[:1], GOLDEN[1:2], GOLDEN[2:3], GOLDEN[3:4], GOLDEN[4:8]])
def test_the_figure_is_sacrebleu_s(kind, pairs):
    value = measured(kind, pairs).compute()
    assert value.dtype == torch.float64
    assert value.item() == expected(kind, pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=12), st.data())
def test_shards_merge_to_the_whole(pairs, data):
    cut = data.draw(st.integers(0, len(pairs)))
    for kind in TEXT_METRICS:
        first, second = measured(kind, pairs[:cut]), measured(kind, pairs[cut:])
        first.merge_state(second)
        assert first.compute().item() == measured(kind, *([pair] for pair in pairs)).compute().item()
        assert first.compute().item() == expected(kind, pairs)


def test_hand_computed_figures():
    identical = [GOLDEN[0], GOLDEN[7]]
    assert measured(ExactMatch, identical).compute().item() == 50.0
    assert measured(CorpusBLEU, [GOLDEN[0]]).compute().item() == pytest.approx(100.0)
    assert measured(CorpusCHRF, [GOLDEN[0]]).compute().item() == pytest.approx(100.0)
    # "a b c d x f g": 6 of 7 words, 4 of 6 pairs, 2 of 5 triples, 1 of 4 quadruples, no brevity penalty
    by_hand = 100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert measured(CorpusBLEU, [GOLDEN[7]]).compute().item() == pytest.approx(by_hand)


@pytest.mark.parametrize(("kind", "scorer"), [(CorpusBLEU, BLEU), (CorpusCHRF, CHRF)])
def test_signature_is_sacrebleu_s_own(kind, scorer):
    theirs = scorer()
    theirs.corpus_score(["a"], [["b"]])
    assert kind().signature == measured(kind, GOLDEN).signature == str(theirs.get_signature())
    assert f"version:{sacrebleu.__version__}" in kind().signature


def test_bleu_signature_names_the_settings():
    assert CorpusBLEU().signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("kind", [*TEXT_METRICS, WeightedMean, Perplexity])
def test_nothing_measured_is_nan(kind):
    assert math.isnan(kind().compute().item())
    metric = kind()
    metric.update(*(([], []) if kind in TEXT_METRICS else (0.0, 0)))
    assert math.isnan(metric.compute().item())


@pytest.mark.parametrize("kind", TEXT_METRICS)
def test_wrong_input_is_an_error(kind):
    with pytest.raises(SuiteError, match="2 hypotheses for 1 references"):
        kind().update(["a", "b"], ["a"])
    with pytest.raises(SuiteError, match="a single text given"):
        kind().update("ab", ["a", "b"])


def test_weighted_mean_and_perplexity():
    mean, perplexity = WeightedMean(), Perplexity()
    for metric in (mean, perplexity):
        metric.update(torch.tensor(6.0, requires_grad=True), torch.tensor(3))
        metric.update(torch.tensor([1.0, 3.0]), 2.0)
    assert mean.compute().dtype == torch.float64
    assert not mean.compute().requires_grad
    assert mean.compute().item() == 2.0
    assert perplexity.compute().item() == pytest.approx(math.exp(2.0))
    perplexity.update(1e9, 1)
    assert perplexity.compute().item() == math.inf


def test_long_sums_stay_exact():
    mean = WeightedMean()
    mean.update(2.0**40, 2**40)
    for _ in range(100):
        mean.update(torch.tensor(0.0), 1)
    assert mean.weight.item() == 2**40 + 100  # float32 would have lost every one


FILLED = {
    CorpusBLEU: columns(GOLDEN),
    CorpusCHRF: columns(GOLDEN),
    ExactMatch: columns(GOLDEN),
    WeightedMean: (1.1, 3),
    Perplexity: (1.1, 3),
}


@pytest.mark.parametrize("kind", FILLED)
def test_life_in_a_module(kind):
    metric = kind()
    metric.update(*FILLED[kind])
    value = metric.compute().item()

    holder = torch.nn.Module()
    holder.metric = metric
    assert holder.state_dict() == {}  # Lightning's checkpoints hold no running sums
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):  # noqa: S301
        assert copy.compute().item() == value
        copy.update(*FILLED[kind])
        assert copy._update_count == 2
    assert metric._update_count == 1

    metric.persistent(True)
    other = kind()
    other.persistent(True)
    other.load_state_dict({name: tensor.clone() for name, tensor in metric.state_dict().items()})
    other._update_count = 1
    assert other.compute().item() == value

    holder.to(torch.bfloat16).half().to("cpu")  # precision "bf16-true" must not round the sums
    metric._computed = None
    assert metric.compute().item() == value
    assert {getattr(metric, name).dtype for name in metric._defaults} <= {torch.int64, torch.float64}

    metric.reset()
    metric.update(*FILLED[kind])
    assert metric.compute().item() == value
    assert metric(*FILLED[kind]).item() == pytest.approx(value)  # forward gives the batch's own value


@pytest.mark.parametrize("kind", FILLED)
def test_states_move_with_the_module(kind):
    metric = kind().to("meta")
    assert metric.device.type == "meta"
    assert {getattr(metric, name).device.type for name in metric._defaults} == {"meta"}


def test_directions():
    assert [kind.higher_is_better for kind in FILLED] == [True, True, True, False, False]
    assert not any(kind.full_state_update for kind in FILLED)


WORKER = """
import json, sys
import torch
import torch.distributed as dist
from suite.metrics import CorpusBLEU, CorpusCHRF, ExactMatch, Perplexity, WeightedMean

rank, store, pairs = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
mine = pairs[:7] if rank == 0 else pairs[7:]
metrics = [CorpusBLEU(), CorpusCHRF(), ExactMatch()]
for metric in metrics:
    for start in range(0, len(mine), 3):
        metric.update([a for a, _ in mine[start:start + 3]], [b for _, b in mine[start:start + 3]])
samples = [(1.5, 2), (2.25, 3), (0.5, 1), (7.0, 4), (3.125, 5)]
for kind in (WeightedMean, Perplexity):
    metrics.append(kind())
    for total, weight in samples[:3] if rank == 0 else samples[3:]:
        metrics[-1].update(torch.tensor(total), weight)
values = [metric.compute().item() for metric in metrics]
local = metrics[3].weight.item()  # the sums are a rank's own again
dist.destroy_process_group()
print(json.dumps({"values": values, "local": local}))
"""


@pytest.mark.distributed
def test_two_processes_with_uneven_shards(tmp_path):
    command = [sys.executable, "-c", WORKER]
    root = Path(__file__).parents[1]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), json.dumps(GOLDEN)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ends = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], ends
    results = [json.loads(out.splitlines()[-1]) for out, _ in ends]
    mean = 14.375 / 15
    whole = [*(expected(kind, GOLDEN) for kind in TEXT_METRICS), mean, math.exp(mean)]
    for result, weight in zip(results, [6, 9], strict=True):
        assert result["values"] == whole
        assert result["local"] == weight
