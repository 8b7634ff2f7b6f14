"""Results of all processes in the order of the data."""

from typing import Any

import torch.distributed


def gather_results(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every process's results (each with its ``index``), sorted by index; the same list on each process."""
    everything = results
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, results)
        everything = [result for share in shares for result in share]
    return sorted(everything, key=lambda each: each["index"])
