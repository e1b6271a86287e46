"""Wrong values: each is refused at the start, with its variable and its limit, but no secret."""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from api import server
from api.webhooks import sender
from tests.support.cli import kirazuri_inline
from tests.support.paths import ROOT
from worker.runtime import main as worker
from worker.settings import Settings
from worker.wrong_settings import WrongSettings, limits_of, read_settings

NUMBERS = {
    name: field
    for name, field in Settings.model_fields.items()
    if field.annotation in (int, float, int | None)
}

FITTING = {
    "lease_seconds": {"heartbeat_seconds": "0.1"},
    "heartbeat_seconds": {"lease_seconds": "86400"},
}


def refusal(name: str, value: str) -> str | None:
    """The message about a value, None if it is accepted."""
    try:
        read_settings(_env_file=None, **FITTING.get(name, {}), **{name: value})
    except WrongSettings as exc:
        return str(exc)
    return None


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300", "-1e300", "9" * 12, "x", "1 s"])
def test_no_number_is_accepted_without_limits(value: str) -> None:
    assert len(NUMBERS) > 30
    for name, field in NUMBERS.items():
        if name == "max_head_bytes" or (name.endswith("_bytes") and value == "9" * 12):
            continue
        kind = "a number" if field.annotation is float else "a whole number"
        assert refusal(name, value) == (
            f"KIRAZURI_{name.upper()} is {value!r}, but it must be {kind}, {limits_of(field)}"
        )


def test_the_limits_in_the_documentation_are_those_of_the_code() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    for name in NUMBERS:
        row = re.search(
            rf"^\| `KIRAZURI_{name.upper()}` \|[^|]*\| at least ([\d.]+), at most (\d+) ",
            page,
            re.MULTILINE,
        )
        assert row, name
        least, most = row.groups()
        assert refusal(name, least) is None, name
        assert refusal(name, f"{float(least) - 0.001}" if "." in least else f"{int(least) - 1}"), (
            name
        )
        assert refusal(name, most) is None, name
        assert refusal(name, f"{int(most) + 1}"), name
    for name, field in Settings.model_fields.items():
        for choice in re.findall("`(.+?)`", limits_of(field)):
            assert refusal(name, choice) is None


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("max_rating", "all", "is 'all', but it must be one of safe, sensitive, nsfw, explicit"),
        ("require_mark", "maybe", "is 'maybe', but it must be true or false"),
        ("max_queue", "hidden-" * 5, "must be a whole number, at least 1, at most 1000000"),
        ("store", "s3://hidden:hidden@bucket", "must be local or s3://bucket/prefix"),
        ("device", "cuda:hidden", "must be auto, cpu, cuda or"),
        ("listen", "hidden", "must be host:port"),
        ("listen", "a:65536", "must be host:port"),
        ("s3_endpoint", "http://u:hid/den@127.0.0.1", "must be like https://art.example"),
        ("s3_endpoint", "http://u:hidden@127.0.0.1", "without user, password"),
        ("s3_public_endpoint", "https://h:99999", "must be like https://art.example"),
        ("public_url", "hidden", "must be like https://art.example"),
        ("public_url", "https://", "must be like https://art.example"),
        ("public_url", "https://a/hid den", "must be like https://art.example"),
        ("s3_region", "hidden/hidden", "must be like eu-central-1"),
        ("s3_access_key_id", "hiddenö", "has spaces or characters that are not ASCII"),
        ("s3_secret_access_key", "hid den", "has spaces or characters that are not ASCII"),
        ("cors_origins", "https://a, https://u:hidden@b", "not an origin, number 2: "),
        ("allowed_hosts", "hidden:80", "not a host, number 1: "),
        ("webhook_networks", "10.0.0.0/8,hidden", "not a network, number 2: "),
        ("openai_models", "hidden\x1b", "has characters that cannot be shown"),
        ("openai_models", "hidden\udcff", "has characters that cannot be shown"),
        ("webhook_secret", "hidden", "must be whsec_ and base64"),
        ("webhook_retry_seconds", "5,,5", "must be numbers with commas between them"),
        ("webhook_retry_seconds", "5,", "must be numbers with commas between them"),
        ("webhook_retry_seconds", "5,hidden", "must be numbers with commas between them"),
        ("webhook_retry_seconds", "nan", "each at least 0, in total at most 518400"),
        ("webhook_retry_seconds", "5,inf", "each at least 0, in total at most 518400"),
        ("webhook_retry_seconds", "5,-1", "each at least 0, in total at most 518400"),
    ],
)
def test_the_message_names_the_variable_and_shows_no_text(name: str, value: str, told: str) -> None:
    message = refusal(name, value)
    assert message
    assert message.startswith(f"KIRAZURI_{name.upper()} ")
    assert told in message
    assert "hid" not in message
    assert "den" not in message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("listen", ["127.0.0.1:8000", "8000", ":8000", "::1:8000", "[::1]:80", "0.0.0.0:80"]),
        ("s3_endpoint", ["http://127.0.0.1:9000", "https://s3.example.org/", "http://my_s3:9000"]),
        ("public_url", ["https://art.example", "https://Art.example:443/a/b/", "http://[::1]:80"]),
        ("store", ["local", "s3://bucket", "s3://bucket/some/prefix/"]),
        ("device", ["auto", "cpu", "cuda", "cuda:1"]),
        ("webhook_retry_seconds", [",", "0", "5, 300"]),
        ("s3_region", ["auto", "eu-central-1"]),
    ],
)
def test_usual_values_are_accepted(name: str, values: list[str]) -> None:
    assert [refusal(name, value) for value in values] == [None] * len(values)


