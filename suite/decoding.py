"""Greedy and batched beam search over a step function; it knows nothing of the model behind the step.

B sentences, K beams, R = B*K rows ordered sentence by sentence, V vocabulary, L longest hypothesis, b sentences still
running. A step maps the last tokens (R,), a state and a memory to log probabilities (R, V) and the next state.

- The **state** belongs to rows (dim 0 is R): any nested tuple, named tuple, list or None of tensors. It is reordered.
- The **memory** belongs to sentences (dim 0 is b): encoder outputs, masks. It is never repeated beam-fold and only
  indexed when finished sentences leave, so a step finds the number of beams as ``R // b``.

A sentence's result does not depend on its neighbours, as far as the step's own arithmetic does not: equal scores are
settled by position, and a finished sentence is frozen from that step on, whenever its rows are dropped.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suite.errors import SuiteError, UsageError

State = Any
Memory = Any
Step = Callable[[Tensor, State, Memory], tuple[Tensor, State]]

# Finished sentences leave once they are a quarter of the running ones: the copies then form a geometric series.
KEEP_ABOVE = 0.75
# Asking an accelerator how many sentences are finished stalls it, so there it is asked only now and then.
ACCELERATOR_CHECK_EVERY = 4


class Hypotheses(NamedTuple):
    """What a search found, best first. A place without a hypothesis has length 0 and scores of minus infinity."""

    tokens: Tensor  # (B, N, L) without bos, with eos where it was produced, then pad
    lengths: Tensor  # (B, N) number of tokens including eos
    scores: Tensor  # (B, N) float32: log probability / length penalty, what hypotheses are ranked by
    log_probs: Tensor  # (B, N) float32: sum of log probabilities


class _Running(NamedTuple):
    """The sentences still in the batch; dim 0 of everything is b."""

    ids: Tensor  # (b,) place in the caller's batch
    limits: Tensor  # (b,) max length
    done: Tensor  # (b,) bool
    found: Hypotheses  # (b, K, ...) finished hypotheses, for greedy search the one under way
    live: Tensor | None = None  # (b, K) log probability of each beam, -inf where there is none
    tokens: Tensor | None = None  # (b, K, L) what each beam has emitted


# (running, log_probs (R, V), length) -> running, next tokens (R,), rows they continue (R,) or None for "the same rows"
_Advance = Callable[[_Running, Tensor, int], tuple[_Running, Tensor, Tensor | None]]


def select(state: State, index: Tensor) -> State:
    """Rows ``index`` (R',) of dim 0 of every tensor in ``state``, through any nesting of (named) tuples, lists, None.

    Raises TypeError for anything else, since leaving it as it is would mix up sentences silently.
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.index_select(0, index.to(state.device))
    if isinstance(state, tuple | list):
        parts = [select(part, index) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    raise TypeError(f"decoding state: found {type(state).__name__}, allowed are tensors, tuples, lists and None")


@torch.no_grad()
def greedy(
    step: Step, state: State, memory: Memory, *, batch_size: int, max_lengths: Tensor, bos: int, eos: int, pad: int
) -> Hypotheses:
    """The most probable token at every step, the lowest id among equals. Returns N = 1, scores = log probabilities.

    ``state`` and ``memory`` have B rows. ``max_lengths`` (B,) counts tokens including eos; a sentence that reaches it
    is cut there. Work is done on the device of ``max_lengths``. pad and bos are never generated.
    Raises UsageError for impossible settings and SuiteError if a sentence has no continuation (NaN or all -inf).
    """
    horizon = _horizon(max_lengths, batch_size=batch_size)
    forbidden = _forbidden(bos=bos, eos=eos, pad=pad)

    def advance(running: _Running, log_probs: Tensor, length: int) -> tuple[_Running, Tensor, None]:
        found, done = running.found, running.done
        allowed = log_probs.to(torch.float32, copy=True)
        allowed[:, forbidden] = -math.inf
        gain, token = allowed.max(dim=-1)
        token = token.masked_fill(done, pad)
        found.tokens[:, 0, length - 1] = token
        lengths = found.lengths + ~done[:, None]
        total = found.log_probs + gain.masked_fill(done, 0.0)[:, None]
        done = done | (token == eos) | (running.limits == length)
        return running._replace(found=Hypotheses(found.tokens, lengths, total, total), done=done), token, None

    running = _start(max_lengths, beam_size=1, horizon=horizon, pad=pad)
    zero = torch.zeros_like(running.found.scores)
    found = running.found._replace(scores=zero, log_probs=zero)
    running = running._replace(found=found, live=None, tokens=None)
    return _search(step, advance, running, state, memory, bos=bos, horizon=horizon, n_best=1)


@torch.no_grad()
def beam_search(
    step: Step,
    state: State,
    memory: Memory,
    *,
    batch_size: int,
    beam_size: int,
    n_best: int = 1,
    max_lengths: Tensor,
    bos: int,
    eos: int,
    pad: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> Hypotheses:
    """The ``n_best`` hypotheses of a beam search with ``beam_size`` beams, ranked by log probability / length penalty.

    ``state`` and ``memory`` have B rows; the state is expanded here. ``max_lengths`` (B,) counts tokens including eos.
    At every step the K best continuations survive; those in eos leave the beam for the sentence's K best finished ones.
    The penalty is ((5 + length) / 6) ** ``length_penalty`` (Wu et al. 2016, eq. 14).

    A sentence ends when no live beam can still beat the worst of its ``n_best``: log probabilities only fall and the
    penalty only grows, so no continuation scores above log_prob / penalty(max_length). Nothing is lost that the beam
    would still have found. ``early_stopping`` ends it at K finished hypotheses: faster, and it favours short ones.
    At ``max_lengths`` the live beams are finished as they are, without eos. One beam is exactly ``greedy``.

    Returns N = ``n_best``; work is done on the device of ``max_lengths``. pad and bos are never generated.
    Raises UsageError for impossible settings and SuiteError if a sentence has no continuation (NaN or all -inf).
    """
    _check(beam_size=beam_size, n_best=n_best, length_penalty=length_penalty)
    horizon = _horizon(max_lengths, batch_size=batch_size)
    device = max_lengths.device
    # On the host in float64, then rounded: the table is then monotone, which the bound relies on.
    penalties = ((5.0 + torch.arange(horizon + 1, dtype=torch.float64)) / 6.0).pow(length_penalty).float().to(device)
    if beam_size == 1:
        # Not only faster: sums of log probabilities round, and could tie where the single steps do not.
        lone = greedy(step, state, memory, batch_size=batch_size, max_lengths=max_lengths, bos=bos, eos=eos, pad=pad)
        return lone._replace(scores=lone.log_probs / penalties[lone.lengths])

    forbidden = _forbidden(bos=bos, eos=eos, pad=pad)
    advance = _beam_advance(eos, forbidden, penalties=penalties, n_best=n_best, early_stopping=early_stopping)
    running = _start(max_lengths, beam_size=beam_size, horizon=horizon, pad=pad)
    state = select(state, torch.arange(batch_size, device=device).repeat_interleave(beam_size))
    return _search(step, advance, running, state, memory, bos=bos, horizon=horizon, n_best=n_best)


def _beam_advance(eos: int, forbidden: list[int], *, penalties: Tensor, n_best: int, early_stopping: bool) -> _Advance:
    def advance(running: _Running, log_probs: Tensor, length: int) -> tuple[_Running, Tensor, Tensor]:
        assert running.live is not None
        assert running.tokens is not None
        (size, beams), vocabulary = running.live.shape, log_probs.shape[-1]
        totals = running.live[..., None] + log_probs.float().reshape(size, beams, vocabulary)
        totals[..., forbidden] = -math.inf
        scores, flat = _top(totals.view(size, beams * vocabulary), beams)
        parent, token = flat // vocabulary, flat % vocabulary
        tokens = _pick(running.tokens, parent)
        tokens[..., length - 1] = token

        ends = (token == eos) | (running.limits == length)[:, None]
        final = scores.masked_fill(~ends, -math.inf)
        lengths = torch.full_like(token, length)
        found = _merge(running.found, Hypotheses(tokens, lengths, final / penalties[length], final))

        live = scores.masked_fill(ends, -math.inf)
        done = live.amax(dim=1) / penalties[running.limits] <= found.scores[:, n_best - 1]
        if early_stopping:
            done = done | (found.scores[:, -1] > -math.inf)
        # A finished sentence has no live beam left: whatever its rows compute from now on cannot enter its result.
        live = live.masked_fill(done[:, None], -math.inf)
        origin = parent + beams * torch.arange(size, device=parent.device)[:, None]
        return _Running(running.ids, running.limits, done, found, live, tokens), token.flatten(), origin.flatten()

    return advance


def _search(
    step: Step,
    advance: _Advance,
    running: _Running,
    state: State,
    memory: Memory,
    *,
    bos: int,
    horizon: int,
    n_best: int,
) -> Hypotheses:
    """Step until every sentence is done, dropping finished ones now and then."""
    # Not a view of ``running``: greedy search writes its tokens in place.
    result = Hypotheses(*(part.clone() for part in running.found))
    beams, device = running.found.lengths.shape[1], running.ids.device
    check_every = 1 if device.type == "cpu" else ACCELERATOR_CHECK_EVERY
    last = torch.full((running.ids.shape[0] * beams,), bos, device=device)
    for length in range(1, horizon + 1):
        log_probs, state = step(last, state, memory)
        assert log_probs.shape[0] == last.shape[0], "a step returns one row of log probabilities a token"
        running, last, origin = advance(running, log_probs, length)
        state = state if origin is None else select(state, origin)
        if length == horizon or length % check_every:
            continue
        remaining = int((~running.done).sum())
        if remaining == 0:
            break
        if remaining <= KEEP_ABOVE * running.ids.shape[0]:
            _store(result, running)
            keep = (~running.done).nonzero().flatten()
            rows = (keep[:, None] * beams + torch.arange(beams, device=device)).flatten()
            running, memory = select(running, keep), select(memory, keep)
            last, state = select(last, rows), select(state, rows)
    _store(result, running)
    return _trim(result, n_best=n_best)


def _top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row (b, M) of float32, best first, the earlier of equals: values and places.

    ``torch.topk`` leaves the choice among equals open (on CUDA it varies with the number of rows), and low precision
    makes equals common. Settling them costs ten times as much, so where looking is free only rows with equals pay.
    """
    if scores.device.type == "cpu":
        values, place = scores.topk(min(count + 1, scores.shape[1]), dim=1)
        # Among -inf any place will do: a beam there is dead.
        tied = ((values[:, 1:] == values[:, :-1]) & values[:, 1:].isfinite()).any(dim=1)
        place = place[:, :count]
        if tied.any():
            place[tied] = _settled(scores[tied], count)
    else:
        place = _settled(scores, count)
    values = scores.gather(1, place)
    return values.masked_fill(values.isnan(), -math.inf), place


def _settled(scores: Tensor, count: int) -> Tensor:
    """Places of the largest by keys that are all different: an order-preserving integer, then the place."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: no negative zero
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return ((ordered << 32) - torch.arange(scores.shape[1], device=scores.device)).topk(count, dim=1).indices


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """``values`` (b, K, L) at ``places`` (b, P) -> (b, P, L)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _merge(kept: Hypotheses, new: Hypotheses) -> Hypotheses:
    """The best of both, as many as ``kept`` holds; the older of equals, so that a full pool is never shuffled."""
    both = Hypotheses(*(torch.cat(pair, dim=1) for pair in zip(kept, new, strict=True)))
    order = both.scores.sort(dim=1, descending=True, stable=True).indices[:, : kept.scores.shape[1]]
    return Hypotheses(_pick(both.tokens, order), *(part.gather(1, order) for part in both[1:]))


def _start(max_lengths: Tensor, *, beam_size: int, horizon: int, pad: int) -> _Running:
    """Nothing found, and one live beam a sentence: the others would only repeat it."""
    size, device = max_lengths.shape[0], max_lengths.device
    nothing = torch.full((size, beam_size), -math.inf, device=device, dtype=torch.float32)
    tokens = torch.full((size, beam_size, horizon), pad, device=device, dtype=torch.long)
    found = Hypotheses(tokens, torch.zeros_like(nothing, dtype=torch.long), nothing, nothing)
    live = nothing.index_fill(1, torch.zeros(1, device=device, dtype=torch.long), 0.0)
    done = torch.zeros(size, device=device, dtype=torch.bool)
    return _Running(torch.arange(size, device=device), max_lengths.long(), done, found, live, tokens)


def _store(result: Hypotheses, running: _Running) -> None:
    for whole, part in zip(result, running.found, strict=True):
        whole.index_copy_(0, running.ids, part)


def _trim(result: Hypotheses, *, n_best: int) -> Hypotheses:
    result = Hypotheses(*(part[:, :n_best] for part in result))
    if result.lengths.numel() == 0:
        return result
    lost = int((~result.log_probs[:, 0].isfinite()).sum())
    if lost:
        raise SuiteError(
            f"decoding: no hypothesis for {lost} of {result.lengths.shape[0]} sentences, since the model's log "
            "probabilities are NaN or all -inf; some token has to be possible at every step; look at the training"
        )
    return result._replace(tokens=result.tokens[..., : int(result.lengths.max())])


def _horizon(max_lengths: Tensor, *, batch_size: int) -> int:
    """The longest a hypothesis can get; 0 for an empty batch."""
    if max_lengths.shape != (batch_size,):
        raise UsageError(f"max_lengths: shape {tuple(max_lengths.shape)} given, ({batch_size},) needed: one a sentence")
    if batch_size == 0:
        return 0
    shortest, longest = torch.stack(torch.aminmax(max_lengths)).tolist()
    if shortest < 1:
        raise UsageError(f"max_lengths: {shortest} given, at least 1 is needed: it counts the closing token")
    return int(longest)


def _forbidden(*, bos: int, eos: int, pad: int) -> list[int]:
    """Never generated. Some vocabularies use one id twice, and eos must stay possible."""
    return sorted({bos, pad} - {eos})


def _check(*, beam_size: int, n_best: int, length_penalty: float) -> None:
    if beam_size < 1:
        raise UsageError(f"beam_size: {beam_size} given, allowed is 1 or more")
    if not 1 <= n_best <= beam_size:
        raise UsageError(
            f"n_best: {n_best} given, allowed is 1 to beam_size ({beam_size}); raise beam_size to get more"
        )
    # Below 0 the stopping rule would be wrong, far above 10 the penalty overflows.
    if not 0.0 <= length_penalty <= 10.0:
        raise UsageError(f"length_penalty: {length_penalty} given, allowed is 0 (none) to 10; usual are 0.6 to 1.5")
