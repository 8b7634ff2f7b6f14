"""Translations: greedy search equals a plain loop, many sentences equal one by one, and what is shown of them."""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes

import domains
from domains.translation.data import PairBatch
from domains.translation.model import DecodingConfig, TranslationModule
from suite.errors import UsageError
from suite.restore import load_module
from suite.vocabulary import BOS, EOS, PAD
from tests.commands import pairs_of, trained
from tests.test_translation_model import batch_of, module_of


@cache
def translator() -> TranslationModule:
    """A trained one: its translations are neither all alike nor cut off."""
    module = load_module(trained() / "checkpoints" / "best.ckpt", load=domains.load)
    assert isinstance(module, TranslationModule)
    return module


SENTENCES = pairs_of("test", 41)


@torch.no_grad()
def argmax_loop(module: TranslationModule, batch: PairBatch, limit: int) -> tuple[str, float]:
    """Greedy search of one sentence by whole passes over what was written so far."""
    written: list[int] = []
    total = 0.0
    while len(written) < limit and EOS not in written:
        target = torch.tensor([[BOS, *written, PAD]])
        prefix = batch._replace(target=target, target_lengths=torch.tensor([len(written) + 1]))
        log_probs = module(prefix)[0, -1].log_softmax(dim=0)
        log_probs[[PAD, BOS]] = -math.inf
        written.append(int(log_probs.argmax()))
        total += float(log_probs[written[-1]])
    return module.target_tokenizer.decode(written), total / ((5 + len(written)) / 6)


def singles(pairs: list[tuple[str, str]], module: TranslationModule) -> Iterator[PairBatch]:
    return (batch_of([pair], module) for pair in pairs)


def test_greedy_translation_is_an_argmax_loop() -> None:
    module = translator()
    for limit in (5, 40):
        settings = DecodingConfig(beam_size=1, max_length=limit, max_ratio=100.0)
        found = module.translate(batch_of(SENTENCES[:12], module), decoding=settings)
        for batch, result in zip(singles(SENTENCES[:12], module), found, strict=True):
            text, score = argmax_loop(module, batch, limit)
            assert result["translation"] == text
            assert math.isclose(result["score"], score, abs_tol=1e-4)
    assert len({result["translation"] for result in found}) > 3, "this model says too little to tell"


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_many_sentences_at_once_equal_one_by_one(beam_size: int) -> None:
    module, settings = translator(), DecodingConfig(beam_size=beam_size, max_length=40)
    together = module.translate(batch_of(SENTENCES, module), decoding=settings)
    for batch, result in zip(singles(SENTENCES, module), together, strict=True):
        (alone,) = module.translate(batch, decoding=settings)
        assert alone["translation"] == result["translation"]
        assert math.isclose(alone["score"], result["score"], abs_tol=1e-4)


def test_limits_of_length_follow_each_source() -> None:
    module = module_of()
    module.network.output_bias.data[EOS] = -1e4  # never ends by itself
    batch = batch_of([("abc", ""), ("abcdefgh", "")])
    found = module.generate(batch, decoding=DecodingConfig(beam_size=2, max_ratio=1.5))
    assert found.lengths[:, 0].tolist() == [int(1.5 * 4 + 10), int(1.5 * 9 + 10)]
    for ratio in (2.0, 1e30):
        found = module.generate(batch, decoding=DecodingConfig(beam_size=2, max_length=7, max_ratio=ratio))
        assert found.lengths[:, 0].tolist() == [7, 7]
    with pytest.raises(UsageError, match="max_ratio is nan, allowed is more than 0"):
        DecodingConfig(max_ratio=math.nan)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_translations_that_reach_their_limit_are_counted(beam_size: int) -> None:
    settings = DecodingConfig(beam_size=beam_size, max_length=3)
    cut, whole = module_of(decoding=settings), module_of(decoding=settings)
    cut.network.output_bias.data[EOS] = -1e4  # never ends by itself
    whole.network.output_bias.data[EOS] = 1e4  # ends at once
    pairs = [("abc", ""), ("", ""), ("abcdefgh", "")]
    results = cut.translate(batch_of(pairs))
    assert ["cut" in each for each in results] == [True, False, True], "an empty source's translation is whole"
    said = "2 translation(s) reached the limit of tokens (--max_length 3, --max_ratio 2) and are cut"
    assert [note.startswith(said) for note in cut.prediction_notes(results)] == [True]
    assert whole.prediction_notes(whole.translate(batch_of(pairs))) == []


