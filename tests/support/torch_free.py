"""Tells which files run without torch, by what they import at the top, also indirectly."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

needs_a_worker = pytest.mark.skipif(
    not find_spec("torch"), reason="it runs the model or a worker, which needs torch"
)

_PACKAGES = {"torch", "safetensors", "transformers", "diffusers"}
"""What comes with torch, or needs it."""


def needs_torch(path: Path) -> bool:
    """Whether a module, or one of ours that it imports, imports torch."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in _imports(module):
            if name.partition(".")[0] in _PACKAGES:
                return True
            waiting += _files(name)
    return False


@cache
def _files(name: str) -> tuple[Path, ...]:
    """The files of ours that importing a dotted name runs."""
    parts = name.split(".")
    stems = [ROOT.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    files = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
    return tuple(file for file in files if file.exists())


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """The dotted names that a module imports when it is imported itself."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)
