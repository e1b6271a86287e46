"""Print what an extra of pyproject.toml needs, so that an image can install it before the code."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
needed = [*project["dependencies"], *project["optional-dependencies"][sys.argv[1]]]
sys.stdout.write("\n".join(needed) + "\n")
