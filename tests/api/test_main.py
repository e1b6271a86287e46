"""The start of the API process."""

from pathlib import Path

from pydantic import SecretStr

from tests.support.api_process import ApiProcess
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.settings import Settings


def test_it_starts_without_redis_and_logs_the_reason(tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    url = SecretStr(f"redis://:secret@{place}")
    api = ApiProcess(Settings(data_dir=tmp_path, redis_url=url), tmp_path / "log")
    try:
        wait_until(lambda: "event=redis_away reason=" in api.log.read_text())
        assert f"connecting to {place}" in api.log.read_text()
        assert "secret" not in api.log.read_text()
    finally:
        api.stop()
