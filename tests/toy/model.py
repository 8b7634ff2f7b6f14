"""A GRU that predicts the next value."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric

from suite.metrics import WeightedMean
from suite.module import StepOutput, SuiteModule
from suite.optim import OptimConfig
from suite.recurrent import RecurrentEncoder
from suite.sequence import length_mask
from tests.toy.data import SineBatch


class SineModule(SuiteModule):
    """A recurrent layer and a linear one.

    Args:
        hidden_size: Features of the state.
        dropout: Probability of dropping an output.
    """

    unit: ClassVar[str] = "values"

    def __init__(
        self, assets: dict[str, Any], *, hidden_size: int = 8, dropout: float = 0.1, optim: OptimConfig | None = None
    ) -> None:
        super().__init__(assets, optim=optim)
        self.encoder = RecurrentEncoder(1, hidden_size, cell="gru")
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, batch: SineBatch) -> Tensor:
        """Predictions ``(B, T)``."""
        encoded = self.encoder(batch.values[:, :-1].unsqueeze(2), batch.lengths)
        return self.output(self.dropout(encoded.outputs)).squeeze(2)

    def compute(self, batch: SineBatch) -> StepOutput:
        error = (self(batch) - batch.values[:, 1:]).square()
        mask = length_mask(batch.lengths, error.size(1))
        return StepOutput(error[mask].sum(), batch.lengths.sum(), (error.detach().abs().sqrt() * mask).sum())

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("encoder", [self.encoder]), ("output", [self.dropout, self.output])]

    def make_metrics(self) -> dict[str, Metric]:
        return {"error": WeightedMean()}

    def update_metrics(self, metrics: dict[str, Metric], batch: SineBatch, output: StepOutput) -> None:
        metrics["error"].update(output.outputs, output.weight)
        self.keep([{"index": index} for index in batch.indices])

    def predict_step(self, batch: SineBatch, batch_index: int) -> list[dict[str, Any]]:
        last = self(batch).gather(1, (batch.lengths - 1).unsqueeze(1)).squeeze(1)
        return [{"index": index, "value": float(value)} for index, value in zip(batch.indices, last, strict=True)]

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        return [f"{result['value']:.4f}"]
