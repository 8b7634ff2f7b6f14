"""Token embeddings as every domain starts them."""

from torch import Tensor, nn

from suite.dropout import draw_mask
from suite.errors import UsageError


class TokenEmbedding(nn.Embedding):
    """An embedding that forgets whole tokens in training (Gal and Ghahramani 2016; Merity et al. 2018).

    One draw a pass: a token that is dropped is zero wherever it stands, the others are scaled by ``1 / (1 - dropout)``.
    The weight stays as it is, so that an output layer tied to it knows every token.

    Raises:
        UsageError: ``dimension`` below 1, ``dropout`` outside [0, 1).
    """

    def __init__(self, size: int, dimension: int, *, padding: int, dropout: float = 0.0) -> None:
        if dimension < 1:
            raise UsageError(f"embedding_size is {dimension}, allowed is 1 or more")
        super().__init__(size, dimension, padding_idx=padding)
        if not 0.0 <= dropout < 1.0:
            raise UsageError(f"embedding_dropout is {dropout}, allowed is 0 up to but not including 1")
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        """Embed tokens of any shape."""
        embedded = super().forward(input)
        if not self.training or not self.dropout:
            return embedded
        return embedded * draw_mask((self.num_embeddings, 1), self.dropout, like=embedded)[input]


def build_embedding(size: int, dimension: int, *, padding: int, dropout: float = 0.0) -> TokenEmbedding:
    """An embedding ``(size, dimension)`` from N(0, 1/dimension), its padding row zero and without gradient.

    ``dropout`` is the probability of dropping a token.
    """
    embedding = TokenEmbedding(size, dimension, padding=padding, dropout=dropout)
    nn.init.normal_(embedding.weight, std=dimension**-0.5)
    nn.init.zeros_(embedding.weight.data[padding])
    return embedding
