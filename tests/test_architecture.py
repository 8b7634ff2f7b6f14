"""The direction of imports, the sizes of files, and what may not stand in the code. See DESIGN sections 1, 5 and 8."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import domains
from tests.commands import ROOT

DOMAINS = domains.available()


def files(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


SOURCES = [*files("suite"), *files("domains"), *files("scripts")]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Modules that a file imports, also by name; with ``top_only`` those that it needs to be imported itself."""
    tree = tree_of(path)
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}: import by full name"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield str(first.value)


def roots(path: Path, *, top_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imported(path, top_only=top_only)}


def test_there_is_something_to_look_at() -> None:
    assert {"suite", "domains", "scripts"} <= {shown(path).split("/")[0] for path in SOURCES}
    assert DOMAINS


# Names of domains that mean something else where they stand.
ALSO_WORDS = {"suite/prediction.py": {"text"}}  # --format text


@pytest.mark.parametrize("path", files("suite"), ids=shown)
def test_suite_imports_no_application(path: Path) -> None:
    assert not roots(path) & {"domains", "scripts", "tests", "benchmarks"}
    constants = (node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    named = {text for text in constants if isinstance(text, str) and text in DOMAINS}
    assert not named - ALSO_WORDS.get(shown(path), set()), "suite names a domain"


@pytest.mark.parametrize("path", files("domains"), ids=shown)
def test_a_domain_imports_no_other(path: Path) -> None:
    assert not roots(path) & {"scripts", "tests", "benchmarks"}
    own = path.relative_to(ROOT / "domains").parts[0]
    others = {name.split(".")[1] for name in imported(path) if name.startswith("domains.")}
    assert others <= {own}


def test_the_domains_package_uses_the_standard_library_only() -> None:
    assert roots(ROOT / "domains" / "__init__.py") <= sys.stdlib_module_names


def test_the_entry_imports_nothing_slow() -> None:
    assert roots(ROOT / "suite" / "cli.py", top_only=True) <= sys.stdlib_module_names | {"suite"}
    assert roots(ROOT / "suite" / "errors.py") <= sys.stdlib_module_names
    assert not roots(ROOT / "suite" / "__init__.py")


@pytest.mark.parametrize(
    ("arguments", "problem"), [([], "--domain is missing"), (["--domain", "nope"], "nope"), (["--domain"], "--domain")]
)
def test_a_wrong_domain_costs_no_import_of_torch(arguments: list[str], problem: str) -> None:
    code = (
        "import runpy, sys\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'scripts' / 'fit.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'lightning', 'numpy', 'jsonargparse', 'wandb'} & set(sys.modules)\n"
        "    print(sorted(heavy))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == "[]\n"
    assert ran.stderr.count("\n") == 1
    assert problem in ran.stderr
    assert ", ".join(DOMAINS) in ran.stderr


@pytest.mark.parametrize("path", files("scripts"), ids=shown)
def test_scripts_are_short_and_call_one_verb(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 15
    calls = [ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert f"main('{path.stem}', available=available, load=load)" in calls


@pytest.mark.parametrize("path", [*SOURCES, *files("tests")], ids=shown)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_no_function_is_longer_than_60_lines(path: Path) -> None:
    functions = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef))
    assert not [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60]


def banned(node: ast.AST) -> str | None:
    """What about a node may not be; ``None`` for nothing."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name.endswith("extractall") and "filter" not in keywords:
            return "extractall without a filter"
        if name in ("pickle.load", "pickle.loads", "os.system", "os.popen", "eval", "exec"):
            return name
        if name == "torch.load" and keywords.get("weights_only") != "True":
            return "torch.load without weights_only=True"
        for keyword, value in (
            ("weights_only", "False"),
            ("shell", "True"),
            ("sync_dist", "True"),
            ("offline", "True"),
        ):
            if keywords.get(keyword) == value:
                return f"{keyword}={value}"
    if isinstance(node, ast.Import | ast.ImportFrom) and "pickle" in ast.unparse(node).split():
        return "pickle"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value.startswith(("/work", "/tmp", "/home", "/root")):
            return f"the absolute path {node.value}"
        if "safe_globals" in node.value:
            return "safe globals"
    if isinstance(node, ast.Attribute) and "safe_globals" in node.attr:
        return "safe globals"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_nothing_banned_is_in_the_code(path: Path) -> None:
    found = [(node.lineno, text) for node in ast.walk(tree_of(path)) if (text := banned(node))]  # type: ignore[attr-defined]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
        "pickle.load(file)",
        "import pickle",
        "from pickle import loads",
        "archive.extractall(folder)",
        "subprocess.run(command, shell=True)",
        "self.log('a', b, sync_dist=True)",
        "WandbLogger(offline=True)",
        "os.system('ls')",
        "open('/tmp/x')",
        "torch.serialization.add_safe_globals([X])",
    ],
)
def test_the_ban_would_find(line: str) -> None:
    assert any(banned(node) for node in ast.walk(ast.parse(line)))
