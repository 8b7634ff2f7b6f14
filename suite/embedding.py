"""Token embeddings as every domain starts them."""

from torch import nn


def build_embedding(size: int, dimension: int, *, padding: int) -> nn.Embedding:
    """An embedding ``(size, dimension)`` from N(0, 1/dimension), its padding row zero and without gradient."""
    embedding = nn.Embedding(size, dimension, padding_idx=padding)
    nn.init.normal_(embedding.weight, std=dimension**-0.5)
    nn.init.zeros_(embedding.weight.data[padding])
    return embedding
