"""From the name of a cell to a layer of it, with the weights that it starts with."""

from typing import cast

from torch import nn

from suite.recurrent.batch_norm import BatchNormLSTMLayer
from suite.recurrent.cells import LayerNormGRULayer, LayerNormLSTMLayer, PeepholeLSTMLayer, UnrolledLayer, VanillaLayer
from suite.recurrent.fused import FusedLayer
from suite.recurrent.initialisation import (
    init_input_weight,
    init_memory_biases,
    init_recurrent_weight,
    init_uniformly,
)
from suite.recurrent.minimal import MinimalCell, MinimalLayer
from suite.recurrent.options import FUSED, MINIMAL, VANILLA, CellName, RecurrentOptions

RecurrentLayer = FusedLayer | UnrolledLayer | MinimalLayer
_UNROLLED = {
    "peephole_lstm": PeepholeLSTMLayer,
    "layernorm_lstm": LayerNormLSTMLayer,
    "layernorm_gru": LayerNormGRULayer,
    "batchnorm_lstm": BatchNormLSTMLayer,
}


def build_layer(cell: CellName, input_size: int, hidden_size: int, *, options: RecurrentOptions) -> RecurrentLayer:
    """One layer in one direction; its weights are still to be set by ``reset_layer``."""
    if cell in FUSED:
        return FusedLayer(
            input_size,
            hidden_size,
            cell=cell,
            weight_dropout=options.weight_dropout,
            zoneout=options.zoneout,
            zoneout_memory=options.zoneout_memory,
        )
    if cell in MINIMAL:
        return MinimalLayer(input_size, hidden_size, cell=cast(MinimalCell, cell), zoneout=options.zoneout)
    if cell in VANILLA:
        diagonal = cell == "indrnn"
        activation = options.activation or ("relu" if diagonal else "tanh")
        return VanillaLayer(input_size, hidden_size, options=options, activation=activation, diagonal=diagonal)
    return _UNROLLED[cell](input_size, hidden_size, options=options)


def reset_layer(layer: RecurrentLayer, cell: CellName, *, options: RecurrentOptions) -> None:
    """Glorot input weights, orthogonal recurrent weights by gate, zero biases, forget gates open (bias one).

    ``options`` may ask for other recurrent weights and gate biases.
    """
    identity = options.recurrent_init == "identity"
    for name, parameter in layer.named_parameters():
        name = name.removeprefix("rnn.").removesuffix("_l0")
        if options.recurrent_init == "uniform":
            init_uniformly(parameter, layer.recurrent_weights()[0].size(-1))
        elif name == "weight_ih":
            init_input_weight(parameter, small=identity)
        elif name == "weight_hh":
            init_recurrent_weight(parameter, identity=identity)
        elif name in ("bias", "bias_ih", "bias_hh"):
            nn.init.zeros_(parameter)
    if cell not in VANILLA:
        bias = layer.rnn.bias_ih_l0 if isinstance(layer, FusedLayer) else layer.bias
        assert bias is not None
        init_memory_biases(bias, cell, forget_bias=options.forget_bias, chrono_steps=options.chrono_steps)
