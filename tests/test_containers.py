"""The compose files and Dockerfiles: confinement, shared folders, health checks, durable Redis."""

import re
import socket
import subprocess
import sys
from typing import Any

import yaml

from tests.support.manual_worker import ManualWorker
from tests.support.paths import ROOT
from worker.queue.layout import redis_keys
from worker.redis_io.client import connect
from worker.settings import Settings


def _compose(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_compose_services_are_confined_and_restarted() -> None:
    compose = _compose("docker-compose.yml")
    services = compose["services"]
    assert set(services) == {"redis", "api", "worker", "webhooks", "prometheus", "grafana"}
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        for volume in service.get("volumes", ()):
            is_writable = not volume.endswith(":ro")
            assert (volume.split(":")[0] in compose["volumes"]) == is_writable
    assert services["api"]["volumes"] == services["worker"]["volumes"]
    assert services["webhooks"]["profiles"] == ["webhooks"]
    for name in ("api", "worker", "webhooks"):
        assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_the_api_knows_its_published_address() -> None:
    """The API requires keys by this address. It cannot see it from the containers' network."""
    api = _compose("docker-compose.yml")["services"]["api"]
    (port,) = api["ports"]
    assert port == f"{api['environment']['KIRAZURI_LISTEN']}:8000"
    assert port.startswith("${KIRAZURI_PUBLISH:-127.0.0.1:")


def test_redis_is_durable_and_evicts_nothing() -> None:
    command = _compose("docker-compose.yml")["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"


def test_only_the_override_requests_a_gpu() -> None:
    assert "nvidia" not in (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    worker = _compose("docker-compose.gpu.yml")["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"


def test_api_and_worker_share_read_only_folders() -> None:
    services = _compose("docker-compose.gpu.yml")["services"]
    assert services["api"]["volumes"] == services["worker"]["volumes"]
    places = [volume.partition("}:")[2] for volume in services["api"]["volumes"]]
    assert places == ["/checkpoint:ro", "/loras:ro"]
    for name in ("api", "worker"):
        assert services[name]["environment"]["KIRAZURI_CHECKPOINT_DIR"] == "/checkpoint"
        assert services[name]["environment"]["KIRAZURI_LORA_DIR"] == "/loras"


def test_container_images_run_without_root_and_have_health_checks() -> None:
    for path in sorted((ROOT / "docker").glob("*.Dockerfile")):
        text = path.read_text(encoding="utf-8")
        assert "# syntax=" not in text
        assert re.search(r"^USER 10001", text, re.MULTILINE)
        assert "HEALTHCHECK" in text


def test_the_health_check_of_a_worker_wants_a_fresh_word_of_this_host(redis_url: str) -> None:
    settings = Settings(_env_file=None)
    script = [sys.executable, str(ROOT / "docker/worker_health.py")]
    environment = {"KIRAZURI_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    own, other = f"{socket.gethostname()}-0a1b2c3d", "other-0a1b2c3d"

    def is_healthy() -> bool:
        return subprocess.run(script, env=environment, check=False).returncode == 0

    with connect(redis_url) as client:
        worker = ManualWorker(client, settings)
        worker.heartbeat(name=other)
        worker.heartbeat(name=own, is_warm=False)
        assert not is_healthy()
        worker.heartbeat(name=own)
        assert is_healthy()
        left = redis_keys.HEARTBEAT_TTL_SECONDS - settings.lease_seconds - 0.1
        client.pexpire(redis_keys.worker_key(own), int(1000 * left))
        assert not is_healthy()
