"""The language model: a recurrent encoder that predicts the next token, its state carried from chunk to chunk."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from domains.text.language_data import StreamBatch
from domains.text.network import TextEncoder, map_network, map_tokens
from suite.dropout import Dropout
from suite.errors import UsageError
from suite.losses import linear_cross_entropy
from suite.metrics import Perplexity, WeightedMean
from suite.module import StepOutput
from suite.optim import OptimConfig
from suite.recurrent import EncoderConfig, State
from suite.sampling import SamplingConfig, continue_sequences
from suite.seeding import mix
from suite.sequence import last_valid, length_mask
from suite.stream import CarriedModule
from suite.vocabulary import BOS, EOS, PAD, UNK, Tokenizer


class Likelihood(NamedTuple):
    """Of a batch: ``nll`` in nats, the ``characters`` that it is of, and both by row in evaluation."""

    nll: Tensor
    characters: Tensor
    rows: list[tuple[float, int]]


class LanguageModule(CarriedModule):
    """Predicts each token from those before it.

    Args:
        embedding_size: Features of an embedded token.
        encoder: The encoder, in one direction.
        tie: Embedding and output layer are one matrix (Press and Wolf 2017).
        dropout: Probability of dropping embeddings, outputs, and outputs between layers.
        word_dropout: Probability of reading a token as unknown.
        state_reset: Probability that a track's state is emptied before a chunk in training, so that the model learns
            to begin.
    """

    monitor: ClassVar[str] = "val/bits_per_character"
    unit: ClassVar[str] = "tokens"
    fresh_keys: ClassVar[tuple[str, ...]] = ("to_embedding.*", "output_bias", "separate_output")

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        embedding_size: int = 200,
        encoder: EncoderConfig = EncoderConfig(bidirectional=False),
        tie: bool = True,
        dropout: float = 0.2,
        word_dropout: float = 0.0,
        state_reset: float = 0.05,
        optim: OptimConfig | None = None,
        decoding: SamplingConfig = SamplingConfig(),
    ) -> None:
        super().__init__(assets, state_reset=state_reset, optim=optim)
        if encoder.bidirectional:
            raise UsageError("model.encoder.bidirectional: a language model reads in one direction: use false")
        self.tokenizer = Tokenizer.from_state(assets["tokenizer"])
        self.decoding = decoding
        size = len(self.tokenizer)
        self.network = TextEncoder(
            size, embedding_size=embedding_size, encoder=encoder, dropout=dropout, word_dropout=word_dropout
        )
        hidden = self.network.encoder.output_size
        self.dropout = Dropout(dropout)
        self.to_embedding = nn.Linear(hidden, embedding_size) if hidden != embedding_size else nn.Identity()
        self.output_bias = nn.Parameter(torch.zeros(size))
        if not tie:
            self.separate_output = nn.Parameter(torch.randn(size, embedding_size) * embedding_size**-0.5)
        self.tie = tie
        self.characters: Tensor
        self.register_buffer("characters", _characters(self.tokenizer), persistent=False)

    @property
    def output_weight(self) -> Tensor:
        """The output layer ``(V, E)``: the embedding itself where tied."""
        return self.network.embedding.weight if self.tie else self.separate_output

    def forward(self, batch: StreamBatch) -> Tensor:
        """Logits ``(B, T, V)``; training goes through ``compute_chunk``, which never holds them."""
        features, _ = self._features(batch.tokens[:, :-1], batch.lengths, None)
        return nn.functional.linear(features, self.output_weight, self.output_bias)

    def _features(self, tokens: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        encoded = self.network(tokens, lengths, state)
        return self.to_embedding(self.dropout(encoded.outputs)), encoded.state

    def compute_chunk(self, batch: StreamBatch, state: State | None) -> tuple[StepOutput, State]:
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        features, final = self._features(inputs, batch.lengths, state)
        mask = length_mask(batch.lengths, inputs.size(1))
        if self.training:
            entropy = linear_cross_entropy(features[mask], self.output_weight, self.output_bias, targets[mask])
            loss, nll, rows = entropy.loss, entropy.nll, []
        else:
            sums = [
                linear_cross_entropy(part[:count], self.output_weight, self.output_bias, target[:count]).loss
                for part, target, count in zip(features, targets, batch.lengths.tolist(), strict=True)
            ]
            loss = nll = torch.stack(sums).sum()
            letters = self.characters[targets].masked_fill(~mask, 0).sum(dim=1)
            rows = list(zip(torch.stack(sums).tolist(), letters.tolist(), strict=True))
        likelihood = Likelihood(nll.detach(), self.characters[targets[mask]].sum(), rows)
        return StepOutput(loss, batch.lengths.sum(), likelihood), final

    def make_metrics(self) -> dict[str, Metric]:
        return {"perplexity": Perplexity(), "bits_per_character": WeightedMean()}

    def update_metrics(self, metrics: dict[str, Metric], batch: StreamBatch, output: StepOutput) -> None:
        found: Likelihood = output.outputs
        metrics["perplexity"].update(found.nll, output.weight)
        metrics["bits_per_character"].update(found.nll / math.log(2), found.characters)
        if self.kept is None:
            return
        # Continuations of where tracks begin are enough to look at; figures of every chunk are kept.
        texts = self.continue_texts(batch) if batch.begins else [{} for _ in batch.indices]
        self.keep(
            [
                {"index": index, "input": text, "bits_per_character": nll / math.log(2) / max(letters, 1), **more}
                for index, text, (nll, letters), more in zip(
                    batch.indices, batch.inputs, found.rows, texts, strict=True
                )
                if index >= 0
            ]
        )

    @torch.no_grad()
    def continue_texts(self, batch: StreamBatch) -> list[dict[str, Any]]:
        """``{index, input, continuation}`` of each row."""
        features, state = self._features(batch.tokens, batch.lengths + 1, None)
        logits = nn.functional.linear(last_valid(features, batch.lengths + 1), self.output_weight, self.output_bias)
        written = continue_sequences(
            self.step,
            logits,
            state,
            config=self.decoding,
            seeds=[mix(self.decoding.draw, index) for index in batch.indices],
            end=EOS,
            banned=(PAD, UNK, BOS),
        )
        # Decoded by itself a continuation would lose the space that it begins with.
        return [
            {"index": index, "input": text, "continuation": self._decode(ids)}
            for index, text, ids in zip(batch.indices, batch.inputs, written, strict=True)
        ]

    def _decode(self, ids: list[int]) -> str:
        """The text of ``ids`` after other text, with its first space."""
        text = self.tokenizer.decode([PAD, *ids])
        begins = bool(ids) and self.tokenizer.level != "char" and self.tokenizer.pieces[ids[0]].startswith(" ")
        return f" {text}" if begins else text

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits ``(B, V)`` of what follows ``tokens (B,)``, and the state after them."""
        features, state = self._features(tokens.unsqueeze(1), torch.ones_like(tokens), state)
        return nn.functional.linear(features.squeeze(1), self.output_weight, self.output_bias), state

    def predict_step(self, batch: StreamBatch, batch_index: int) -> list[dict[str, Any]]:
        return [result for result in self.continue_texts(batch) if result["index"] >= 0]

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """The text and its continuation in one line; line breaks are written as a backslash and an n."""
        text = result["input"] + result["continuation"]
        return [text.replace("\r", "\\r").replace("\n", "\\n")]

    @torch.no_grad()
    def sample_table(self, batch: StreamBatch) -> tuple[Sequence[str], list[list[str]]]:
        """A text and how the model continues it, for each row."""
        rows = [[each["input"], each["continuation"]] for each in self.continue_texts(batch)]
        return ("input", "continuation"), rows

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Embedding, encoder, and what is above it."""
        return [
            ("embedding", [self.network.embedding]),
            ("encoder", [self.network.encoder]),
            ("output", [self.to_embedding]),
        ]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """Rows of the embedding and of the output layer by token; of a classifier the embedding and the encoder."""
        rows = map_tokens(source_assets, self.tokenizer)
        adapted = map_network(state_dict, rows)
        if "output_bias" not in state_dict:
            return adapted
        adapted |= {key: weight for key, weight in state_dict.items() if key.startswith("to_embedding.")}
        mapped = {key: rows(state_dict[key]) for key in ("output_bias", "separate_output") if key in state_dict}
        return adapted | mapped


def _characters(tokenizer: Tokenizer) -> Tensor:
    """How many characters each token stands for ``(V,)``: none for special ones, one for what is unknown."""
    lengths = [0 if index in (PAD, BOS, EOS) else len(piece) for index, piece in enumerate(tokenizer.pieces)]
    lengths[UNK] = 1
    return torch.tensor(lengths)
