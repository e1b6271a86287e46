"""How much a fuzzed test tries: the same few cases in `make test`, many new ones in `make fuzz`."""

import os

from hypothesis import HealthCheck, Phase, settings

EXAMPLES_VARIABLE = "FUZZ_EXAMPLES"
"""Cases of each property; unset: the short run, which draws the same ones every time."""

_wanted = os.environ.get(EXAMPLES_VARIABLE, "")  # noqa: TID251 - of the tests, not of the service

fuzzed = settings(
    max_examples=int(_wanted or 60),
    derandomize=not _wanted,
    database=None,
    deadline=None,  # machines differ
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
