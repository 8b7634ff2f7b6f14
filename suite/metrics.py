"""Metrics that are exact over processes: each state is a sum of integers or float64 numbers, merged by adding.

Two processes with unequal shards report what one process with all the data reports. An empty set is NaN everywhere:
nothing was measured, and 0 would look like a result. States are replaced, never added to in place, and keep their
type when Lightning casts a model to half precision.
"""

from collections.abc import Callable, Sequence

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric

from suite.errors import SuiteError


class SuiteMetric(Metric):
    """Base of the metrics here: sums that stay in their own type wherever the module is moved."""

    is_differentiable = False
    full_state_update = False

    def _add_sum(self, name: str, *shape: int, dtype: torch.dtype) -> None:
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        # model.to(bfloat16), as precision "bf16-true" does, would otherwise round counts to eight bits.
        return super()._apply(lambda value: value.to(fn(value.new_empty(0)).device), exclude_state)


class _CorpusScore(SuiteMetric):
    """A sacrebleu metric by its own sufficient statistics, summed over sentences as integers."""

    higher_is_better = True
    statistics: Tensor
    sentences: Tensor

    def __init__(self, scorer: BLEU | CHRF, *, size: int) -> None:
        super().__init__()
        # sacrebleu learns the number of references from data; here it is always one, also before the first update.
        scorer.num_refs = 1
        self._scorer, self._size = scorer, size
        self._add_sum("statistics", size, dtype=torch.int64)
        self._add_sum("sentences", dtype=torch.int64)

    @property
    def signature(self) -> str:
        """sacrebleu's own signature: what has to stand beside the figure for it to be comparable."""
        return str(self._scorer.get_signature())

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Count pairs of detokenised sentences. Raises SuiteError if there are not as many of one as of the other."""
        _check_pairs(hypotheses, references)
        if len(hypotheses) == 0:
            return
        rows = self._scorer._extract_corpus_statistics(list(hypotheses), [list(references)])
        sums = torch.tensor(rows, dtype=torch.int64).sum(dim=0)
        assert sums.shape == (self._size,), "sacrebleu has changed its statistics"
        self.statistics = self.statistics + sums.to(self.statistics.device)
        self.sentences = self.sentences + len(hypotheses)

    def compute(self) -> Tensor:
        """The corpus score, float64 (), 0 to 100; NaN for no sentences."""
        score = float("nan")
        if int(self.sentences):
            score = self._scorer._compute_score_from_stats(self.statistics.tolist()).score
        return torch.tensor(score, dtype=torch.float64, device=self.statistics.device)


class CorpusBLEU(_CorpusScore):
    """``sacrebleu.corpus_bleu``: cased, 13a tokens, exponential smoothing (Papineni et al. 2002; Post 2018)."""

    def __init__(self) -> None:
        # hypothesis length, reference length, then matches and totals for each order
        super().__init__(scorer := BLEU(), size=2 + 2 * scorer.max_ngram_order)


class CorpusCHRF(_CorpusScore):
    """``sacrebleu.corpus_chrf``: chrF2, character order 6, no words (Popović 2015)."""

    def __init__(self) -> None:
        # n-grams of the hypothesis, of the reference, and matches, for each order
        super().__init__(scorer := CHRF(), size=3 * scorer.order)


class ExactMatch(SuiteMetric):
    """Share of sentences equal to their reference, character by character, in percent.

    References are compared as they are given: bring them to the form that hypotheses have.
    """

    higher_is_better = True
    correct: Tensor
    sentences: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add_sum("correct", dtype=torch.int64)
        self._add_sum("sentences", dtype=torch.int64)

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Count sentence pairs. Raises SuiteError if there are not as many of one as of the other."""
        _check_pairs(hypotheses, references)
        self.correct = self.correct + sum(a == b for a, b in zip(hypotheses, references, strict=True))
        self.sentences = self.sentences + len(hypotheses)

    def compute(self) -> Tensor:
        """Float64 (), 0 to 100; NaN for no sentences."""
        return 100.0 * self.correct.double() / self.sentences.double()


class WeightedMean(SuiteMetric):
    """Sum of totals over sum of weights in float64: a loss per token, sample or frame. Lower is better."""

    higher_is_better: bool | None = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add_sum("total", dtype=torch.float64)
        self._add_sum("weight", dtype=torch.float64)

    def update(self, total: Tensor | float, weight: Tensor | float) -> None:
        """Add a total and the weight it was summed over; tensors of any shape are summed."""
        self.total = self.total + self._sum(total)
        self.weight = self.weight + self._sum(weight)

    def compute(self) -> Tensor:
        """Float64 (); NaN for no weight."""
        return self.total / self.weight

    def _sum(self, value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self.total.device).detach().sum()


class Perplexity(WeightedMean):
    """exp of the mean negative log likelihood in nats, infinite where that overflows."""

    def compute(self) -> Tensor:
        """Float64 (), 1 or more; NaN for no weight."""
        return super().compute().exp()


def _check_pairs(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise SuiteError("metric: a single text given, allowed are lists of texts; put it in a list")
    if len(hypotheses) != len(references):
        raise SuiteError(
            f"metric: {len(hypotheses)} hypotheses for {len(references)} references given, equal numbers needed"
        )
