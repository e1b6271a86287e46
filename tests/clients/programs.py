"""The programs of the client matrix: which client each of them tries, and how it is run."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

FOLDER = ROOT / "tests/clients"
REQUIREMENTS = FOLDER / "python/requirements.txt"
NODE_PACKAGES = FOLDER / "node/package.json"

COMPILES = "compile with `tsc --strict`"

_CHECK = re.compile(r"""check\(\s*["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Program:
    """A program that uses one client, and the packages that it tries.

    A TypeScript program is compiled after `generator` has made its types from the OpenAPI document.
    """

    client: str
    file: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    generator: tuple[str, ...] = ()

    @property
    def is_python(self) -> bool:
        return self.file.endswith(".py")

    @property
    def path(self) -> Path:
        return FOLDER / ("python" if self.is_python else "node") / self.file

    @property
    def versions(self) -> str:
        """The pinned versions of its packages."""
        pins = python_pins() if self.is_python else node_pins()
        if len(self.packages) == 1:
            return pins[self.packages[0]]
        return ", ".join(f"{name} {pins[name]}" for name in self.packages)

    @property
    def checks(self) -> list[str]:
        """The names of its checks, in order."""
        found = _CHECK.findall(self.path.read_text(encoding="utf-8"))
        return [COMPILES, *found] if self.generator else found


PROGRAMS = (
    Program("openai for Python", "openai_package.py", ("openai",)),
    Program("LiteLLM", "litellm_package.py", ("litellm",)),
    Program("LangChain, `DallEAPIWrapper`", "langchain_wrapper.py", ("langchain-community",)),
    Program("webuiapi", "web_ui.py", ("webuiapi",)),
    Program("openapi-python-client", "generated_client.py", ("openapi-python-client",)),
    Program("mcp for Python", "mcp_client.py", ("mcp",)),
    Program("openai for Node", "openai_package.mjs", ("openai",)),
    Program("AI SDK for OpenAI", "ai_sdk.mjs", ("ai", "@ai-sdk/openai"), ("openai",)),
    Program(
        "AI SDK for compatible services",
        "ai_sdk.mjs",
        ("ai", "@ai-sdk/openai-compatible"),
        ("compatible",),
    ),
    Program("AI SDK, Responses API", "ai_sdk_responses.mjs", ("ai", "@ai-sdk/openai")),
    Program(
        "openapi-fetch",
        "fetch_client.ts",
        ("openapi-typescript", "openapi-fetch", "typescript"),
        generator=("openapi-typescript", "openapi.json", "-o", "schema.d.ts"),
    ),
    Program(
        "hey-api",
        "hey_api.ts",
        ("@hey-api/openapi-ts", "typescript"),
        generator=("openapi-ts", "-i", "openapi.json", "-o", "hey"),
    ),
)


@cache
def python_pins() -> dict[str, str]:
    """Exact versions by name, from the requirements."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if not line.startswith("#")]
    return dict(pin.split("==") for pin in pins)


@cache
def node_pins() -> dict[str, str]:
    """Exact versions by name, from package.json."""
    found: dict[str, Any] = json.loads(NODE_PACKAGES.read_text(encoding="utf-8"))
    return {**found["dependencies"], **found["devDependencies"]}
