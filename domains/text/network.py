"""What both tasks are built on: embedded tokens through a recurrent encoder."""

from typing import Any

import torch
from torch import Tensor, nn

from suite.dropout import Dropout
from suite.embedding import build_embedding
from suite.errors import UsageError
from suite.recurrent import Encoded, EncoderConfig, State
from suite.transfer import RowMap
from suite.vocabulary import PAD, SPECIALS, UNK, Tokenizer

EMBEDDING = "network.embedding.weight"
"""The embedding among a module's weights, for both tasks."""


def map_network(state_dict: dict[str, Tensor], rows: RowMap) -> dict[str, Tensor]:
    """The weights of a source's ``network``, its embedding by this vocabulary's tokens."""
    weights = {key: weight for key, weight in state_dict.items() if key.startswith("network.")}
    return weights | {EMBEDDING: rows(weights[EMBEDDING])}


def map_tokens(source_assets: dict[str, Any], tokenizer: Tokenizer) -> RowMap:
    """From a source's tokens to those of ``tokenizer``, by how they are written; new ones get the mean."""
    source = Tokenizer.from_state(source_assets["tokenizer"])
    return RowMap(source.pieces, tokenizer.pieces, what="vocabulary", specials=len(SPECIALS))


class TextEncoder(nn.Module):
    """Tokens ``(B, T)`` to outputs ``(B, T, H)``.

    Args:
        size: tokens of the vocabulary.
        embedding_size: features of an embedded token.
        encoder: the recurrent encoder.
        dropout: probability of dropping features of embeddings, and of outputs between layers.
        word_dropout: probability of reading a token as unknown in training (Iyyer et al. 2015).
        embedding_dropout: probability of dropping a token of the vocabulary, wherever it stands in a batch.

    Raises:
        UsageError: a probability outside [0, 1), or a size below one.
    """

    def __init__(
        self,
        size: int,
        *,
        embedding_size: int,
        encoder: EncoderConfig,
        dropout: float,
        word_dropout: float,
        embedding_dropout: float,
    ) -> None:
        super().__init__()
        if embedding_size < 1:
            raise UsageError(f"model.embedding_size is {embedding_size}, allowed is 1 or more")
        if not 0.0 <= word_dropout < 1.0:
            raise UsageError(f"model.word_dropout is {word_dropout}, allowed is 0 up to but not including 1")
        self.embedding = build_embedding(size, embedding_size, padding=PAD, dropout=embedding_dropout)
        self.encoder = encoder.build(embedding_size, dropout=dropout)
        self.dropout = Dropout(dropout)
        self.word_dropout = word_dropout

    def forward(
        self, tokens: Tensor, lengths: Tensor, state: State | None = None, begins: Tensor | None = None
    ) -> Encoded:
        """Encode ``tokens (B, T)``, going on from ``state`` but for what ``begins``, as in ``RecurrentEncoder``."""
        if self.training and self.word_dropout:
            unread = torch.rand(tokens.shape, device=tokens.device) < self.word_dropout
            tokens = tokens.masked_fill(unread & (tokens != PAD), UNK)
        return self.encoder(self.dropout(self.embedding(tokens)), lengths, state, begins=begins)
