"""The language model: a recurrent encoder that predicts the next token, its state carried from chunk to chunk.

With a bidirectional encoder there are two language models that share embedding and output layer: one predicts the next
token from those before, the other the token before from those after it in the chunk. It is for pretraining encoders
that read both ways (as in Peters et al. 2018, with one layer); only the first continues texts and is measured.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from domains.text.language_data import StreamBatch
from domains.text.network import TextEncoder, map_network, map_tokens
from suite.console import one_line
from suite.dropout import Dropout
from suite.errors import UsageError
from suite.losses import CrossEntropy, linear_cross_entropy
from suite.metrics import Perplexity, WeightedMean
from suite.module import StepOutput
from suite.optim import OptimConfig
from suite.recurrent import Encoded, EncoderConfig, State
from suite.sampling import SamplingConfig, continue_sequences
from suite.seeding import mix
from suite.sequence import last_valid, length_mask, valid_steps
from suite.stream import CarriedModule
from suite.vocabulary import BOS, EOS, PAD, UNK, Tokenizer


class Likelihood(NamedTuple):
    """Of a batch: ``nll`` in nats of the next tokens, the ``characters`` it is of, and both by row in evaluation."""

    nll: Tensor
    characters: Tensor
    rows: list[tuple[float, int]]


class LanguageModule(CarriedModule):
    """Predicts each token from those before it.

    Args:
        embedding_size: Features of an embedded token.
        encoder: The encoder; bidirectional (one layer) adds a language model that reads backwards, for pretraining.
        tie: Embedding and output layer are one matrix (Press and Wolf 2017).
        dropout: Probability of dropping embeddings, outputs, and outputs between layers.
        word_dropout: Probability of reading a token as unknown.
        embedding_dropout: Probability of dropping a token of the vocabulary, wherever it stands in a batch.
        state_reset: Probability that a track's state is emptied before a chunk in training, so that the model learns
            to begin.
    """

    monitor: ClassVar[str] = "val/bits_per_character"
    unit: ClassVar[str] = "tokens"
    fresh_keys: ClassVar[tuple[str, ...]] = ("*to_embedding.*", "output_bias", "separate_output")

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        embedding_size: int = 200,
        encoder: EncoderConfig = EncoderConfig(bidirectional=False),
        tie: bool = True,
        dropout: float = 0.2,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        state_reset: float = 0.05,
        optim: OptimConfig | None = None,
        decoding: SamplingConfig = SamplingConfig(),
    ) -> None:
        super().__init__(assets, state_reset=state_reset, optim=optim)
        if encoder.bidirectional and encoder.num_layers > 1:
            raise UsageError(
                "model.encoder: a second layer over two directions would see what it has to predict: use num_layers 1, "
                "or bidirectional false"
            )
        self.tokenizer = Tokenizer.from_state(assets["tokenizer"])
        self.decoding = decoding
        size = len(self.tokenizer)
        self.network = TextEncoder(
            size,
            embedding_size=embedding_size,
            encoder=encoder,
            dropout=dropout,
            word_dropout=word_dropout,
            embedding_dropout=embedding_dropout,
        )
        self.hidden_size = hidden = encoder.hidden_size
        self.dropout = Dropout(dropout)
        self.to_embedding = nn.Linear(hidden, embedding_size) if hidden != embedding_size else nn.Identity()
        self.backward_to_embedding = nn.Linear(hidden, embedding_size) if encoder.bidirectional else None
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
        encoded = self._encode(batch.tokens[:, :-1], batch.lengths, None)
        return nn.functional.linear(self._features(encoded), self.output_weight, self.output_bias)

    def _encode(self, tokens: Tensor, lengths: Tensor, state: State | None, begins: Tensor | None = None) -> Encoded:
        """Encode a chunk; what reads backwards begins anew at its end."""
        if state is not None and self.backward_to_embedding is not None:
            forwards = torch.zeros_like(lengths, dtype=torch.bool) if begins is None else begins
            begins = torch.stack([forwards, torch.ones_like(forwards)], dim=1)
        encoded = self.network(tokens, lengths, state, begins)
        undropped = encoded.outputs if encoded.undropped is None else encoded.undropped
        return encoded._replace(outputs=self.dropout(encoded.outputs), undropped=undropped)

    def _features(self, encoded: Encoded) -> Tensor:
        """Features ``(B, T, E)`` that the next token is predicted from."""
        return self.to_embedding(encoded.outputs[..., : self.hidden_size])

    def _entropy(self, features: Tensor, targets: Tensor) -> CrossEntropy:
        return linear_cross_entropy(features, self.output_weight, self.output_bias, targets)

    def _backward_loss(self, encoded: Encoded, inputs: Tensor) -> Tensor:
        """Of the tokens before, from those after them: the first input is the last that is predicted."""
        assert self.backward_to_embedding is not None
        mask = length_mask(encoded.lengths, inputs.size(1))[:, 1:]
        features = self.backward_to_embedding(valid_steps(encoded.outputs[:, 1:, self.hidden_size :], mask))
        return self._entropy(features, valid_steps(inputs[:, :-1], mask)).loss

    def compute_chunk(
        self, batch: StreamBatch, state: State | None, begins: Tensor | None = None
    ) -> tuple[StepOutput, State]:
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        encoded = self._encode(inputs, batch.lengths, state, begins)
        features, final = self._features(encoded), encoded.state
        mask = length_mask(batch.lengths, inputs.size(1))
        if self.training:
            entropy = self._entropy(valid_steps(features, mask), valid_steps(targets, mask))
            loss, nll, rows = entropy.loss, entropy.nll, []
            loss = loss + self.network.encoder.penalty(encoded) * batch.lengths.sum()
        else:
            sums = [
                self._entropy(part[:count], target[:count]).loss
                for part, target, count in zip(features, targets, batch.lengths.tolist(), strict=True)
            ]
            loss = nll = torch.stack(sums).sum()
            letters = self.characters[targets].masked_fill(~mask, 0).sum(dim=1)
            rows = list(zip(torch.stack(sums).tolist(), letters.tolist(), strict=True))
        if self.backward_to_embedding is not None:
            loss = loss + self._backward_loss(encoded, inputs)
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
        inputs = [  # those of the training text are not made for each batch of it
            text or self.tokenizer.decode(row[1 : length + 1]).strip(" ")
            for text, row, length in zip(batch.inputs, batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
        ]
        self.keep(
            [
                {"index": index, "input": text, "bits_per_character": nll / math.log(2) / max(letters, 1)}
                | more
                | {"input": text}
                for index, text, (nll, letters), more in zip(batch.indices, inputs, found.rows, texts, strict=True)
                if index >= 0
            ]
        )

    @torch.no_grad()
    def continue_texts(self, batch: StreamBatch) -> list[dict[str, Any]]:
        """``{index, input, continuation}`` of each row."""
        encoded = self._encode(batch.tokens, batch.lengths + 1, None)
        features, state = self._features(encoded), encoded.state
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
        encoded = self._encode(tokens.unsqueeze(1), torch.ones_like(tokens), state)
        logits = nn.functional.linear(self._features(encoded).squeeze(1), self.output_weight, self.output_bias)
        return logits, encoded.state

    def predict_step(self, batch: StreamBatch, batch_index: int) -> list[dict[str, Any]]:
        return [result for result in self.continue_texts(batch) if result["index"] >= 0]

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """The text and its continuation in one line; tabs and line breaks are escaped, such as ``\\n``."""
        return [one_line(result["input"] + result["continuation"])]

    @torch.no_grad()
    def sample_table(self, batch: StreamBatch) -> tuple[Sequence[str], list[list[str]]]:
        """A text and how the model continues it, for each row."""
        rows = [[each["input"], each["continuation"]] for each in self.continue_texts(batch)]
        return ("input", "continuation"), rows

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Embedding, encoder, and what is above it; an embedding that is also the output layer goes with that."""
        above: list[nn.Module] = [part for part in (self.to_embedding, self.backward_to_embedding) if part is not None]
        if self.tie:
            return [("encoder", [self.network.encoder]), ("output", [self.network.embedding, *above])]
        return [
            ("embedding", [self.network.embedding]), ("encoder", [self.network.encoder]), ("output", above),
        ]  # fmt: skip

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """Rows of the embedding and of the output layer by token; of a classifier the embedding and the encoder."""
        rows = map_tokens(source_assets, self.tokenizer)
        adapted = map_network(state_dict, rows)
        if "output_bias" not in state_dict:
            return adapted
        adapted |= {key: weight for key, weight in state_dict.items() if "to_embedding." in key}
        mapped = {key: rows(state_dict[key]) for key in ("output_bias", "separate_output") if key in state_dict}
        return adapted | mapped


def _characters(tokenizer: Tokenizer) -> Tensor:
    """How many characters each token stands for ``(V,)``: none for special ones, one for what is unknown."""
    lengths = [0 if index in (PAD, BOS, EOS) else len(piece) for index, piece in enumerate(tokenizer.pieces)]
    lengths[UNK] = 1
    return torch.tensor(lengths)
