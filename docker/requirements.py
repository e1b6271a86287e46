"""Prints the requirements of some extras, so that an image can install them before the code."""

import itertools
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]
needed = dict.fromkeys(itertools.chain(project["dependencies"], *extras))
sys.stdout.write("\n".join(needed) + "\n")
