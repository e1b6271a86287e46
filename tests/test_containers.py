"""The compose files and Dockerfiles: confinement, shared folders, health checks, durable Redis."""

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import AuthenticationError, Redis
from redis import ConnectionError as RedisConnectionError

from tests.support.manual_worker import ManualWorker
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.queue.layout import redis_keys
from worker.redis_io import server as redis_server
from worker.redis_io.client import connect
from worker.settings import Settings, redis_dsn

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
START_REDIS = ROOT / "docker/redis_start.sh"


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
            is_read_only = volume.endswith(":ro")
            assert is_read_only or volume.split(":")[0] in compose["volumes"]
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
    """It accepts no more data than fits twice into its memory, since it may have to copy it."""
    redis = _compose("docker-compose.yml")["services"]["redis"]
    program, folder, *rest = redis["command"]
    options = dict(zip(rest[0::2], rest[1::2], strict=True))
    assert (program, folder) == ("redis-start", "/run/kirazuri")
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert 2 * _bytes(options["--maxmemory"]) < _bytes(redis["mem_limit"])
    assert "--protected-mode" not in options
    assert "--requirepass" not in options


def _bytes(text: str) -> int:
    """The default of `${NAME:-400mb}`, or a plain size, in bytes."""
    number, unit = re.findall(r"(\d+)([kmg])b?\}?$", text)[0]
    return int(number) << {"k": 10, "m": 20, "g": 30}[unit]


def test_every_service_has_limits() -> None:
    for name, service in _compose("docker-compose.yml")["services"].items():
        assert 256 << 20 <= _bytes(service["mem_limit"]) <= 8 << 30, name
        assert 64 <= service["pids_limit"] <= 1024, name
        (tmpfs,) = service["tmpfs"]
        path, _, options = tmpfs.partition(":")
        size = re.findall(r"size=(\w+)", options)
        assert path == "/tmp"
        assert _bytes(size[0]) < _bytes(service["mem_limit"]), name


def test_only_its_users_reach_redis() -> None:
    compose = _compose("docker-compose.yml")
    users = {"redis", "api", "worker", "webhooks"}
    assert compose["networks"] == {"queue": {"internal": True}}
    for name, service in compose["services"].items():
        networks = service.get("networks", ["default"])
        assert ("queue" in networks) == (name in users), name
        assert name == "redis" or "default" in networks, name
        mounts = [mount for mount in service.get("volumes", ()) if mount.startswith("redis-url:")]
        rights = "" if name == "redis" else ":ro"
        assert mounts == ([f"redis-url:/run/kirazuri{rights}"] if name in users else []), name
    assert compose["services"]["redis"]["networks"] == ["queue"]
    assert "ports" not in compose["services"]["redis"]


def test_no_password_is_in_the_compose_files() -> None:
    for name in ("docker-compose.yml", "docker-compose.gpu.yml"):
        for service, given in _compose(name)["services"].items():
            variables = given.get("environment", {})
            assert not [key for key in variables if "REDIS" in key or "SECRET" in key], service
    health = _compose("docker-compose.yml")["services"]["redis"]["healthcheck"]["test"]
    # In a variable of one process: arguments are visible to others.
    assert health[1] == "REDISCLI_AUTH=$$(cat /run/kirazuri/password) redis-cli -e ping"


@pytest.fixture
def redis_program(tmp_path: Path) -> Path:
    """A folder with a `redis-server` that notes its arguments and variables, which it hides."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(
        f'#!/bin/sh\n{{ echo "$*"; env; }} > {folder}/seen\n'
        f'exec {redis_server.find_redis_server()} "$@"\n'
    )
    program.chmod(0o755)
    return folder


@contextmanager
def _started_redis(folder: Path, program: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Redis as its container starts it: the port and the process."""
    port = free_port()
    command = ["sh", str(START_REDIS), str(folder), "--port", str(port), "--save", ""]
    path = f"{program}:/usr/bin:/bin"
    with subprocess.Popen(
        command, env={"PATH": path}, cwd=folder, stdout=subprocess.PIPE
    ) as process:
        try:
            url = folder / "kirazuri_redis_url"
            wait_until(lambda: url.exists() and _answers(port, _password(folder)))
            yield port, process
        finally:
            process.kill()


def _password(folder: Path) -> str:
    return (folder / "password").read_text()


def _answers(port: int, password: str | None) -> bool:
    with suppress(RedisConnectionError), Redis(port=port, password=password) as connection:
        return bool(connection.ping())
    return False


def test_redis_makes_its_password_at_the_first_start(tmp_path: Path, redis_program: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with _started_redis(folder, redis_program) as (port, process):
        password = _password(folder)
        assert re.fullmatch("[0-9a-f]{64}", password)
        with pytest.raises(AuthenticationError), Redis(port=port) as connection:
            connection.ping()
        settings = Settings(_env_file=None, _secrets_dir=folder)
        assert redis_dsn(settings) == f"redis://:{password}@redis:6379/0"
        seen = (redis_program / "seen").read_text()
        assert str(folder) in seen
        assert password not in seen
        process.terminate()
        output = process.communicate(timeout=60)[0]
    assert password.encode() not in output
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"password": 0o600, "redis.conf": 0o600, "kirazuri_redis_url": 0o444}
    with _started_redis(folder, redis_program):
        assert _password(folder) == password


