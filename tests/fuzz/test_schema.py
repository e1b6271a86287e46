"""A short run of schemathesis over the whole document; `make fuzz` runs a long one."""

import subprocess

import pytest

from tests.fuzz.schema import SETTINGS, accidents, run_schemathesis
from tests.fuzz.service import running_service

EXAMPLES = 8
"""Of each operation, of each kind; the phase of boundary values takes no number."""


@pytest.mark.timeout(300)
def test_no_answer_is_an_error_of_ours_or_unknown_to_the_document() -> None:
    with running_service(SETTINGS) as service:
        options = ("--max-examples", str(EXAMPLES), "--seed", "1")
        run = run_schemathesis(service, *options, output=subprocess.PIPE)
        assert run.returncode == 0, run.stdout
        assert accidents(service) == ""
