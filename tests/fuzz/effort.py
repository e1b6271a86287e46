"""Number of examples: few and fixed in `make drill`, many and new in `make fuzz`."""

import os

from hypothesis import HealthCheck, Phase, settings

EXAMPLES_VARIABLE = "FUZZ_EXAMPLES"
"""Examples of each property; unset: the short drill with the same examples every time."""

_wanted = os.environ.get(EXAMPLES_VARIABLE, "")  # noqa: TID251 - not a setting of the service

fuzzed = settings(
    max_examples=int(_wanted or 60),
    derandomize=not _wanted,
    database=None,
    deadline=None,  # independent of the machine's speed
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
