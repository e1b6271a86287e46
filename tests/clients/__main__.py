"""`make clients`: tries the real client packages on the real service and writes the results."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

from tests.clients.environment import (
    HOME,
    NODE,
    PYTHON,
    InstallError,
    has_node,
    install_node,
    install_python,
)
from tests.clients.holding_proxy import HoldingProxy
from tests.clients.programs import COMPILES, PROGRAMS, Program
from tests.clients.results import (
    Results,
    complete,
    page_example,
    read_results,
    write_results,
)
from tests.support.api_keys import bearer, make_key
from tests.support.service import running

TIMEOUT = "retry after a timeout: one job"
PAGE_EXAMPLE_WITH = "fetch_client.ts"
"""The program that is compiled together with the example of the page."""

_SECONDS = 600
_NOWHERE = "http://127.0.0.1:9"
_QUIET = {
    # A proxy that does not exist, for whatever does not go through the guarded sockets.
    "HTTP_PROXY": _NOWHERE,
    "HTTPS_PROXY": _NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "AI_SDK_LOG_WARNINGS": "false",
    "NODE_OPTIONS": f"--import {(NODE / 'loopback.mjs').as_uri()}",
}
"""Settings that keep packages from calling home."""


def main() -> None:
    """Install, run, write; the exit code is 1 if a check failed, 2 if nothing could be tried."""
    parser = argparse.ArgumentParser(prog="make clients", description=__doc__)
    parser.add_argument("--only", nargs="*", help="files of the programs to run")
    parser.add_argument("--keep", action="store_true", help="do not write the results")
    parser.add_argument(
        "--if-installable", action="store_true", help="succeed if packages cannot be installed"
    )
    options = parser.parse_args()
    programs = [one for one in PROGRAMS if not options.only or one.file in options.only]
    if not has_node():
        print("node or npm is not installed: the clients for Node are not tried")
        programs = [one for one in programs if one.is_python]
    try:
        if any(one.is_python for one in programs):
            install_python()
        if not all(one.is_python for one in programs):
            install_node()
    except InstallError as exc:
        print(f"no client was tried: {exc}", file=sys.stderr)
        sys.exit(0 if options.if_installable else 2)
    results = _run_all(programs)
    if not options.keep:
        write_results({**read_results(), **results})
    failed = [
        f"{client}: {check}: {reason}"
        for client, result in results.items()
        for check, reason in result["checks"].items()
        if reason
    ]
    print("\n".join(failed) or f"all checks of {len(results)} clients passed")
    sys.exit(bool(failed))


def _run_all(programs: list[Program]) -> Results:
    with tempfile.TemporaryDirectory(prefix="kirazuri-clients-") as name:
        folder = Path(name)
        made = [
            make_key(f"client-{place}", max_rating="explicit") for place in range(len(programs))
        ]
        keys = folder / "keys.toml"
        keys.write_text("\n".join(f'[{key.name}]\nhash = "{key.hash}"\n' for _, key in made))
        with running(folder, KIRAZURI_KEYS_FILE=keys, KIRAZURI_AUTH="required") as service:
            document = service.get("/openapi.json").raise_for_status().content
            if NODE.exists():
                (NODE / "openapi.json").write_bytes(document)
            url = str(service.base_url).rstrip("/")
            return {
                program.client: _try(program, url, secret, folder)
                for program, (secret, _) in zip(programs, made, strict=True)
            }


def _try(program: Program, url: str, key: str, folder: Path) -> dict[str, object]:
    print(f"-- {program.client} {program.versions}", flush=True)
    results, refused = folder / "results.json", folder / "refused"
    results.write_text("{}")
    refused.write_text("")
    headers = bearer(key)

    def has_unfinished_job() -> bool:
        jobs = httpx2.get(f"{url}/jobs", headers=headers, timeout=60).json()["items"]
        return any(job["finished_at"] is None for job in jobs)

    with HoldingProxy(url, has_unfinished_job) as proxy:
        variables = {
            **_QUIET,
            "CHECKS_URL": url,
            "CHECKS_HELD_URL": proxy.url,
            "CHECKS_KEY": key,
            "CHECKS_RESULTS": str(results),
            "CHECKS_REFUSED": str(refused),
        }
        if program.is_python:
            _call([str(PYTHON), str(program.path), *program.arguments], HOME, variables)
            found = json.loads(results.read_text())
        else:
            compiles = _compile(program, variables)
            runs = f"{program.path.stem}.js" if program.generator else program.file
            _call(["node", runs, *program.arguments], NODE, variables)
            found = {**compiles, **json.loads(results.read_text())}
    if TIMEOUT in found and not found[TIMEOUT] and proxy.posts < 2:
        found[TIMEOUT] = "the client did not try again"
    return complete(program, found, refused.read_text())


def _compile(program: Program, variables: dict[str, str]) -> dict[str, str | None]:
    """Generate and compile a TypeScript program; the result of this check."""
    if not program.generator:
        return {}
    files = [program.file]
    if program.file == PAGE_EXAMPLE_WITH:
        (NODE / "page_example.ts").write_text(page_example("ts"))
        files.append("page_example.ts")
    project = NODE / f"{program.path.stem}.json"
    project.write_text(json.dumps({"extends": "./tsconfig.json", "files": files}))
    generator, *arguments = program.generator
    for tool in ([generator, *arguments], ["tsc", "-p", project.name]):
        command = ["node", f"node_modules/.bin/{tool[0]}", *tool[1:]]
        if _call(command, NODE, {**variables, "CHECKS_RESULTS": ""}):
            return {COMPILES: f"{tool[0]} failed"}
    return {COMPILES: None}


def _call(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """Run a command; its output is shown, because the results only name what failed."""
    environment = {**os.environ, **variables}  # noqa: TID251 - a child's
    return subprocess.run(
        command, cwd=folder, env=environment, timeout=_SECONDS, check=False
    ).returncode


if __name__ == "__main__":
    main()
