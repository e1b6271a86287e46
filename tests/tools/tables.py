"""`make docs`: generates the table of settings and .env.example from the code."""

import re
from typing import get_args

from pydantic.fields import FieldInfo

from tests.support.paths import ROOT
from worker.settings import Settings

ENV_EXAMPLE = ROOT / ".env.example"
SETTINGS_PAGE = ROOT / "docs/settings.md"
_PLACE = re.compile(r"(<!-- table of settings -->\n).*?(<!-- end of table -->)", re.DOTALL)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"KIRAZURI_{name.upper()}"


def _default(field: FieldInfo) -> str:
    return "" if field.default is None else str(field.default)


def _limit(field: FieldInfo) -> str:
    """The allowed choices, or the smallest allowed value."""
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    for bound in field.metadata:
        for name, sign in (("ge", "at least"), ("gt", "more than")):
            if hasattr(bound, name):
                return f"{sign} {getattr(bound, name)}"
    return ", ".join(f"`{choice}`" for choice in choices)


def settings_table() -> str:
    """A table with a row for every setting."""
    rows = ["| variable | default | limits | what it is |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = f"`{_default(field)}`" if _default(field) else ""
        rows.append(f"| `{variable(name)}` | {default} | {_limit(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def env_example() -> str:
    """All settings with their defaults, commented out."""
    lines = [
        "# Copy to .env and uncomment what should differ from the default. See docs/settings.md."
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"#{variable(name)}={_default(field)}"]
    return "\n".join(lines) + "\n"


def with_settings_table(page: str) -> str:
    """The page with a new table of settings."""
    return _PLACE.sub(lambda place: place[1] + settings_table() + place[2], page)


def main() -> None:
    """Write the page and .env.example."""
    page = SETTINGS_PAGE.read_text(encoding="utf-8")
    SETTINGS_PAGE.write_text(with_settings_table(page), encoding="utf-8")
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")


if __name__ == "__main__":
    main()