_AS_IN_A_CONTAINER = """
import pathlib, sys
glob = pathlib.Path.glob
def found(self, pattern):
    is_asked = (str(self), pattern) == ("/run", "kirazuri")
    return [pathlib.Path(sys.argv[1])] if is_asked else glob(self, pattern)
pathlib.Path.glob = found
from worker.settings import Settings, redis_dsn
print(redis_dsn(Settings(_env_file=None)))
"""


def test_settings_are_read_from_files_and_variables_replace_them(tmp_path: Path) -> None:
    (tmp_path / "kirazuri_redis_url").write_text("redis://:secret@redis:6379/0\n")
    command = [sys.executable, "-c", _AS_IN_A_CONTAINER, str(tmp_path)]
    read = {}
    for variables in ({}, {"KIRAZURI_REDIS_URL": "redis://other"}):
        ended = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
        )
        read[len(variables)] = ended.stdout.strip()
    assert read == {0: "redis://:secret@redis:6379/0", 1: "redis://other"}


def test_each_installation_has_another_password(tmp_path: Path, redis_program: Path) -> None:
    passwords = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        with _started_redis(folder, redis_program):
            passwords.add(_password(folder))
    assert len(passwords) == 2


def test_a_start_that_broke_off_is_repeated(tmp_path: Path, redis_program: Path) -> None:
    """Its files are only valid once the last one is there."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "password").write_text("half")
    (folder / "redis.conf").write_text("requi")
    (folder / "kirazuri_redis_url").touch()
    with _started_redis(folder, redis_program) as (port, _):
        assert _answers(port, _password(folder))


def _images() -> dict[str, str]:
    """The container images of the compose file by the variable that replaces each."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return dict(re.findall(r"\$\{([A-Z]+_IMAGE):-([^}]+)\}", text))


def test_images_have_exact_tags_and_no_invented_digests() -> None:
    images = _images()
    assert set(images) == {"PYTHON_IMAGE", "REDIS_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    for image in images.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z0-9.-]+)?", image), image
    for service in _compose("docker-compose.yml")["services"].values():
        assert ("build" in service) != ("image" in service)
        assert "image" not in service or service["image"].startswith("${")
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        ((name, image),) = re.findall(r"^ARG ([A-Z]+_IMAGE)=(.+)$", text, re.MULTILINE)
        assert image == images[name], path
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {f"${{{name}}}"}


def test_make_digests_asks_the_registry_for_every_image(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$*" >> "$LOG"\necho "sha256:$(echo "$4" | wc -c)"\n')
    docker.chmod(0o755)
    log = tmp_path / "log"
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log)}
    ended = subprocess.run(
        ["make", "-s", "digests"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = dict(line.split("=", 1) for line in ended.stdout.splitlines())
    assert printed == {
        name: f"{image}@sha256:{len(image) + 1}" for name, image in _images().items()
    }
    assert log.read_text().count("buildx imagetools inspect") == 4
    docker.write_text("#!/bin/sh\nexit 1\n")
    failed = _make_digests(variables)
    assert failed.returncode
    assert "@" not in failed.stdout


def _make_digests(variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = ["make", "-s", "digests"]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


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
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        user = "999:1000" if path.name == "redis.Dockerfile" else "10001:10001"
        assert "# syntax=" not in text
        assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == [user]
        assert "HEALTHCHECK" in text


def test_images_install_by_hash_and_torch_alone() -> None:
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        installs = re.findall(r"pip install ([^;&\n]*)", text)
        assert "extra-index" not in text.lower().replace("_", "-")
        if path.name == "redis.Dockerfile":
            assert installs == []
            continue
        *torch, rest, project = (install.split() for install in installs)
        assert rest[:3] == ["--require-hashes", "--only-binary", ":all:"]
        assert project == ["--no-build-isolation", "--no-deps", "."]
        assert bool(torch) == (path.name == "worker.Dockerfile")
        for words in torch:
            assert [word for word in words if not word.startswith("-")][1:] == [_pinned("torch")]


def test_the_image_of_the_api_keeps_what_loading_the_policy_computes(tmp_path: Path) -> None:
    """Its user writes no compiled modules, and so could not keep it at the first start."""
    text = (ROOT / "docker/api.Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^RUN python (-I -c .+)$", text, re.MULTILINE)
    assert text.index("COPY . .") < text.index(command) < text.index("COPY --from=build")
    python = [sys.executable, "-X", f"pycache_prefix={tmp_path}"]
    subprocess.run([*python, *shlex.split(command)], check=True)
    start = "from model.policy import policy, spellings; del spellings._Found; policy.load_policy()"
    subprocess.run([*python, "-I", "-B", "-c", start], check=True)


def _pinned(name: str) -> str:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if line.startswith(f"{name}=="))


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
        client.expire(redis_keys.worker_key(own), 600)  # a process on a busy machine starts slowly
        assert is_healthy()
        left = redis_keys.HEARTBEAT_TTL_SECONDS - settings.lease_seconds - 0.1
        client.pexpire(redis_keys.worker_key(own), int(1000 * left))
        assert not is_healthy()
