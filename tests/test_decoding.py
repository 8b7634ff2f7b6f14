"""Searches against exhaustive search, a plain loop and themselves one sentence at a time.

The model here depends on the whole history, kept in its state: a wrongly reordered row changes every later number.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy
import pytest
import torch

from suite import decoding
from suite.decoding import beam_search, greedy, select
from suite.errors import SuiteError, UsageError

BOS, EOS, PAD = 0, 1, 2
IDS: dict[str, Any] = {"bos": BOS, "eos": EOS, "pad": PAD}
BUCKETS = 101


class History(NamedTuple):
    code: torch.Tensor
    parts: list


class Memory(NamedTuple):
    table: torch.Tensor  # (b, BUCKETS, V) log probabilities by a hash of the history
    unused: None = None


def step(tokens, state, memory):
    beams = tokens.shape[0] // memory.table.shape[0]
    assert tokens.shape[0] == beams * memory.table.shape[0] == state.code.shape[0]
    code = (state.code * 31 + tokens * 7 + 3) % BUCKETS
    history = torch.cat([state.parts[0], tokens[:, None]], dim=1)
    sentence = torch.arange(tokens.shape[0]) // beams
    return memory.table[sentence, code], History(code, [history, None])


def start(size):
    return History(torch.zeros(size, dtype=torch.long), [torch.zeros(size, 0, dtype=torch.long), None])


def tables(size, vocabulary, *, spread=1.5):
    return Memory((torch.randn(size, BUCKETS, vocabulary) * spread).log_softmax(-1))


def log_probs_of(table, tokens):
    """Each token's log probability, as a model reads the sequence from its beginning."""
    code, last, found = 0, BOS, []
    for token in tokens:
        code = (code * 31 + last * 7 + 3) % BUCKETS
        found.append(table[code, token].item())
        last = token
    return found


def penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


def beam(memory, limits, *, size, at=slice(None), **options):
    limits = torch.as_tensor(limits)[at]
    memory = Memory(memory.table[at])
    count = limits.shape[0]
    return beam_search(
        step, start(count), memory, batch_size=count, beam_size=size, max_lengths=limits, **{**IDS, **options}
    )


def every_sequence(vocabulary, limit):
    inner = [token for token in range(vocabulary) if token not in (BOS, EOS, PAD)]
    for length in range(1, limit + 1):
        for head in itertools.product(inner, repeat=length - 1):
            yield (*head, EOS)
    yield from itertools.product(inner, repeat=limit)


