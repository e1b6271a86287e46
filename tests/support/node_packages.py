"""Node packages that tests of the page use: axe-core, and what checks types. They go to `.ui`."""

import shutil

from tests.clients.environment import install_packages
from tests.support.paths import ROOT

HOME = ROOT / ".ui"
_LOCKED = ROOT / "tests/ui/node"


def install() -> None:
    """Install the packages of the lock file, unless they are there already.

    Raises:
        InstallError: npm failed.
    """
    HOME.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_LOCKED / name, HOME)
    install_packages(HOME, HOME / "package-lock.json")
