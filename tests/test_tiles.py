"""Products in tiles against torch's, in every width and for vectors of another CPU; the exponential of draws."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from domains.audio.draws import fast_exp
from suite.kernels import AVAILABLE, _imported
from suite.tiles import LANES, WIDTHS, add_tiles, packed, padded_rows, tile_intrinsic

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="numba missing")


def operands(first: int, second: int, outputs: int, width: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(first + 10 * second + outputs)
    return (
        torch.randn(first + second, outputs),
        torch.randn(first, width),
        torch.randn(second, width),
        torch.randn(outputs, width),
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("first", "second", "outputs"), [(64, 64, 128), (13, 7, 29), (5, 0, 1), (0, 3, 12), (0, 0, 5)])
def test_a_product_is_torchs(width: int, first: int, second: int, outputs: int) -> None:
    weight, above, below, start = operands(first, second, outputs, width)
    expected = start.double() + weight.double().t() @ torch.cat([above, below]).double()
    ready = packed(weight, width)
    begin = padded_rows(start, ready)
    sums = torch.full_like(begin, torch.nan)
    add_tiles(begin.numpy(), sums.numpy(), ready.numpy(), above.numpy(), below.numpy())
    torch.testing.assert_close(sums[:outputs].double(), expected, rtol=1e-5, atol=1e-5)
    assert (sums[outputs:] == 0).all()
    assert torch.equal(begin, padded_rows(start, ready))
    add_tiles(begin.numpy(), begin.numpy(), ready.numpy(), above.numpy(), below.numpy())  # in place
    assert torch.equal(begin, sums)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_vectors_of_another_length_give_the_same(lanes: int) -> None:
    import numba

    tile, vectors = tile_intrinsic(2, lanes), 2
    rows, width = 12 // vectors, vectors * lanes

    @numba.njit
    def product(start: Any, sums: Any, weight: Any, first: Any, second: Any) -> None:
        for number in range(weight.shape[0]):
            tile(start, sums, weight, first, second, number)

    weight, above, below, start = operands(9, 4, 2 * rows, width)
    ready = weight.view(13, 2, rows).transpose(0, 1).contiguous()
    sums = torch.empty_like(start)
    product(start.numpy(), sums.numpy(), ready.numpy(), above.numpy(), below.numpy())
    torch.testing.assert_close(sums, start + weight.t() @ torch.cat([above, below]))


def test_nan_and_infinity_keep_their_meaning() -> None:
    weight, above, below, start = operands(6, 6, 12, LANES)
    above[2, 1], above[3, 4] = torch.nan, torch.inf
    ready = packed(weight, LANES)
    begin = padded_rows(start, ready).numpy()
    add_tiles(begin, begin, ready.numpy(), above.numpy(), below.numpy())
    assert numpy.isnan(begin[:12, 1]).all()
    assert numpy.isinf(begin[:12, 4]).all()
    assert numpy.isfinite(numpy.delete(begin, [1, 4], axis=1)).all()


def test_the_exponential_of_draws_is_exact_to_the_last_digits() -> None:
    import numba

    @numba.njit
    def all_of(values: Any, found: Any) -> None:
        for place in range(values.shape[0]):
            found[place] = fast_exp(values[place])

    values = numpy.concatenate([-numpy.logspace(-12, 2.85, 4001), numpy.linspace(-708, 0, 4001)])
    found = numpy.empty_like(values)
    all_of(values, found)
    numpy.testing.assert_allclose(found, numpy.exp(values), rtol=2e-15)
    all_of(numpy.array([-1e4, -numpy.inf]), found[:2])
    assert (found[:2] < 1e-300).all()


OUTER = "from suite.kernels import kernel\n{imports}\n\ndef _outer(x):\n    return {value}\n\nouter = kernel(_outer)\n"
INNER = "from suite.kernels import kernel\n\ndef _inner(x):\n    return {value}\n\ninner = kernel(_inner)\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project with ``suite.kernels`` and small modules."""
    for name in ("suite", "suite/deep", "domains"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "suite" / "kernels.py").write_text((ROOT / "suite" / "kernels.py").read_text())
    (tmp_path / "suite" / "middle.py").write_text("from suite.deep.inner import inner\n")
    for name in ("suite/deep/other.py", "suite/deep/plain.py", "domains/plain.py"):
        (tmp_path / name).write_text("NUMBER = 0\n")
    (tmp_path / "suite" / "deep" / "inner.py").write_text(INNER.format(value=0))
    return tmp_path


@pytest.mark.parametrize(
    ("imports", "value", "dependency", "text"),
    [
        ("from suite.middle import inner", "inner(x)", "suite/deep/inner.py", INNER),
        ("from domains.plain import NUMBER", "NUMBER", "domains/plain.py", "NUMBER = {value}\n"),
    ],
)
def test_a_kernel_is_compiled_again_when_a_module_that_it_uses_changed(
    imports: str, value: str, dependency: str, text: str, tree: Path
) -> None:
    """Numba looks at the file of a function alone, not at those of the kernels that are compiled into it."""
    (tree / "suite" / "outer.py").write_text(OUTER.format(imports=imports, value=value))
    code = "from suite.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"
    found: list[list[str]] = []
    for number in (1, 1, 2):
        (tree / dependency).write_text(text.format(value=number))
        (tree / "suite" / "deep" / "other.py").write_text(f"NUMBER = {len(found)}\n")  # no part of it
        environment = {**os.environ, "PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(tree / "cache")}
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True, check=True
        )
        found.append(ran.stdout.split())
    assert found == [["1", "0"], ["1", "1"], ["2", "0"]]


@pytest.mark.parametrize(
    ("imports", "dependency"),
    [
        ("from suite.deep.inner import inner", "suite/deep/inner.py"),
        ("from .deep.inner import inner", "suite/deep/inner.py"),
        ("from .deep import inner", "suite/deep/inner.py"),
        ("from suite.deep import inner as module", "suite/deep/inner.py"),
        ("import suite.deep.inner", "suite/deep/inner.py"),
        ("def late():\n    from suite.deep.plain import NUMBER", "suite/deep/plain.py"),
        ("from suite.deep import NUMBER", "suite/deep/__init__.py"),
    ],
)
def test_every_form_of_import_is_followed(imports: str, dependency: str, tree: Path) -> None:
    file = tree / "suite" / "outer.py"
    file.write_text(OUTER.format(imports=imports, value=1))
    found = _imported("suite.outer", file)
    assert tree / dependency in found
    assert tree / "suite" / "deep" / "other.py" not in found


def test_kernels_of_the_loss_are_compiled_from_the_vector_maths() -> None:
    found = _imported("suite.loss_kernels", ROOT / "suite" / "loss_kernels.py")
    assert {path.relative_to(ROOT).as_posix() for path in found} == {
        "suite/loss_kernels.py", "suite/recurrent/vector_math.py", "suite/kernels.py", "suite/__init__.py"
    }  # fmt: skip


def test_without_its_compiler_the_torch_engine_is_taken() -> None:
    code = "from suite.kernels import AVAILABLE; import domains.audio.engines, suite.recurrent; print(AVAILABLE)"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]
