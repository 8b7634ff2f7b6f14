"""Weights, gradients and optimiser state shared out over processes: FSDP2 through Lightning."""

from typing import Any, cast

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel over all processes, with checkpoints of one file like any other.

    Lightning's own strategy takes the number of nodes for the number of data-parallel processes, and writes a folder
    for each checkpoint.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """``module.load_state_dict``, also where the module's weights are shared out."""
    if not isinstance(module, FSDPModule):
        module.load_state_dict(weights)
        return
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(cast(nn.Module, module), cast(dict[str, Any], weights), options=options)