def test_every_wrong_value_is_named() -> None:
    with pytest.raises(WrongSettings) as raised:
        read_settings(_env_file=None, max_queue="0", auth="on")
    assert str(raised.value) == (
        "KIRAZURI_MAX_QUEUE is '0', but it must be a whole number, at least 1, at most 1000000; "
        "KIRAZURI_AUTH is 'on', but it must be one of auto, required, off"
    )


def test_settings_that_do_not_go_together_are_told_by_their_names() -> None:
    with pytest.raises(WrongSettings) as raised:
        read_settings(_env_file=None, heartbeat_seconds="3")
    assert str(raised.value) == (
        "KIRAZURI_HEARTBEAT_SECONDS is 3, but it must be at most a third of "
        "KIRAZURI_LEASE_SECONDS, which is 6"
    )


def test_an_empty_file_of_a_container_is_as_if_absent(tmp_path: Path) -> None:
    """As an empty variable is; spaces and the end of the line do not count."""
    for number, name in enumerate(Settings.model_fields):
        (tmp_path / f"kirazuri_{name}").write_text("" if number % 2 else " \n")
    found = read_settings(_env_file=None, _secrets_dir=tmp_path)
    assert found == Settings.model_construct()
    (tmp_path / "kirazuri_max_queue").write_text(" 7\n")
    assert read_settings(_env_file=None, _secrets_dir=tmp_path).max_queue == 7


def test_spaces_around_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIRAZURI_S3_SECRET_ACCESS_KEY", "key\r\n")
    monkeypatch.setenv("KIRAZURI_CARD", "  ")
    settings = read_settings(_env_file=None)
    assert settings.s3_secret_access_key
    assert settings.s3_secret_access_key.get_secret_value() == "key"
    assert settings.card == "kirazuri-tiny"


@pytest.mark.parametrize(
    "variables",
    [
        {"LEASE_SECONDS": "inf"},
        {"MAX_RATING": "all", "MAX_QUEUE": "-1"},
        {"HEARTBEAT_SECONDS": "5"},
        {"S3_ENDPOINT": "http://u:hid/den@127.0.0.1:1"},
        {"CORS_ORIGINS": "https://u:hidden@art.example"},
    ],
)
def test_api_worker_sender_and_up_say_the_same(
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {f"KIRAZURI_{name}": value for name, value in variables.items()}
    up = kirazuri_inline("up", "--port", "0", folder=tmp_path, **given)
    assert up.returncode == 1
    assert up.stderr.startswith("error: KIRAZURI_")
    assert "hid" not in up.stderr
    monkeypatch.chdir(tmp_path)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert refusals_at_start(monkeypatch, capsys) == {up.stderr}


def refusals_at_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> set[str]:
    """What API, worker and sender of webhooks say when their start ends."""
    monkeypatch.setattr(sys, "argv", ["program"])
    starts: list[Callable[[], None]] = [partial(server.main, []), sender.main, worker.main]
    told = set()
    for start in starts:
        with pytest.raises(SystemExit) as ended:
            start()
        assert ended.value.code == 2
        told.add(capsys.readouterr().err)
    return told


def test_a_database_that_the_server_does_not_have_ends_the_start(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIRAZURI_REDIS_URL", f"{redis_url}?db=9999")
    assert refusals_at_start(monkeypatch, capsys) == {
        "error: KIRAZURI_REDIS_URL names a database that its server does not have: "
        "DB index is out of range\n"
    }


@pytest.mark.parametrize("option", ["retry", "encoding", "connection_class"])
def test_an_option_of_the_url_that_breaks_its_client_ends_the_start(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIRAZURI_REDIS_URL", f"redis://:hidden@127.0.0.1:1?{option}=hidden")
    (told,) = refusals_at_start(monkeypatch, capsys)
    assert told.startswith("error: KIRAZURI_REDIS_URL cannot be read: ")
    assert "hid" not in told
