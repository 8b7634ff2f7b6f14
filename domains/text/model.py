"""The classifier of texts: a recurrent encoder, pooling over time, and one linear layer."""

from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from domains.text.data import TextBatch, TextData
from domains.text.network import TextEncoder, map_network, map_tokens
from suite.classification import ClassificationModule, ClassWeights, Scores
from suite.console import notice
from suite.dropout import Dropout
from suite.errors import UsageError
from suite.figures import words_figure
from suite.optim import OptimConfig
from suite.pooling import Pooling, PoolingKind
from suite.recurrent import EncoderConfig
from suite.transfer import RowMap
from suite.vocabulary import Tokenizer

_FIGURE_ROWS = 4


class TextModule(ClassificationModule):
    """Gives each text one of the classes of the training texts.

    Args:
        embedding_size: Features of an embedded token; with data.vectors, those of the vectors.
        encoder: The encoder.
        pooling: From outputs over time to one vector: the last output (of each direction), the mean, the largest of
            each feature, these three side by side, or a mean weighted by attention.
        dropout: Probability of dropping embeddings, pooled features, and outputs between layers.
        word_dropout: Probability of reading a token as unknown.
        embedding_dropout: Probability of dropping a token of the vocabulary, wherever it stands in a batch.
        class_weights: What each class counts in the training loss: the same, in inverse proportion to its examples
            (balanced), or to their square root.
        label_smoothing: Probability mass spread over all classes in the training loss.
    """

    unit: ClassVar[str] = "texts"
    fresh_keys: ClassVar[tuple[str, ...]] = ("pooling.*", "output.*")

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        embedding_size: int = 100,
        encoder: EncoderConfig = EncoderConfig(hidden_size=128),
        pooling: PoolingKind = "attention",
        dropout: float = 0.2,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        class_weights: ClassWeights = "none",
        label_smoothing: float = 0.0,
        optim: OptimConfig | None = None,
    ) -> None:
        super().__init__(assets, class_weights=class_weights, label_smoothing=label_smoothing, optim=optim)
        self.tokenizer = Tokenizer.from_state(assets["tokenizer"])
        self.network = TextEncoder(
            len(self.tokenizer),
            embedding_size=embedding_size,
            encoder=encoder,
            dropout=dropout,
            word_dropout=word_dropout,
            embedding_dropout=embedding_dropout,
        )
        size = self.network.encoder.output_size
        self.pooling = Pooling(size, kind=pooling, bidirectional=encoder.bidirectional)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(self.pooling.output_size, len(self.labels))

    def begin(self, data: Any) -> None:
        """Begin with the vectors that ``data.vectors`` names; other tokens keep random ones of the same spread."""
        assert isinstance(data, TextData)
        vectors = data.read_vectors()
        if vectors is None:
            return
        for line in vectors.lines():
            notice(line)
        weight = self.network.embedding.weight
        if vectors.weight.size(1) != weight.size(1):
            size = vectors.weight.size(1)
            raise UsageError(f"model.embedding_size is {weight.size(1)}, but {vectors.path} has {size}: use {size}")
        with torch.no_grad():
            if bool(vectors.found.any()):
                weight *= vectors.weight[vectors.found].std() / weight.std()
            weight[vectors.found] = vectors.weight[vectors.found]

    def score(self, batch: TextBatch) -> Scores:
        encoded = self.network(batch.tokens, batch.lengths)
        pooled = self.pooling(encoded.outputs, batch.lengths)
        penalty = self.network.encoder.penalty(encoded)
        return Scores(self.output(self.dropout(pooled.features)), pooled.weights, penalty)

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Embedding, encoder, and what is above it."""
        return [
            ("embedding", [self.network.embedding]),
            ("encoder", [self.network.encoder]),
            ("classifier", [self.pooling, self.output]),
        ]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """Embedding rows by token; of a classifier with some of the same labels also what is above, rows by label."""
        adapted = map_network(state_dict, map_tokens(source_assets, self.tokenizer))
        labels = source_assets.get("labels")
        if labels is None or not set(labels) & set(self.labels.names):
            return adapted
        own, rows = self.state_dict(), RowMap(labels, self.labels.names, what="labels")
        for key, weight in state_dict.items():
            if key in own and key.startswith("pooling."):
                adapted[key] = weight
            elif key.startswith("output.") and weight.shape[1:] == own[key].shape[1:]:
                adapted[key] = rows(weight)
        return adapted

    @torch.no_grad()
    def sample_figure(self, batch: TextBatch) -> Figure | None:
        """Attention over the words of the first few texts, with the true and the predicted label."""
        scores = self.score(batch)
        if scores.weights is None:
            return None
        rows = []
        for row in range(min(_FIGURE_ROWS, len(batch.inputs))):
            length = int(batch.lengths[row])
            words = self.tokenizer.tokens(batch.tokens[row, :length].tolist())
            found, true = int(scores.logits[row].argmax()), int(batch.labels[row])
            title = f"{self.labels.names[found]} (true: {self.labels.names[true]})"
            shown = [word.removeprefix("▁") or word for word in words]
            rows.append((shown, scores.weights[row, :length].tolist(), title))
        return words_figure(rows)
