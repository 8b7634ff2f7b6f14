"""SuiteModule: what every domain's LightningModule inherits, so that a domain writes its forward pass and little else.

A domain writes ``compute(batch) -> StepOutput``. The loss that it hands over is a *sum* with its *weight* (tokens,
samples, frames). Gradients of sums are added up over accumulation steps and ranks and divided once, by the total
weight, just before the optimiser step: batches of unequal weight then count each token alike, and two processes make
the step that one process makes with the same examples.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torchmetrics import Metric

from suite.errors import UsageError
from suite.layer_groups import FinetuneConfig, Tuning
from suite.metrics import WeightedMean
from suite.optim import OptimConfig, build_optimizer, finish_gradients
from suite.recurrent.penalties import recurrent_weights
from suite.stop import StopRequest

Split = Literal["val", "test"]
# Whatever reads weights: with shared-out weights these calls gather them first, as ``forward`` does.
_USES_WEIGHTS = (
    "training_step",
    "validation_step",
    "test_step",
    "predict_step",
    "sample_table",
    "sample_figure",
    "write_samples",
)


class StepOutput(NamedTuple):
    """What ``compute`` gives: ``loss_sum`` (scalar), the ``weight`` it sums over (scalar), and anything for metrics."""

    loss_sum: Tensor
    weight: Tensor
    outputs: Any = None


class TrainingStep(NamedTuple):
    """One optimiser step over all ranks: mean ``loss``, ``weight``, gradient ``norm`` before clipping.

    ``skipped``: the loss or a gradient was not finite on some rank, and no rank updated anything.
    """

    loss: float
    weight: float
    norm: float
    skipped: bool


class SuiteModule(LightningModule):
    """Shared steps, logging and optimisers.

    Args:
        assets: plain data that travels with the weights (tokenizers, labels), as the data module made it.
        optim: the optimiser and its schedule.
    """

    monitor: ClassVar[str] = "val/loss"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    unit: ClassVar[str] = "samples"
    fresh_keys: ClassVar[tuple[str, ...]] = ()
    """Weights that may begin anew in fine-tuning, such as a head: names, with * for any part."""

    def __init__(self, assets: dict[str, Any], *, optim: OptimConfig | None = None) -> None:
        super().__init__()
        self.assets = assets
        self.optim = optim or OptimConfig()
        self.last_step: TrainingStep | None = None
        self.stop = StopRequest()
        self.step_indices: list[int] = []
        """Examples of this process in the optimiser step at hand, where batches have ``indices``."""
        self.tuning: Tuning | None = None
        self.kept: list[dict[str, Any]] | None = None
        self.kept_below: int | None = None
        """Keep results of examples below this index only."""
        self._totals: list[Tensor] = []
        self._shared: tuple[Tensor, torch.distributed.Work] | None = None
        self.evaluation = nn.ModuleDict(
            {split: nn.ModuleDict({"loss": WeightedMean(), **self.make_metrics()}) for split in ("val", "test")}
        )

    def begin(self, data: Any) -> None:
        """Called once, before a new run's first step: initial weights that come from ``data``, its data module.

        Neither a run that goes on nor a checkpoint that is read calls it: there the weights are.
        """

    def compute(self, batch: Any) -> StepOutput:
        """Forward pass and loss of one batch."""
        raise NotImplementedError

    def compute_in(self, split: Literal["train", "val", "test"], batch: Any) -> StepOutput:
        """``compute`` as a step of a pass over ``split``; a module that carries a state from batch to batch does so."""
        return self.compute(batch)

    def make_metrics(self) -> dict[str, Metric]:
        """New metric objects beside the loss, by the name that they are logged under."""
        return {}

    def update_metrics(self, metrics: dict[str, Metric], batch: Any, output: StepOutput) -> None:
        """Update the objects of ``make_metrics`` with one evaluated batch."""

    def results(self, split: Split) -> dict[str, float]:
        """The figures of the last evaluation on this process, computed over all of them."""
        metrics = cast(nn.ModuleDict, self.evaluation[split])
        return {name: float(cast(Metric, metric).compute()) for name, metric in metrics.items()}

    def keep(
        self,
        results: list[dict[str, Any]] | Callable[[], list[dict[str, Any]]],
        *,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Hold on to what was generated in an evaluation, if somebody set ``kept`` to a list.

        Args:
            results: or a function that makes them, which is called only if some of them are kept.
            indices: of their examples, so that this is known before they are made.
        """
        limit = self.kept_below
        if self.kept is None or (limit is not None and indices is not None and min(indices, default=0) >= limit):
            return
        made = results() if callable(results) else results
        self.kept.extend(made if limit is None else [each for each in made if each["index"] < limit])

    def signatures(self) -> dict[str, str]:
        """For metrics of which there are variants: which one was computed, by name."""
        return {}

    def sample_table(self, batch: Any) -> tuple[Sequence[str], list[list[Any]]] | None:
        """Columns and rows that show what the model makes of ``batch``; ``None`` without."""
        return None

    def write_samples(self, batch: Any, folder: Path, stem: str) -> list[Path]:
        """Write what the model makes of ``batch`` as sound or image files, their names beginning with ``stem``.

        ``STEM.png`` is the figure of a module that has no ``sample_figure``.
        """
        return []

    def sample_figure(self, batch: Any) -> Any:
        """A matplotlib figure of what happens inside the model on ``batch``; ``None`` without."""
        return None

    def evaluation_lines(self, split: Split) -> list[str]:
        """What is printed below the figures of the last evaluation of ``split``: figures of each class, say."""
        return []

    def write_evaluation(self, split: Split, folder: Path, stem: str) -> list[Path]:
        """Write files about the last evaluation of ``split``, their names beginning with ``stem``; gives their paths.

        Called on the first process alone.
        """
        return []

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """A result of ``predict_step`` as the lines of ``--format text``."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning notes each hook by it, 35 times a step, and it is no weight
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @staticmethod
    def shown(result: dict[str, Any]) -> dict[str, str]:
        """What a person reads of a test result at the end of a run, by name."""
        return {name: value for name, value in result.items() if isinstance(value, str)}

    def prediction_notes(self, results: Sequence[dict[str, Any]]) -> list[str]:
        """What must not pass in silence about all ``results`` of ``predict_step``: each a line on standard error.

        Of a result only its numbers and flags may be there: the texts of a million of them are not held in memory.
        """
        return []

    def configure_model(self) -> None:
        """Share weights out over processes where the strategy asks for it (FSDP2); Lightning calls this repeatedly."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not isinstance(self, FSDPModule):
            fully_shard(self, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]
            for name in _USES_WEIGHTS:
                register_fsdp_forward_method(self, name)
            if self.tuning is not None:
                self.tuning.follow(self, self.layer_groups())

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Names and modules that fine-tuning freezes together, from the input upwards.

        What no group names belongs to the topmost; what two share, to the upper one.
        """
        return [("all", [self])]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """A source's weights by this module's names, with rows for this module's vocabularies and labels.

        What is left out here is reported, and is no error. ``suite.transfer.RowMap`` does rows.
        """
        return state_dict

    def tune(self, config: FinetuneConfig) -> None:
        """Train by layer group from now on.

        Raises:
            UsageError: the policy does not fit the module's groups.
        """
        self.tuning = Tuning(self, self.layer_groups(), config=config)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        output = self.compute_in("train", batch)
        if not self._totals:
            self.step_indices.clear()
        indices = getattr(batch, "indices", None)  # of a batch that is a tensor this would be a method
        self.step_indices.extend(indices if isinstance(indices, list) else [])
        self._totals.append(torch.stack([output.loss_sum.detach().float(), output.weight.float()]))
        if not self.trainer.fit_loop.epoch_loop._should_accumulate():
            self._share_totals()
        # Lightning divides by the accumulation steps; the only division here is the one by the whole weight.
        return output.loss_sum * self.trainer.accumulate_grad_batches

    def _share_totals(self) -> None:
        """Begin to sum what the step counts over processes: while the backward pass goes on, it costs no waiting."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            totals = torch.stack(self._totals).sum(dim=0)
            totals = torch.cat([totals, totals.new_tensor(self.stop.wishes())])
            work = torch.distributed.all_reduce(totals, async_op=True)
            self._shared = totals, cast(torch.distributed.Work, work)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Divide by the whole weight, add penalties, measure the norm and clip: called before each optimiser step."""
        if self.tuning is not None:
            self.tuning.drop_gradients()
        if self._shared is None:
            self._share_totals()
        together = self._shared is not None
        if self._shared is not None:
            totals, work = self._shared
            work.wait()
            self._shared = None
        else:
            totals = self._totals[0] if len(self._totals) == 1 else torch.stack(self._totals).sum(dim=0)
        self._totals.clear()
        # Distributed strategies average gradients over ranks: multiplying by their number makes it the sum again.
        scale = self.trainer.world_size / totals[1].clamp_min(torch.finfo(totals.dtype).tiny)
        penalised = self.optim.recurrent_l1 or self.optim.recurrent_l2
        norm = finish_gradients(
            [parameter for group in optimizer.param_groups for parameter in group["params"]],
            self.optim,
            recurrent=recurrent_weights(self) if penalised else (),
            scale=scale,
            clip=gradient_clip_val or None,
            by_value=gradient_clip_algorithm == "value",
        )
        # One wait for the device a step: it decides here whether there is a step at all.
        loss_sum, weight, *wishes, measured = torch.cat([totals, norm.to(totals).view(1)]).tolist()
        self.stop.agree(wishes if together else self.stop.wishes())
        skipped = not (math.isfinite(loss_sum) and math.isfinite(measured))
        if skipped:
            optimizer.zero_grad(set_to_none=True)  # optimisers pass over parameters without a gradient
        self.last_step = TrainingStep(loss_sum / max(weight, 1e-30), weight, measured, skipped)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_index: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, split: Split, batch: Any) -> None:
        output = self.compute_in(split, batch)
        metrics = dict(cast(nn.ModuleDict, self.evaluation[split]).items())
        cast(WeightedMean, metrics["loss"]).update(output.loss_sum, output.weight)
        self.update_metrics(cast(dict[str, Metric], metrics), batch, output)
        for name, metric in metrics.items():
            self.log(f"{split}/{name}", cast(Metric, metric), on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if (self.optim.recurrent_l1 or self.optim.recurrent_l2) and not recurrent_weights(self):
            raise UsageError(
                "optim.recurrent_l1 and recurrent_l2 need recurrent weights, this model has none: leave out"
            )
        return build_optimizer(self, self.optim, layers=None if self.tuning is None else self.tuning.layers())