def test_n_best_are_ordered_and_begin_with_the_translation() -> None:
    module = translator()
    best = module.translate(batch_of(SENTENCES, module), decoding=DecodingConfig(beam_size=4, max_length=40))
    found = module.translate(batch_of(SENTENCES, module), decoding=DecodingConfig(4, n_best=4, max_length=40))
    for one, several in zip(best, found, strict=True):
        scores = [each["score"] for each in several["n_best"]]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)
        assert several["n_best"][0] == {"translation": several["translation"], "score": several["score"]}
        # Searching on for the others never loses the best.
        assert several["score"] >= one["score"] - 1e-5
        assert module.lines(several)[0] == f"{one['index']}\t{scores[0]:.4f}\t{several['translation']}"
        assert "n_best" not in one
        assert module.lines(one) == [one["translation"]]


@pytest.mark.parametrize("n_best", [1, 3])
def test_an_empty_source_has_the_empty_translation(n_best: int) -> None:
    module = translator()
    pairs = [SENTENCES[0], ("", ""), SENTENCES[1], ("  ", "")]
    settings = DecodingConfig(beam_size=3, n_best=n_best, max_length=40)
    found = module.translate(batch_of(pairs, module), decoding=settings)
    assert [bool(each["translation"]) for each in found] == [True, False, True, False]
    assert [found[place]["score"] for place in (1, 3)] == [0.0, 0.0]
    assert [len(each.get("n_best", [1])) for each in found] == [n_best, 1, n_best, 1]
    others = module.translate(batch_of([SENTENCES[0], SENTENCES[1]], module), decoding=settings)
    assert [found[place]["translation"] for place in (0, 2)] == [each["translation"] for each in others]


def test_a_text_result_is_one_line() -> None:
    for separator in ("\n", "\r", "\r\n", *"\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"):
        line = TranslationModule.lines({"index": 0, "translation": f"a{separator}b\tc"})
        assert line == [f"a{separator.encode('unicode_escape').decode()}b\\tc"], "one line to any reader"


def test_sample_table() -> None:
    module = translator()
    columns, rows = module.sample_table(batch_of(SENTENCES[:5], module))
    greedy = module.translate(batch_of(SENTENCES[:5], module), decoding=DecodingConfig(beam_size=1))
    assert tuple(columns) == ("source", "reference", "translation")
    assert [tuple(row[:2]) for row in rows] == SENTENCES[:5]
    assert [row[2] for row in rows] == [each["translation"] for each in greedy]


def test_samples_keep_the_limits_of_the_run() -> None:
    module = module_of(decoding=DecodingConfig(beam_size=4, n_best=2, max_length=3))
    module.network.output_bias.data[EOS] = -1e4  # never ends by itself
    batch = batch_of(SENTENCES[:2], module)
    limited = module.translate(batch, decoding=DecodingConfig(beam_size=1, max_length=3))
    assert [row[2] for row in module.sample_table(batch)[1]] == [each["translation"] for each in limited]
    figure = module.sample_figure(batch)
    assert figure is not None
    assert len(figure.axes[0].get_yticklabels()) == 3


def labels(ticks: list[Any]) -> list[str]:
    return [tick.get_text() for tick in ticks]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("pairs", [[SENTENCES[1], max(SENTENCES)], [("", "")]])
def test_sample_figure(pairs: list[tuple[str, str]], autocast: bool) -> None:
    module = translator()
    batch = batch_of(pairs, module)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        figure = module.sample_figure(batch)
        found = module.generate(batch, decoding=DecodingConfig(beam_size=1))
    assert figure is not None
    (axes,) = figure.axes
    assert isinstance(axes, Axes)
    read = module.source_tokenizer.tokens(batch.source[0, : int(batch.source_lengths[0])].tolist())
    written = module.target_tokenizer.tokens(found.tokens[0, 0, : int(found.lengths[0, 0])].tolist())
    assert labels(axes.get_xticklabels()) == read
    assert labels(axes.get_yticklabels()) == written
    assert read[-1] == module.source_tokenizer.tokens([EOS])[0]
    image = torch.as_tensor(axes.images[0].get_array())
    assert image.shape == (len(written), len(read))
    torch.testing.assert_close(image.sum(dim=1), torch.ones(len(written)), rtol=0, atol=2e-2 if autocast else 1e-5)


def test_sample_figure_is_drawn(tmp_path: Path) -> None:
    figure = translator().sample_figure(batch_of(SENTENCES[:2], translator()))
    assert figure is not None
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
