"""Prints the part of requirements.lock that some extras need, for `pip install --require-hashes`.

torch is not among it: it is installed before, and without hashes.
"""

import itertools
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

_ENTRY = re.compile(
    r"^(?P<name>[a-z0-9-]+)==.*?^    # via (?P<via>[^\n]*)$", re.MULTILINE | re.DOTALL
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _direct(project: Path, extras: Iterable[str]) -> set[str]:
    """The names that the project itself asks for with these extras, and its build back end."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))
    optional = table["project"]["optional-dependencies"]
    asked = itertools.chain(
        table["build-system"]["requires"],
        table["project"]["dependencies"],
        *(optional[extra] for extra in extras),
    )
    found = (_NAME.match(requirement) for requirement in asked)
    return {re.sub(r"[._]", "-", match[0]).lower() for match in found if match}


def locked(project: Path, lock: Path, extras: Iterable[str]) -> str:
    """The entries of the lock for these extras, and for all that their packages need."""
    entries = list(_ENTRY.finditer(lock.read_text(encoding="utf-8")))
    needed = _direct(project, extras)
    while True:
        more = {entry["name"] for entry in entries if needed & set(entry["via"].split(", "))}
        if more <= needed:
            break
        needed |= more
    return "".join(f"{entry[0]}\n" for entry in entries if entry["name"] in needed)


if __name__ == "__main__":
    sys.stdout.write(locked(Path("pyproject.toml"), Path("requirements.lock"), sys.argv[1:]))
