"""The table of long-memory tasks: ``python benchmarks/long_memory.py --output long_memory.jsonl``.

Every cell has the same step budget and the same learning rates, tried in turn until a run meets the bar, where it ends.
A run that ends is a line of the output file. The same command again goes on where it was stopped, and in the end prints
the tables as Markdown.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from suite.process import prepare_process
from suite.recurrent import RecurrentOptions
from suite.recurrent.long_memory import LongMemoryConfig, TaskName, memoryless_loss, train
from suite.recurrent.options import CellName

# A name for each contender: the cell, its layers, and what is chosen around it.
CONTENDERS: dict[str, tuple[CellName, int, RecurrentOptions]] = {
    "lstm": ("lstm", 1, RecurrentOptions()),
    "lstm chrono": ("lstm", 1, RecurrentOptions(chrono_steps=200)),
    "gru": ("gru", 1, RecurrentOptions()),
    "mingru, 2 layers": ("mingru", 2, RecurrentOptions()),
    "rnn_relu identity": ("rnn_relu", 1, RecurrentOptions(recurrent_init="identity")),
    "rnn_tanh": ("rnn_tanh", 1, RecurrentOptions()),
    "rnn, softsign": ("rnn", 1, RecurrentOptions(activation="softsign")),
    "peephole_lstm": ("peephole_lstm", 1, RecurrentOptions()),
    "layernorm_lstm": ("layernorm_lstm", 1, RecurrentOptions()),
    "layernorm_gru": ("layernorm_gru", 1, RecurrentOptions()),
    "batchnorm_lstm": ("batchnorm_lstm", 1, RecurrentOptions(statistics_steps=230)),
    "indrnn, 2 layers": ("indrnn", 2, RecurrentOptions()),
    "minlstm, 2 layers": ("minlstm", 2, RecurrentOptions()),
}
# Of each task: optimiser steps of a run, rows of a batch, the shortest length that is trained on.
BUDGET: dict[str, int] = {"adding": 3000, "copy": 9000}
ROWS: dict[str, int] = {"adding": 32, "copy": 16}
SHORTEST: dict[str, int] = {"adding": 25, "copy": 2}


def main() -> None:
    """Train each contender at each learning rate, or go on with that, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(BUDGET), nargs="+", default=list(BUDGET))
    parser.add_argument("--output", type=Path, required=True, help="A line of JSON for each run; goes on with it.")
    parser.add_argument("--steps", type=int, default=200, help="Length of the sequence, or of what lies between.")
    parser.add_argument("--budget", type=int, help=f"Optimiser steps of a run; if not given, {BUDGET}.")
    parser.add_argument(
        "--shortest", type=int, help=f"Training lengths go from here to --steps; if not given, {SHORTEST}."
    )
    parser.add_argument("--lr", type=float, nargs="+", default=[3e-3, 1e-3])
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--hidden_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, help=f"Rows of a batch; if not given, {ROWS}.")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    prepare_process(threads=options.threads)
    done = read(options.output)
    for task in options.task:
        for name in options.only:
            for lr in options.lr:
                if run(done, task, name, lr, options=options)["loss"] < bar(task, options.steps):
                    break
    for task in options.task:
        print("\n".join(table(done, task, options=options)))


def bar(task: TaskName, steps: int) -> float:
    """The loss below which a task counts as solved."""
    return 0.01 if task == "adding" else 0.2 * memoryless_loss(steps)


def read(path: Path) -> list[dict[str, Any]]:
    """The runs that are there. A line that was cut off, when the process was killed, is as if it were not."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line is not whole: that run is made again", file=sys.stderr)
    return found


def settings_of(task: TaskName, name: str, lr: float, *, options: argparse.Namespace) -> LongMemoryConfig:
    """The settings of a run."""
    cell, layers, chosen = CONTENDERS[name]
    return LongMemoryConfig(
        task, options.steps, cell, replace(chosen), hidden_size=options.hidden_size, num_layers=layers,
        batch_size=options.batch_size or ROWS[task], lr=lr, max_steps=options.budget or BUDGET[task],
        shortest=options.shortest or SHORTEST[task],
    )  # fmt: skip


def run(
    done: list[dict[str, Any]], task: TaskName, name: str, lr: float, *, options: argparse.Namespace
) -> dict[str, Any]:
    """The line of a run: what is there already, or made now and written down."""
    config = settings_of(task, name, lr, options=options)
    for each in done:
        if each["name"] == name and each["settings"] == asdict(config):
            return each
    begin = time.perf_counter()
    loss, taken = train(config, until=bar(task, options.steps))
    minutes = (time.perf_counter() - begin) / 60
    line = {"name": name, "loss": loss, "taken": taken, "minutes": minutes, "settings": asdict(config)}
    with options.output.open("a+", encoding="utf-8") as file:
        file.write("".join(["\n" if _is_cut(options.output) else "", json.dumps(line), "\n"]))
    print(f"{task}, {name}, lr {lr:g}: {loss:.4f} after {taken} steps, {minutes:.1f} minutes", file=sys.stderr)
    done.append(line)
    return line


def _is_cut(path: Path) -> bool:
    return path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")


def table(done: list[dict[str, Any]], task: TaskName, *, options: argparse.Namespace) -> list[str]:
    """Markdown: each contender's best run, and the minutes of all its runs."""
    guess = 1 / 6 if task == "adding" else memoryless_loss(options.steps)
    rates = ", ".join(f"{lr:g}" for lr in options.lr)
    lines = [
        f"\n{task} at {options.steps}: solved below {bar(task, options.steps):.4f}, without a memory {guess:.4f}; "
        f"{options.budget or BUDGET[task]} steps of {options.batch_size or ROWS[task]} rows, {options.hidden_size} "
        f"features, learning rates {rates}; trained on lengths from {options.shortest or SHORTEST[task]} up\n",
        "| cell | loss | solved | optimiser steps | learning rate | minutes |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for name in options.only:
        chosen = [asdict(settings_of(task, name, lr, options=options)) for lr in options.lr]
        runs = [each for each in done if each["name"] == name and each["settings"] in chosen]
        best = min(runs, key=lambda each: math.inf if math.isnan(each["loss"]) else each["loss"])
        solved = "yes" if best["loss"] < bar(task, options.steps) else "no"
        minutes = sum(each["minutes"] for each in runs)
        lines.append(
            f"| {name} | {best['loss']:.4f} | {solved} | {best['taken']} | {best['settings']['lr']:g} | {minutes:.1f} |"
        )
    return lines


if __name__ == "__main__":
    main()
