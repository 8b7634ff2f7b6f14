"""An LSTM with batch normalisation inside the recurrence, statistics kept for each step.

Cooijmans et al., "Recurrent Batch Normalization", 2017.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.recurrent.cells import UnrolledLayer
from suite.recurrent.normalisation import Running, StepNorm
from suite.recurrent.options import RecurrentOptions
from suite.recurrent.steps import LSTMSteps
from suite.recurrent.unroll import Extras, Recurrence, Schedule, State, make_schedule, run, start_of, to_time_major

_MOMENTUM = 0.1


class BatchNormLSTMLayer(UnrolledLayer):
    """``gates = BN(U h) + BN(W x) + b``, ``h' = o * tanh(BN(c'))``.

    Training normalises each step over the rows that are still running (padding has no part in it), eval by running
    averages, of which each of the first ``options.statistics_steps`` steps has its own; steps beyond what training has
    reached take the last. A step at which a single row is running has no variance and takes the running ones too.
    Where rows have done different numbers of steps, training files their common moments under the median.

    The state has a third tensor, the number of steps done ``(B, 1)``, so that chunks find their statistics; it may be
    left out of a state that is handed in and is then zero.
    """

    batches: Tensor  # (S,), how many each step's averages have seen
    mean_ih: Tensor
    mean_hh: Tensor
    mean_memory: Tensor
    variance_ih: Tensor
    variance_hh: Tensor
    variance_memory: Tensor

    def __init__(self, input_size: int, hidden_size: int, *, options: RecurrentOptions) -> None:
        super().__init__(input_size, hidden_size, num_gates=4, num_states=2, options=options)
        # A tenth, so that tanh and the sigmoids start where their slopes are large (section 5 of the paper).
        self.gain_ih = nn.Parameter(torch.full((4 * hidden_size,), 0.1))
        self.gain_hh = nn.Parameter(torch.full((4 * hidden_size,), 0.1))
        self.gain_memory = nn.Parameter(torch.full((hidden_size,), 0.1))
        self.bias_memory = nn.Parameter(torch.zeros(hidden_size))
        steps = options.statistics_steps
        for name, size in (("ih", 4 * hidden_size), ("hh", 4 * hidden_size), ("memory", hidden_size)):
            self.register_buffer(f"mean_{name}", torch.zeros(steps, size))
            self.register_buffer(f"variance_{name}", torch.ones(steps, size))
        self.register_buffer("batches", torch.zeros(steps, dtype=torch.long))

    def project(self, inputs: Tensor, schedule: Schedule) -> Tensor:
        return functional.linear(inputs, self.weight_ih)

    def forward(
        self, inputs: Tensor, lengths: Tensor, state: State | None = None, weight: Tensor | None = None
    ) -> tuple[Tensor, State]:
        schedule = make_schedule(lengths, inputs.size(1))
        gates = self.project(to_time_major(inputs, schedule), schedule)
        start = start_of(state, gates, schedule, batch=len(inputs), size=self.hidden_size, count=2)
        done = lengths.new_zeros(len(inputs)) if state is None or len(state) < 3 else state[2][:, 0].to(lengths.dtype)
        norms = self._norms(done if schedule.order is None else done[schedule.order], len(gates))
        zones = [zoneout.draw(len(gates), start[0]) for zoneout in (self.zoneout, self.zoneout_memory)]
        recurrence = LSTMSteps(zone=zones[0], zone_memory=zones[1], norms=norms)
        extras = (None, self.gain_ih, self.bias, self.gain_hh, None, self.gain_memory, self.bias_memory)
        outputs, final = run(
            recurrence, gates, self.weight_hh if weight is None else weight, start, schedule, extras=extras,
            steps=inputs.size(1),
        )  # fmt: skip
        if self.training and len(inputs):
            self._update(norms, int(done.median()))
        return outputs, (*final, (done + lengths).unsqueeze(1).to(final[0].dtype))

    def recur(self, gates: Tensor, start: State, schedule: Schedule) -> tuple[Recurrence, Extras]:
        raise NotImplementedError("its norms depend on the steps done")

    def _norms(self, done: Tensor, steps: int) -> tuple[StepNorm, ...]:
        reached = (self.batches > 0).sum().clamp_min(1) - 1
        index = torch.arange(steps, device=done.device).unsqueeze(1) + done.unsqueeze(0)
        index = torch.minimum(index, reached)
        tables = [(getattr(self, f"mean_{name}"), getattr(self, f"variance_{name}")) for name in ("ih", "hh", "memory")]
        return tuple(
            StepNorm(axis=0, running=Running(mean, variance, index), training=self.training)
            for mean, variance in tables
        )

    @torch.no_grad()
    def _update(self, norms: tuple[StepNorm, ...], done: int) -> None:
        """Running averages of the steps that used the rows' own moments; the last entry takes all from there on."""
        batches, limit = self.batches, len(self.batches)
        count = len(norms[0].moments)
        if not count:
            return
        first, last = min(done, limit - 1), min(done + count, limit)
        # Of a batch whose step will be skipped nothing stays: not a number would stay for good.
        moments = [torch.stack((each.mean, each.variance)) for norm in norms for each in norm.moments]
        finite = torch.stack([each.isfinite().all() for each in moments]).view(len(norms), count).all(dim=0)
        sound = _all_of_rest(finite, last - first).unsqueeze(1)
        momentum = (1.0 / (batches[first:last] + 1)).clamp_min(_MOMENTUM).unsqueeze(1)
        for norm, name in zip(norms, ("ih", "hh", "memory"), strict=True):
            rows = torch.tensor([each.rows for each in norm.moments], device=batches.device).unsqueeze(1)
            means = torch.stack([each.mean for each in norm.moments])
            variances = torch.stack([each.variance for each in norm.moments]) * (rows / (rows - 1))
            for table, values in ((f"mean_{name}", means), (f"variance_{name}", variances)):
                kept = _fold(values, last - first)
                target = getattr(self, table)[first:last]
                moved = torch.lerp(target, kept.to(target.dtype), momentum.to(target.dtype))
                target.copy_(torch.where(sound, moved, target))
        batches[first:last] += sound.squeeze(1)


def _all_of_rest(values: Tensor, size: int) -> Tensor:
    """As ``_fold``, of truth values."""
    return torch.cat([values[: size - 1], values[size - 1 :].all().view(1)])


def _fold(values: Tensor, size: int) -> Tensor:
    """The first ``size`` rows, the last of them the mean of itself and all after it."""
    return torch.cat([values[: size - 1], values[size - 1 :].mean(dim=0, keepdim=True)])
