"""The dependencies of each extra, and the versions that constraints.txt pins."""

import importlib.metadata
import itertools
import re
import tomllib

from tests.support.paths import ROOT


def _requirements(extra: str) -> set[str]:
    """The names of the direct dependencies with an extra."""
    names = set()
    for requirement in importlib.metadata.requires("kirazuri-server") or []:
        name, _, marker = requirement.partition(";")
        if "extra ==" not in marker or re.search(f"extra == ['\"]{extra}['\"]", marker):
            found = re.match(r"[A-Za-z0-9._-]+", name)
            assert found
            names.add(found[0].lower())
    return names


def _closure(names: set[str]) -> set[str]:
    """The names and all their dependencies, as installed here."""
    seen: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        plain = (text for text in requirements if "extra ==" not in text)
        matches = (re.match(r"[A-Za-z0-9._-]+", text) for text in plain)
        waiting |= {match[0].lower() for match in matches if match} - seen
    return seen


def test_the_api_needs_no_torch() -> None:
    needed = _closure(_requirements("api"))
    assert {"fastapi", "redis", "rq"} <= needed
    assert not needed & {"torch", "numpy", "transformers", "diffusers", "safetensors"}
    assert "torch" in _requirements("worker")


def test_constraints_are_exact_versions_without_an_index() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)


def test_constraints_pin_every_dependency() -> None:
    """If this fails, run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[^A-Za-z0-9._-]", text)[0].lower() for text in asked} - {"kirazuri-server"}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"\n{name}==" not in pinned] == []
