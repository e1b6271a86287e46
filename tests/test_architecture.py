"""The layout rules of the source code. `make check` runs the import contracts."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.torch_free import needs_torch

PACKAGES = ("api", "cli", "model", "training", "worker")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EVERYTHING = [*MODULES, *TESTS, *sorted((ROOT / "docker").glob("*.py")), ROOT / "install.py"]
BANNED_NAMES = {"base", "common", "core", "helpers", "manager", "service_layer", "utils"}
TORCH_ROOMS = (
    *("model/bench", "model/engine", "model/network", "model/sampling"),
    *("training", "worker/runtime"),
)
TORCH_FREE = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in MODULES
    if not path.relative_to(ROOT).as_posix().startswith(TORCH_ROOMS)
    and path.name not in ("__init__.py", "__main__.py")
]
"""Every module outside the rooms that may use torch."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MODULES = 12
"""Python files directly in a package, without `__init__.py`."""

TEST_HELPERS = (
    *("tests.support", "tests.chaos", "tests.clients", "tests.fuzz", "tests.gpu"),
    *("tests.siege", "tests.tools"),
)
"""Packages that a test may import."""


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _import_in_new_process(
    modules: Iterable[str], *, first: str = "", after_each: str = "pass"
) -> str:
    """Import the modules in order in a new interpreter; what it printed."""
    code = f"import sys, importlib\n{first}\nfor name in sys.argv[1:]:\n"
    code += f"    importlib.import_module(name)\n    {after_each}"
    command = [sys.executable, "-c", code, *modules]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_modules_outside_the_torch_rooms_do_not_load_torch() -> None:
    loaded = "{'torch', 'transformers', 'diffusers', 'safetensors'} & set(sys.modules)"
    output = _import_in_new_process(TORCH_FREE, after_each=f"print(name, *{loaded})")
    assert output.splitlines() == TORCH_FREE


def test_tests_that_need_torch_are_told_from_their_imports() -> None:
    """`make test-without-torch` leaves these out and runs all others."""
    needing = {_name(path) for path in MODULES if needs_torch(path)}
    assert {name for name in needing if not name.startswith(TORCH_ROOMS)} <= {"worker/__main__.py"}
    assert {"model/engine/loading.py", "model/sampling/samplers.py"} <= needing
    assert needs_torch(ROOT / "tests/model/sampling/test_samplers.py")
    assert not needs_torch(ROOT / "tests/model/test_card.py")


def test_the_api_and_the_command_line_run_without_numpy() -> None:
    """The image of the API has no numpy."""
    modules = ["api.main", "api.webhooks.sender", "cli.main"]
    _import_in_new_process(modules, first="sys.modules['numpy'] = None")


def test_modules_have_a_short_docstring_and_packages_are_empty() -> None:
    wrong = []
    for path in MODULES:
        if path.name == "__init__.py":
            if path.read_text(encoding="utf-8"):
                wrong.append(f"{_name(path)}: packages export nothing; import from the module")
        elif not (docstring := ast.get_docstring(_tree(path))):
            wrong.append(f"{_name(path)}: has no module docstring")
        elif len(docstring.splitlines()) > 8:
            wrong.append(f"{_name(path)}: the module docstring is longer than 8 lines")
    assert wrong == []


def test_modules_have_telling_names() -> None:
    assert [_name(path) for path in MODULES if path.stem in BANNED_NAMES] == []


def _banned_statements(path: Path) -> Iterator[str]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "relative import"
        if isinstance(node, ast.Global):
            yield "`global`: no module-level state that changes"
        if isinstance(node, ast.Import | ast.ImportFrom):
            unsafe = {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}
            yield from (f"imports {name}" for name in unsafe)


def test_no_module_uses_a_banned_statement() -> None:
    wrong = [f"{_name(path)}: {text}" for path in MODULES for text in _banned_statements(path)]
    assert wrong == []


def test_no_file_imports_from_the_future() -> None:
    """Pydantic, FastAPI and Typer need annotations at run time."""
    wrong = [
        _name(path)
        for path in EVERYTHING
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert wrong == []


def test_no_file_is_too_long() -> None:
    lengths = {_name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in EVERYTHING}
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}
    assert too_long == {}, "split them"


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{_name(path)} {node.name}": lines
        for path in EVERYTHING
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert too_long == {}, "split them"


def test_no_package_has_too_many_modules() -> None:
    counts: dict[str, int] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            counts[_name(path.parent)] = counts.get(_name(path.parent), 0) + 1
    too_many = {package: count for package, count in counts.items() if count > MAX_MODULES}
    assert too_many == {}, "make sub-packages"


def test_tests_import_helpers_from_helper_packages_only() -> None:
    """No test module imports another test module or a conftest."""
    wrong = []
    for path in TESTS:
        for node in ast.walk(_tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                is_test = any(part.startswith("test_") or part == "conftest" for part in parts[:-1])
                if parts[0] == "tests" and (is_test or not name.startswith(TEST_HELPERS)):
                    wrong.append(f"{_name(path)} imports {name}")
    assert wrong == []


def test_calls_of_tests_say_how_long_they_wait() -> None:
    """The default of httpx2 is five seconds, which a busy machine may need."""
    calls = ("Client", "AsyncClient", "delete", "get", "head", "options", "post", "put", "stream")
    wrong = [
        f"{_name(path)}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {f"httpx2.{call}" for call in calls}
        and not {"timeout", "transport"} & {keyword.arg for keyword in node.keywords}
    ]
    assert wrong == []
