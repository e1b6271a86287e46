"""The process that compiles, with the priority of a test: with little, it would take minutes."""

import sys

from model.engine.compiled.plan import Plan

_CODE = """
import os
os.nice = lambda by: 0
from model.engine.compiled.trial import main
main()
"""


def prompt_trial(plan: Plan) -> list[str]:
    """Stands for `paths.trial_command`."""
    return [sys.executable, "-c", _CODE, plan.to_json()]
