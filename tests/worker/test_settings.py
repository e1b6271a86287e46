"""Settings that do not go together."""

import pytest
from pydantic import ValidationError

from worker.settings import Settings


def test_heartbeats_are_sent_at_least_three_times_a_lease() -> None:
    """With fewer, a worker takes its own pauses for outages and never looks for lost jobs."""
    message = (
        "KIRAZURI_HEARTBEAT_SECONDS is 0.4, but it must be at most a third of "
        "KIRAZURI_LEASE_SECONDS, which is 1"
    )
    with pytest.raises(ValidationError, match=message):
        Settings(_env_file=None, lease_seconds=1, heartbeat_seconds=0.4)
    with pytest.raises(ValidationError, match="which is 6"):
        Settings(_env_file=None, heartbeat_seconds=3)
    for lease, heartbeat in ((6, 2), (1, 0.3), (2, 0.4)):
        Settings(_env_file=None, lease_seconds=lease, heartbeat_seconds=heartbeat)
