"""The picture of vanishing gradients: ``python benchmarks/gradient_flow.py --output docs/gradient_flow``.

Untrained encoders of several kinds read the same random sequence; for each the norm of d loss_T / d h_t is drawn over
the lag T - t. Writes ``OUTPUT.png`` and ``OUTPUT.csv``, and prints how fast each line falls.
"""

import argparse
import csv
from pathlib import Path

import torch

from suite.recurrent import RecurrentEncoder, RecurrentOptions
from suite.recurrent.gradient_flow import gradient_by_lag, gradient_figure
from suite.recurrent.options import CellName

KINDS: dict[str, tuple[CellName, RecurrentOptions]] = {
    "vanilla (rnn_tanh)": ("rnn_tanh", RecurrentOptions()),
    "LSTM, forget bias 0": ("lstm", RecurrentOptions(forget_bias=0.0)),
    "LSTM, forget bias 1": ("lstm", RecurrentOptions()),
    "LSTM, chrono": ("lstm", RecurrentOptions(chrono_steps=500)),
    "GRU": ("gru", RecurrentOptions()),
    "minGRU": ("mingru", RecurrentOptions()),
    "minGRU, chrono": ("mingru", RecurrentOptions(chrono_steps=500)),
}


def main() -> None:
    """Measure every kind and write plot and data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gradient_flow"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    inputs = torch.randn(options.rows, options.steps, options.size)
    flows = {}
    for name, (cell, chosen) in KINDS.items():
        torch.manual_seed(options.seed)
        encoder = RecurrentEncoder(options.size, options.size, cell=cell, options=chosen)
        flows[name] = gradient_by_lag(encoder, inputs)
        norms = flows[name].norms[:, 0]
        print(f"{name:22} lag 0 {norms[0]:.1e}, 100 {norms[min(100, len(norms) - 1)]:.1e}, last {norms[-1]:.1e}, "
              f"halves in {flows[name].half_life():.1f} steps")  # fmt: skip
    gradient_figure(flows, title=f"{options.steps} steps, {options.size} features, untrained").savefig(
        options.output.with_suffix(".png"), dpi=100
    )
    with options.output.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["lag", *flows])
        for lag in range(options.steps):
            writer.writerow([lag, *(f"{float(flow.norms[lag, 0]):.4e}" for flow in flows.values())])


if __name__ == "__main__":
    main()
