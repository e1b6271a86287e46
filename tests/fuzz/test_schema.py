"""A short run of schemathesis over the OpenAPI document; `make fuzz` runs a long one."""

import subprocess

import pytest

from tests.fuzz.schema import SETTINGS, errors_in_log, run_schemathesis
from tests.fuzz.service import running_service

EXAMPLES = 8
"""Examples per operation and kind; the phase of boundary values has a fixed number."""


@pytest.mark.timeout(300)
def test_no_response_is_a_5xx_or_undocumented() -> None:
    with running_service(SETTINGS) as service:
        options = ("--max-examples", str(EXAMPLES), "--seed", "1")
        run = run_schemathesis(service, *options, output=subprocess.PIPE)
        assert run.returncode == 0, run.stdout
        assert errors_in_log(service) == ""
