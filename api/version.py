"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The version, or 0+unknown if the package is not installed (a bare checkout)."""
    try:
        return version("kirazuri-server")
    except PackageNotFoundError:
        return "0+unknown"
