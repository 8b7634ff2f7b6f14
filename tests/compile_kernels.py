"""Compile every kernel for a GPU that need not be there: ``python tests/compile_kernels.py``; prints how many."""

import os
from types import ModuleType
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from suite.recurrent.gpu.kernels import blocks, gru, lstm, minimal, vanilla
from suite.recurrent.steps import ACTIVATIONS

TARGET = GPUTarget("cuda", 90, 32)
LOW = {"product", "low", "through", "products_slope"}
WHOLE = {"step", "size", "batch", "steps", "width", "chunks"}


def compile_kernel(module: ModuleType, name: str, kind: str, low: str, **constants: Any) -> None:
    kernel = getattr(module, name)
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in WHOLE:
            signature[argument] = "i32"
        elif argument in ("left", "target"):
            signature[argument] = "*i64" if name.startswith("indrnn") else "*i32"
        elif argument == "lengths":
            signature[argument] = "*i64"
        else:
            signature[argument] = f"*{low if argument in LOW else kind}"
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    triton.compile(ASTSource(fn=kernel, signature=signature, constexprs=places), target=TARGET)


def main() -> None:
    count = 0
    cases: list[tuple[ModuleType, str, dict[str, Any]]] = [(blocks, "count_up", {})]
    for zoned in (False, True):
        steps = {"block": 64, "zoned": zoned}
        for end in ("", "_slope"):
            cases += [(lstm, f"{name}{end}", steps) for name in ("peephole_lstm", "layernorm_lstm")]
            cases += [(gru, f"gru{end}", {**steps, "normed": normed}) for normed in (False, True)]
            cases.append((vanilla, f"indrnn{end}", {**steps, "activation": "relu"}))
            chosen = sorted(ACTIVATIONS) if not zoned else ["tanh"]
            cases += [(vanilla, f"vanilla{end}", {**steps, "activation": name}) for name in chosen]
    for is_lstm in (False, True):
        names = ("reduce", "apply", "reduce_slope", "apply_slope")
        cases += [(minimal, name, {"span": 16, "block": 64, "is_lstm": is_lstm}) for name in names]
        cases.append((minimal, "carry", {"block": 64, "backward": is_lstm}))
    for module, name, constants in cases:
        for kind, low in (("fp32", "fp32"), ("fp32", "bf16"), ("fp64", "fp64")):
            compile_kernel(module, name, kind, low, **constants)
            count += 1
    print(count)


if __name__ == "__main__":
    main()
