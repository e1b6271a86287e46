"""What the programs share: named checks, their results, and no connection but to this machine.

Used with the interpreter of the clients' environment, so it needs the standard library only.
"""

import atexit
import ipaddress
import json
import os
import sys
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL = os.environ.get("CHECKS_URL", "")
"""The service, without a path."""

HELD_URL = os.environ.get("CHECKS_HELD_URL", "")
"""The same service; the first POST is broken off when its job exists, and gets no response."""

KEY = os.environ.get("CHECKS_KEY", "")
"""An API key that only this program has."""

PROMPT = "masterpiece, best quality, 1girl, blue hair, smile"

kept: dict[str, Any] = {}
"""What later checks need of earlier ones."""

_results: dict[str, str | None] = {}


def check(name: str) -> Callable[[Callable[[], None]], None]:
    """Run the function at once; the check has failed if it raises."""

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as exc:
            traceback.print_exc()
            _results[name] = f"{type(exc).__name__}: {exc}"[:300]
        else:
            _results[name] = None

    return run


def own_jobs() -> set[str]:
    """The ids of all jobs made with the key."""
    request = urllib.request.Request(f"{URL}/jobs?limit=100")
    request.add_header("Authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {job["id"] for job in json.load(answer)["items"]}


def makes_one_job(function: Callable[[], Any]) -> Any:
    """Call the function, which must make exactly one job; its result."""
    before = own_jobs()
    result = function()
    made = own_jobs() - before
    assert len(made) == 1, f"{len(made)} jobs were made"
    return result


def is_image(data: bytes) -> bool:
    """Whether the bytes are a PNG, JPEG, WebP or AVIF file."""
    return data.startswith((b"\x89PNG", b"\xff\xd8")) or data[8:12] in (b"WEBP", b"avif")


def raised_by(function: Callable[[], Any]) -> Exception:
    """The exception that the function raises."""
    try:
        function()
    except Exception as exc:
        return exc
    raise AssertionError("nothing was raised")


def works_or_mentions(text: str, function: Callable[[], Any]) -> None:
    """Call the function; an error must contain the text."""
    try:
        function()
    except Exception as exc:
        if text not in str(exc):
            raise


class RefusedConnectionError(Exception):
    """A program tried to reach another machine."""


def _is_this_machine(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = str(address[0]) if isinstance(address, tuple) else ""
    elif event == "socket.getaddrinfo":
        host = str(arguments[0] or "")
    else:
        return
    if not _is_this_machine(host):
        if path := os.environ.get("CHECKS_REFUSED"):
            with Path(path).open("a") as file:
                file.write(f"{host}\n")
        raise RefusedConnectionError(f"{event}: {host}")


def _write_results() -> None:
    if path := os.environ.get("CHECKS_RESULTS"):
        Path(path).write_text(json.dumps(_results))


sys.addaudithook(_refuse)
atexit.register(_write_results)
