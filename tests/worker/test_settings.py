"""Settings that do not go together, and empty ones."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.setting_values import split_commas, webhook_delays
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


@pytest.mark.parametrize("is_in_file", [False, True])
def test_an_empty_variable_is_as_if_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_in_file: bool
) -> None:
    """An empty path would be the working folder, an empty key one that nobody has."""
    env_file = tmp_path / ".env"
    empty = [f"KIRAZURI_{name.upper()}" for name in Settings.model_fields]
    if is_in_file:
        env_file.write_text("".join(f"{name}=\n" for name in empty))
    else:
        for name in empty:
            monkeypatch.setenv(name, "")
    assert Settings(_env_file=env_file) == Settings.model_construct()


def test_a_comma_is_an_empty_list() -> None:
    lists = {"openai_models": ",", "webhook_retry_seconds": ","}
    settings = Settings.model_validate(lists)
    assert not split_commas(settings.openai_models)
    assert not webhook_delays(settings.webhook_retry_seconds)