def listed(found, row):
    return [
        tuple(tokens[:length].tolist()) for tokens, length in zip(found.tokens[row], found.lengths[row], strict=True)
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize(("vocabulary", "limit"), [(4, 1), (4, 4), (5, 3), (5, 4)])
def test_wide_beam_is_exhaustive(vocabulary, limit, alpha):
    memory = tables(6, vocabulary)
    sequences = list(every_sequence(vocabulary, limit))
    count = min(5, len(sequences))
    found = beam(memory, [limit] * 6, size=vocabulary**limit, n_best=count, length_penalty=alpha)
    for row in range(6):
        scored = [(sum(log_probs_of(memory.table[row], s)) / penalty(len(s), alpha), s) for s in sequences]
        best = sorted(scored, reverse=True)[:count]
        assert listed(found, row) == [sequence for _, sequence in best]
        torch.testing.assert_close(found.scores[row], torch.tensor([s for s, _ in best]), rtol=1e-5, atol=1e-6)


def plain_beam(table, *, size, limit, n_best, alpha):
    """The same search as a loop over lists that never stops before the limit."""
    beams: list[tuple[Any, tuple[int, ...]]] = [(numpy.float32(0), ())]
    finished: list[tuple[Any, tuple[int, ...]]] = []
    for length in range(1, limit + 1):
        options = []
        for place, (score, tokens) in enumerate(beams):
            for token in range(table.shape[1]):
                if token not in (BOS, PAD):
                    gain = numpy.float32(log_probs_of(table, (*tokens, token))[-1])
                    options.append((-(score + gain), place, token))
        chosen = [(numpy.float32(-cost), (*beams[place][1], token)) for cost, place, token in sorted(options)[:size]]
        ended = [(s, t) for s, t in chosen if t[-1] == EOS or length == limit]
        finished += [(s / penalty(length, alpha), t) for s, t in ended]
        beams = [(s, t) for s, t in chosen if t[-1] != EOS]
    return sorted(finished, key=lambda pair: -pair[0])[:n_best]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_stopping_loses_nothing_against_a_loop_without_it(size, alpha):
    memory, limits = tables(12, 7), [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    found = beam(memory, limits, size=size, n_best=2, length_penalty=alpha)
    for row, limit in enumerate(limits):
        expected = plain_beam(memory.table[row], size=size, limit=limit, n_best=2, alpha=alpha)
        assert listed(found, row) == [tokens for _, tokens in expected]
        torch.testing.assert_close(found.scores[row], torch.tensor([float(s) for s, _ in expected]))


def test_length_penalty_changes_the_winner_by_hand():
    # "eos" at once: ln 0.4 = -0.916 over 1. "3 eos": ln 0.36 = -1.022 over (7/6)^alpha, so -0.876 with alpha 1.
    first, second = torch.tensor([0, 0.4, 0, 0.6]), torch.tensor([0, 0.6, 0, 0.4])

    def by_position(tokens, state, memory):
        return torch.where(tokens[:, None] == BOS, first, second).log(), state

    def best(alpha):
        options = {**IDS, "batch_size": 1, "beam_size": 2, "max_lengths": torch.tensor([2]), "length_penalty": alpha}
        return beam_search(by_position, None, None, **options)

    short, long = best(0.0), best(1.0)
    assert short.tokens.tolist() == [[[EOS]]]
    assert short.scores.item() == pytest.approx(math.log(0.4))
    assert long.tokens.tolist() == [[[3, EOS]]]
    assert long.scores.item() == pytest.approx(math.log(0.36) / (7 / 6))
    assert long.log_probs.item() == pytest.approx(math.log(0.36))


def test_one_beam_is_greedy_also_by_the_general_way():
    memory, limits = tables(50, 9), torch.randint(1, 15, (50,))
    expected = greedy(step, start(50), memory, batch_size=50, max_lengths=limits, **IDS)
    for row in range(50):  # against a loop
        tokens: list[int] = []
        while len(tokens) < limits[row] and EOS not in tokens:
            gains = [(log_probs_of(memory.table[row], [*tokens, t])[-1], -t) for t in range(9) if t not in (BOS, PAD)]
            tokens.append(-max(gains)[1])
        assert listed(expected, row) == [tuple(tokens)]
    found = beam(memory, limits, size=1, length_penalty=0.0)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)

    horizon = int(limits.max())
    advance = decoding._beam_advance(EOS, [BOS, PAD], penalties=torch.ones(horizon + 1), n_best=1, early_stopping=False)
    running = decoding._start(limits, beam_size=1, horizon=horizon, pad=PAD)
    general = decoding._search(step, advance, running, start(50), memory, bos=BOS, horizon=horizon, n_best=1)
    for mine, theirs in zip(general, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("keep_above", [0.0, 0.75, 1.0])
@pytest.mark.parametrize(("size", "early"), [(1, False), (4, False), (4, True)])
def test_a_batch_equals_its_sentences(size, early, keep_above, monkeypatch):
    memory, limits = tables(40, 8, spread=2.0), torch.randint(1, 20, (40,))
    # Half of the sentences have equals everywhere, which must be settled alike.
    memory.table[::2] = memory.table[::2].round().clamp(max=-1)
    singles = [
        beam(memory, limits, size=size, at=[i], n_best=size, early_stopping=early, length_penalty=0.8)
        for i in range(40)
    ]
    monkeypatch.setattr(decoding, "KEEP_ABOVE", keep_above)
    batch = beam(memory, limits, size=size, n_best=size, early_stopping=early, length_penalty=0.8)
    assert batch.tokens.shape == (40, size, batch.lengths.max())
    for row, single in enumerate(singles):
        longest = single.tokens.shape[-1]
        assert torch.equal(batch.tokens[row, :, :longest], single.tokens[0])
        assert (batch.tokens[row, :, longest:] == PAD).all()
        for mine, theirs in zip(batch[1:], single[1:], strict=True):
            assert torch.equal(mine[row], theirs[0])


@pytest.mark.parametrize("size", [1, 4])
def test_finished_sentences_leave_and_states_follow_their_rows(size):
    rows: list[int] = []
    histories: set[tuple[int, ...]] = set()

    def watched(tokens, state, memory):
        rows.append(memory.table.shape[0])
        log_probs, state = step(tokens, state, memory)
        histories.update(tuple(line) for line in state.parts[0].tolist())
        return log_probs, state

    memory, limits = tables(32, 8), torch.randint(1, 30, (32,))
    options: dict[str, Any] = {"batch_size": 32, "beam_size": size, "max_lengths": limits, "length_penalty": 0.0}
    found = beam_search(watched, start(32), memory, **options, **IDS)
    assert rows[0] == 32
    assert rows[-1] <= 8
    assert rows == sorted(rows, reverse=True)
    for row in range(32):  # what a step saw before the last token is the hypothesis itself
        assert (BOS, *listed(found, row)[0][:-1]) in histories


def test_n_best_is_sorted_distinct_and_scored_right():
    memory, limits = tables(20, 6), torch.randint(4, 12, (20,))
    found = beam(memory, limits, size=6, n_best=5)
    for row in range(20):
        hypotheses = listed(found, row)
        assert len(set(hypotheses)) == 5
        assert found.scores[row].tolist() == sorted(found.scores[row].tolist(), reverse=True)
        for place, tokens in enumerate(hypotheses):
            assert not {BOS, PAD} & set(tokens)
            assert EOS not in tokens[:-1]
            assert tokens[-1] == EOS or len(tokens) == limits[row]
            total = sum(log_probs_of(memory.table[row], tokens))
            assert found.log_probs[row, place].item() == pytest.approx(total, rel=1e-5)
            assert found.scores[row, place].item() == pytest.approx(total / penalty(len(tokens), 1.0), rel=1e-5)


def test_top_settles_equals_by_place():
    scores = torch.randn(30, 60).mul(2).round()
    scores[:, ::7] = -math.inf
    scores[0, :5] = torch.tensor([0.0, -0.0, 0.0, -0.0, 9.0])
    expected = scores.sort(dim=1, descending=True, stable=True)
    for places in (decoding._top(scores, 9)[1], decoding._settled(scores, 9)):
        assert torch.equal(places, expected.indices[:, :9])
    assert torch.equal(decoding._top(scores, 60)[0], expected.values)


def test_equal_scores_take_the_lowest_id():
    uniform = Memory(torch.full((3, BUCKETS, 6), 1 / 6).log())
    assert listed(beam(uniform, [3, 3, 3], size=1), 1) == [(EOS,)]
    assert listed(beam(uniform, [3, 3, 3], size=3, n_best=3, length_penalty=0.0), 2)[0] == (EOS,)


def test_shared_ids_keep_eos_possible():
    memory = tables(4, 5)
    found = beam(memory, [9] * 4, size=3, bos=EOS, pad=EOS)
    assert (found.tokens == EOS).any()


def test_fewer_hypotheses_than_asked_for():
    only_eos = torch.full((1, BUCKETS, 4), -math.inf)
    only_eos[..., EOS] = 0.0
    found = beam(Memory(only_eos), [3], size=4, n_best=3)
    assert found.lengths.tolist() == [[1, 0, 0]]
    assert found.scores.tolist() == [[0.0, -math.inf, -math.inf]]
    assert found.tokens.tolist() == [[[EOS], [PAD], [PAD]]]


@pytest.mark.parametrize("size", [1, 3])
def test_low_precision_steps_are_summed_in_float32(size):
    memory, limits = tables(8, 9), torch.full((8,), 12)
    low = Memory(memory.table.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = beam(low, limits, size=size)
    assert found.scores.dtype == found.log_probs.dtype == torch.float32
    same = beam(Memory(low.table.float()), limits, size=size)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, same, strict=True))


def test_the_model_s_tensor_is_left_alone_and_an_empty_batch_is_empty():
    memory = tables(3, 6)
    before = memory.table.clone()
    beam(memory, [4] * 3, size=1)
    beam(memory, [4] * 3, size=2)
    assert torch.equal(memory.table, before)
    assert beam(memory, [], size=2, n_best=2, at=torch.empty(0, dtype=torch.long)).tokens.shape == (0, 2, 0)


def test_select_goes_through_any_nesting():
    state = (torch.arange(4), [History(torch.arange(8).view(4, 2), []), None])
    chosen = select(state, torch.tensor([3, 0]))
    assert isinstance(chosen[1][0], History)
    assert chosen[0].tolist() == [3, 0]
    assert chosen[1][0].code.tolist() == [[6, 7], [0, 1]]
    assert chosen[1][1] is None
    with pytest.raises(TypeError, match="found int"):
        select((1,), torch.tensor([0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "beam_size: 0 given"),
        ({"size": 2, "n_best": 3}, r"n_best: 3 given, allowed is 1 to beam_size \(2\)"),
        ({"size": 2, "n_best": 0}, "n_best: 0 given"),
        ({"size": 2, "length_penalty": -0.5}, "length_penalty: -0.5 given"),
        ({"size": 2, "length_penalty": math.nan}, "length_penalty: nan given"),
        ({"size": 2, "limits": [3, 0]}, "max_lengths: 0 given"),
        ({"size": 2, "limits": [[3], [2]]}, r"max_lengths: shape \(2, 1\) given"),
    ],
)
def test_impossible_settings(options, message):
    with pytest.raises(UsageError, match=message):
        beam(tables(2, 5), **{"limits": [3, 3], **options})


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_broken_model_is_an_error(size, value):
    memory = tables(3, 5)
    memory.table[1] = value
    with pytest.raises(SuiteError, match="no hypothesis for 1 of 3 sentences"):
        beam(memory, [4, 4, 4], size=size)
