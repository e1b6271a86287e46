"""What the design promises of the code itself. The import contracts are run by `make check`."""

import ast
import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

PACKAGES = ("api", "cli", "model", "training", "worker")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
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
"""Every module outside of the rooms that may use torch."""


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imported(modules: Iterable[str], *, first: str = "", after_each: str = "pass") -> str:
    """What a process tells that imports these one after the other."""
    code = f"import sys, importlib\n{first}\nfor name in sys.argv[1:]:\n"
    code += f"    importlib.import_module(name)\n    {after_each}"
    command = [sys.executable, "-c", code, *modules]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_what_needs_no_torch_does_not_import_it() -> None:
    tell = "print(name, *{'torch', 'transformers', 'diffusers', 'safetensors'} & set(sys.modules))"
    assert _imported(TORCH_FREE, after_each=tell).splitlines() == TORCH_FREE


def test_what_the_api_needs_is_enough_for_it() -> None:
    """Its image has no numpy; whatever may do without notices that by itself."""
    _imported(["api.main", "api.webhooks.sender", "cli.main"], first="sys.modules['numpy'] = None")


def _requirements(extra: str) -> set[str]:
    """Names of what the package needs with an extra, without the extra's own extras."""
    names = set()
    for requirement in importlib.metadata.requires("kirazuri-server") or []:
        name, _, marker = requirement.partition(";")
        if "extra ==" not in marker or re.search(f"extra == ['\"]{extra}['\"]", marker):
            found = re.match(r"[A-Za-z0-9._-]+", name)
            assert found
            names.add(found[0].lower())
    return names


def _closure(names: set[str]) -> set[str]:
    """The names with all that they need in turn, as installed here."""
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


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_has_a_short_docstring(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py":
        assert text == "", "packages export nothing; import from the module"
        return
    docstring = ast.get_docstring(_tree(path))
    assert docstring, "say what lives here"
    assert len(docstring.splitlines()) <= 8


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_keeps_the_house_rules(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            assert node.module != "__future__", "annotations are needed at run time"
        assert not isinstance(node, ast.Global), "no module-level state that changes"
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}


def _compose(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_compose_services_are_checked_confined_and_kept() -> None:
    compose = _compose("docker-compose.yml")
    services = compose["services"]
    assert set(services) == {"redis", "api", "worker", "webhooks", "prometheus", "grafana"}
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        for volume in service.get("volumes", ()):
            is_writable = not volume.endswith(":ro")
            assert (volume.split(":")[0] in compose["volumes"]) == is_writable
    assert services["api"]["volumes"] == services["worker"]["volumes"]
    assert services["webhooks"]["profiles"] == ["webhooks"]
    for name in ("api", "worker", "webhooks"):
        assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_the_api_knows_where_it_is_published() -> None:
    """It asks for keys by that: what it sees itself is the containers' network."""
    api = _compose("docker-compose.yml")["services"]["api"]
    (port,) = api["ports"]
    assert port == f"{api['environment']['KIRAZURI_LISTEN']}:8000"
    assert port.startswith("${KIRAZURI_PUBLISH:-127.0.0.1:")


def test_the_containers_redis_keeps_what_it_acknowledged() -> None:
    command = _compose("docker-compose.yml")["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"


def test_the_gpu_is_asked_for_in_the_override_alone() -> None:
    assert "nvidia" not in (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    worker = _compose("docker-compose.gpu.yml")["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"


def test_api_and_worker_get_the_same_folders_and_may_not_write_to_them() -> None:
    services = _compose("docker-compose.gpu.yml")["services"]
    assert services["api"]["volumes"] == services["worker"]["volumes"]
    places = [volume.partition("}:")[2] for volume in services["api"]["volumes"]]
    assert places == ["/checkpoint:ro", "/loras:ro"]
    for name in ("api", "worker"):
        assert services[name]["environment"]["KIRAZURI_CHECKPOINT_DIR"] == "/checkpoint"
        assert services[name]["environment"]["KIRAZURI_LORA_DIR"] == "/loras"


def test_images_of_containers_run_without_root_and_are_checked() -> None:
    for path in sorted((ROOT / "docker").glob("*.Dockerfile")):
        text = path.read_text(encoding="utf-8")
        assert "# syntax=" not in text
        assert re.search(r"^USER 10001", text, re.MULTILINE)
        assert "HEALTHCHECK" in text


def test_constraints_are_exact_and_name_no_index() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)


def test_constraints_pin_everything_that_is_asked_for() -> None:
    """If this fails, run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[^A-Za-z0-9._-]", text)[0].lower() for text in asked} - {"kirazuri-server"}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"\n{name}==" not in pinned] == []
