"""`kirazuri keys`: output, stored keys, and the choice of the Redis."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from cli.commands.up import keys_command
from cli.main import app
from cli.service.embedded_redis import StartError, available_redis, lock_folder
from tests.support.cli import kirazuri
from worker.auth.api_keys import secret_hash
from worker.auth.key_store import KEYS, list_keys, read_key_file
from worker.redis_io import server as redis_server
from worker.settings import Settings


def keys(*arguments: str, url: str | None = None) -> Any:
    """The command in this process, with this Redis."""
    return CliRunner().invoke(app, ["keys", *arguments], env={"KIRAZURI_REDIS_URL": url})


def test_a_key_is_made_listed_and_revoked(redis_url: str) -> None:
    added = keys(
        "add", "alice", "--rate", "60/minute", "--quota", "5000", "--concurrency", "4",
        "--priority", "high", "--lora", "hats", "--lora", "watercolor", "--resolution", "square",
        "--max-rating", "sensitive", url=redis_url,
    )  # fmt: skip
    assert added.exit_code == 0, added.output
    secret = added.stdout.strip()
    assert "not shown again" in added.stderr
    assert secret not in added.stderr
    with Redis.from_url(redis_url) as client:
        (key,) = list_keys(client)
        assert secret not in repr(client.hgetall(KEYS))
    assert key.hash == secret_hash(secret)
    assert key.limits.loras == ("hats", "watercolor")
    assert (key.limits.priority, key.limits.max_rating) == ("high", "sensitive")

    listed = keys("list", url=redis_url).stdout
    assert "alice" in listed
    assert "rate 60/minute, quota 5000.0, concurrency 4, loras hats/watercolor" in listed
    listed_keys = json.loads(keys("list", "--json", url=redis_url).stdout)
    assert (listed_keys[0]["id"], listed_keys[0]["kept_in"]) == (key.id, "redis")
    assert key.hash not in json.dumps(listed_keys)

    again = keys("add", "alice", url=redis_url)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "a key named alice exists" in again.stderr
    assert keys("revoke", "alice", url=redis_url).exit_code == 0
    gone = keys("revoke", "alice", url=redis_url)
    assert (gone.exit_code, "no key named alice" in gone.stderr) == (1, True)
    assert "no key" in keys("list", url=redis_url).stderr
    made = json.loads(keys("add", "bob", "--json", url=redis_url).stdout)
    with Redis.from_url(redis_url) as client:
        (key,) = list_keys(client)
    assert (made["id"], secret_hash(made["key"]), "hash" in made) == (key.id, key.hash, False)
    revoked = json.loads(keys("revoke", "bob", "--json", url=redis_url).stdout)
    assert revoked == {"name": "bob", "is_last": True}


def test_a_table_for_the_file(tmp_path: Path) -> None:
    made = keys("add", "a.b", "--toml", "--no-loras", "--quota", "2.5")
    assert made.exit_code == 0, made.output
    file = tmp_path / "keys.toml"
    file.write_text(made.stdout)
    (key,) = read_key_file(file)
    assert (key.name, key.limits.loras, key.limits.quota) == ("a.b", (), 2.5)
    assert key.hash == secret_hash(made.stderr.split()[-1])
    assert tomllib.loads(made.stdout)["a.b"].keys() == {"hash", "loras", "quota"}
    listed = CliRunner().invoke(
        app,
        ["keys", "list", "--data", str(tmp_path / "data")],
        env={"KIRAZURI_KEYS_FILE": str(file)},
    )
    assert listed.stdout.split("\n")[1].split()[:4] == [key.id, "-", "file", "a.b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "fast"], "rate: give a number and a time span, such as 60/minute"),
        (["--concurrency", "-1"], "concurrency: "),
        (["--lora", "a", "--no-loras"], "contradict"),
        (["--priority", "urgent"], "priority"),
    ],
)
def test_a_wrong_limit_is_named(options: list[str], message: str) -> None:
    run = keys("add", "alice", *options)
    assert (run.exit_code, run.stdout) == (2, "")
    assert message in run.stderr


def test_without_a_running_service_the_data_folder_is_enough(tmp_path: Path) -> None:
    data = ["--data", str(tmp_path / "data")]
    added = kirazuri("keys", "add", "alice", "--first", *data, folder=tmp_path)
    assert added.returncode == 0, added.stderr
    assert f"no service runs in {tmp_path / 'data'}" in added.stderr
    assert "alice" in kirazuri("keys", "list", *data, folder=tmp_path).stdout
    assert redis_server.running_url(tmp_path / "data" / "redis") is None, "it is stopped again"


@pytest.mark.parametrize("command", [("add", "alice"), ("list",), ("revoke", "alice")])
def test_a_folder_without_a_service_is_an_error_and_stays_empty(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "absent", tmp_path / "empty"):
        run = keys(*command, "--data", str(data))
        assert (run.exit_code, run.stdout) == (1, ""), data
        assert f"no service has run in {data}; name the service's folder with --data" in run.stderr
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_revoking_the_last_key_says_that_one_is_still_required(redis_url: str) -> None:
    for name in ("alice", "bob"):
        assert keys("add", name, url=redis_url).exit_code == 0
    assert "last key" not in keys("revoke", "alice", url=redis_url).stderr
    assert "still requires one; this makes one: kirazuri keys add NAME" in (
        keys("revoke", "bob", url=redis_url).stderr
    )


def test_the_command_that_makes_a_key_fits_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Settings(_env_file=None, data_dir="my data")
    assert keys_command(here) == f"kirazuri keys add NAME --data '{tmp_path}/my data'"
    elsewhere = Settings(_env_file=None, redis_url="redis://:secret@art.example/0")
    assert keys_command(elsewhere) == "kirazuri keys add NAME (with the same KIRAZURI_REDIS_URL)"
    program = tmp_path / "bin/kirazuri"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", ["bin/kirazuri"])
    assert keys_command(elsewhere).startswith(f"{program} keys add NAME")
    monkeypatch.setenv("PATH", str(program.parent))
    assert keys_command(elsewhere).startswith("kirazuri keys add NAME")


def test_the_running_redis_of_the_folder_is_used(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    server = redis_server.start(tmp_path / "redis")
    try:
        with lock_folder(tmp_path / "redis"), available_redis(settings) as url:
            assert url == server.url
    finally:
        server.stop()
    with (
        lock_folder(tmp_path / "redis"),
        pytest.raises(StartError, match="another"),
        available_redis(settings),
    ):
        pass


@pytest.mark.parametrize("url", ["garbage", "redis://host:port", "http://host"])
def test_a_redis_url_that_is_none_is_an_error(url: str) -> None:
    run = keys("list", url=url)
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: KIRAZURI_REDIS_URL cannot be read: ")


@pytest.mark.parametrize("name", ["a b", "ü", "", ".a", "a" * 65])
def test_a_wrong_name_is_answered_with_what_a_name_is(name: str) -> None:
    run = keys("add", name, "--toml")
    assert run.exit_code == 2
    assert run.stderr.startswith("error: name: up to 64 letters without accents, digits")


def test_an_unreachable_redis_is_an_error() -> None:
    run = keys("list", url="redis://127.0.0.1:9")
    assert run.exit_code == 1
    assert run.stderr.startswith("error: ")
    assert "Traceback" not in run.stderr


def test_a_redis_url_that_breaks_its_client_is_told(redis_url: str) -> None:
    for query, told in (("retry=x", "cannot be read: "), ("db=9999", "names a database that its ")):
        run = keys("list", url=f"{redis_url}?{query}")
        assert (run.exit_code, run.stdout) == (1, "")
        assert run.stderr.startswith(f"error: KIRAZURI_REDIS_URL {told}")
