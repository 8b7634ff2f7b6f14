"""The translator as a plain ``nn.Module``: encoder, bridge, attention decoder, output layer."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from domains.translation.decoder import AttentionDecoder, Bridge, BridgeKind, Decoded, DecoderConfig
from suite.attention import AttentionKind, Memory, build_attention
from suite.dropout import Dropout
from suite.embedding import build_embedding
from suite.errors import UsageError, said_of
from suite.recurrent import Encoded, EncoderConfig, State
from suite.sequence import length_mask
from suite.vocabulary import PAD

TieKind = Literal["none", "output", "all"]


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that decides the translator's shape; see ``TranslationModule`` for the meaning of each."""

    embedding_size: int
    encoder: EncoderConfig
    decoder: DecoderConfig
    attention: AttentionKind
    num_heads: int
    bridge: BridgeKind
    tie: TieKind
    dropout: float
    embedding_dropout: float


class Source(NamedTuple):
    """A read source: the decoder's first ``state`` and the ``memory`` to attend to."""

    state: State
    memory: Memory | None


class Translator(nn.Module):
    """Source tokens to features of target steps; ``output_weight`` and ``output_bias`` turn features into logits."""

    def __init__(self, source_size: int, target_size: int, *, config: NetworkConfig, shared: bool) -> None:
        super().__init__()
        size, encoder = config.embedding_size, config.encoder
        if config.tie == "all" and not shared:
            raise UsageError("tie all needs one vocabulary for both languages: use --data.vocabulary.joint true")
        for name in ("hidden_size", "num_layers"):
            if (given := getattr(config.decoder, name)) < 1:
                raise UsageError(f"model.decoder.{name} is {given}, allowed is 1 or more")
        drop, tied = config.embedding_dropout, config.tie == "all"
        self.target_embedding = build_embedding(target_size, size, padding=PAD, dropout=drop)
        self.source_embedding = (
            self.target_embedding if tied else build_embedding(source_size, size, padding=PAD, dropout=drop)
        )
        self.encoder = encoder.build(size, dropout=config.dropout)
        memory_size, hidden = self.encoder.output_size, config.decoder.hidden_size
        attention = build_attention(config.attention, hidden, memory_size, num_heads=config.num_heads)
        with said_of("model.decoder"):
            self.decoder = AttentionDecoder(
                size, memory_size, config=config.decoder, attention=attention, dropout=config.dropout
            )
        self.bridge = Bridge(config.bridge, self.encoder, config=config.decoder, num_states=self.decoder.num_states)
        self.to_embedding = nn.Linear(hidden, size) if hidden != size else nn.Identity()
        self.output_bias = nn.Parameter(torch.zeros(target_size))
        if config.tie == "none":
            self.separate_output = nn.Parameter(torch.randn(target_size, size) * size**-0.5)
        self.tie = config.tie
        self.dropout = Dropout(config.dropout)

    @property
    def output_weight(self) -> Tensor:
        """The output layer ``(V, E)``: the target embedding itself where tied (Press and Wolf 2017)."""
        return self.separate_output if self.tie == "none" else self.target_embedding.weight

    def read(self, source: Tensor, lengths: Tensor) -> Encoded:
        """Encode ``source (B, S)``."""
        return self.encoder(self.dropout(self.source_embedding(source)), lengths)

    def hand_over(self, encoded: Encoded) -> Source:
        """What the decoder needs of a source that was read."""
        memory = None
        if self.decoder.attention is not None:
            mask = length_mask(encoded.lengths, encoded.outputs.size(1))
            memory = cast(Any, self.decoder.attention).prepare(encoded.outputs, mask)
        return Source(self.bridge(encoded.state), memory)

    def encode(self, source: Tensor, lengths: Tensor) -> Source:
        """Read ``source (B, S)`` and hand it over."""
        return self.hand_over(self.read(source, lengths))

    def decode(self, target: Tensor, lengths: Tensor, state: State, memory: Memory | None) -> Decoded:
        """Features ``(R, T, E)`` of the tokens that follow each of ``target (R, T)``, and the state after them."""
        decoded = self.decoder(self.dropout(self.target_embedding(target)), lengths, state, memory)
        return decoded._replace(features=self.to_embedding(decoded.features))

    def step(self, tokens: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State]:
        """One decoding step, as ``suite.decoding`` asks for it: ``tokens (R,)`` to log probabilities ``(R, V)``."""
        decoded = self.decode(tokens.unsqueeze(1), torch.ones_like(tokens), state, memory)
        logits = nn.functional.linear(decoded.features.squeeze(1), self.output_weight, self.output_bias)
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return torch.log_softmax(exact, dim=1), decoded.state
