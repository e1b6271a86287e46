"""Checks the types of the page's scripts against those of the OpenAPI document (`make check`).

Without node, or if npm cannot install the checker, it says so and succeeds.
"""

import json
import subprocess

from api.main import create_app
from tests.clients.environment import InstallError, has_node
from tests.support.node_packages import HOME, install
from tests.support.paths import ROOT
from worker.settings import Settings

PROJECT = ROOT / "tests/ui/tsconfig.json"


def check() -> list[str]:
    """The errors, as `file(line,column): error`.

    Raises:
        InstallError: npm cannot install the checker.
    """
    install()
    document = HOME / "openapi.json"
    app = create_app(Settings(_env_file=None))
    document.write_text(json.dumps(app.openapi()))
    programs = HOME / "node_modules/.bin"
    types = [str(programs / "openapi-typescript"), str(document), "-o", str(HOME / "schema.d.ts")]
    subprocess.run(types, check=True, capture_output=True)
    command = [str(programs / "tsc"), "--project", str(PROJECT), "--pretty", "false"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return ran.stdout.splitlines() if ran.returncode else []


def main() -> int:
    """Print the errors; 1 if there are any."""
    if not has_node():
        print("node is not installed: skipping the types of the page")
        return 0
    try:
        errors = check()
    except InstallError as exc:
        print(f"NOT CHECKED: the types of the page: {exc}")
        return 0
    print("\n".join(errors) or "the types of the page are right")
    return int(bool(errors))


if __name__ == "__main__":
    raise SystemExit(main())
