"""`kirazuri keys`: makes, lists and revokes API keys. A secret is shown once and not stored."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from cli.options import AsJson, DataFolder
from cli.output import (
    USAGE_ERROR,
    command_line,
    examples,
    fail,
    note,
    print_json,
    print_table,
    read_settings,
)
from cli.service.embedded_redis import StartError, available_redis, has_redis
from model.rating import Rating
from worker.auth.api_keys import ApiKey, KeyLimits, Priority, new_secret, secret_hash
from worker.auth.key_store import KeyFileError, add_key, list_keys, read_key_file, revoke_key
from worker.redis_io.client import check_database, check_url, connect
from worker.settings import Settings

app = typer.Typer(
    help="Make, list and revoke API keys.", no_args_is_help=True, add_completion=False
)

_Name = Annotated[str, typer.Argument(help="Name of the key: letters, digits, . _ -")]

_ADVICE: dict[int | str, str] = {
    "name": "up to 64 letters without accents, digits, . _ and -, beginning with a letter or digit",
    "rate": "give a number and a time span, such as 60/minute (second, minute, hour or day)",
}
"""What to write, for limits whose pattern would say it less well."""


@app.command(
    epilog=examples(
        "kirazuri keys add alice",
        "kirazuri keys add bot --rate 60/minute --quota 20000 --concurrency 4 --priority low",
        "kirazuri keys add prometheus --concurrency 0",
        "kirazuri keys add alice --toml >> keys.toml",
    )
)
def add(
    name: _Name,
    rate: Annotated[
        str | None, typer.Option(help="Submissions per time span, such as 60/minute.")
    ] = None,
    quota: Annotated[
        float | None, typer.Option(help="Megapixel-steps per day; a dry run shows the cost.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs waiting or running at once; 0 allows none.")
    ] = None,
    priority: Annotated[Priority, typer.Option(help="Its share of the workers.")] = "normal",
    lora: Annotated[
        list[str] | None, typer.Option(help="An allowed LoRA; may be repeated.")
    ] = None,
    no_loras: Annotated[bool, typer.Option("--no-loras", help="Allow no LoRA.")] = False,
    resolution: Annotated[
        list[str] | None,
        typer.Option(help="An allowed preset or WIDTHxHEIGHT; may be repeated."),
    ] = None,
    max_rating: Annotated[Rating | None, typer.Option(help="The highest allowed rating.")] = None,
    toml: Annotated[
        bool, typer.Option("--toml", help="Print a table for KIRAZURI_KEYS_FILE; store nothing.")
    ] = False,
    is_first: Annotated[
        bool, typer.Option("--first", help="The service starts later: make its data folder.")
    ] = False,
    data: DataFolder = None,
    is_json: AsJson = False,
) -> None:
    """Make a key and print it. It is valid within seconds and cannot be shown again."""
    if (no_loras and lora) or (toml and is_json):
        pair = "--toml and --json" if toml and is_json else "--no-loras and --lora"
        fail(f"{pair} contradict each other", USAGE_ERROR)
    secret = new_secret()
    try:
        limits = KeyLimits(
            rate=rate,
            quota=quota,
            concurrency=concurrency,
            priority=priority,
            loras=() if no_loras else lora and tuple(lora),
            resolutions=resolution and tuple(resolution),
            max_rating=max_rating,
        )
        key = ApiKey(
            name=name, hash=secret_hash(secret), created_at=datetime.now(UTC), limits=limits
        )
    except ValidationError as exc:
        fail(_what_is_wrong(exc), USAGE_ERROR)
    if toml:
        typer.echo(_as_table(key))
        note(f"the key, which is not shown again: {secret}")
        return
    with _redis(read_settings(data_dir=data), may_be_new=is_first) as client:
        if not add_key(client, key):
            fail(f"a key named {name} exists; revoke it first, or choose another name")
    print_json({"key": secret, **_as_json(key)}) if is_json else typer.echo(secret)
    note("save it now: it is not shown again")


@app.command("list", epilog=examples("kirazuri keys list", "kirazuri keys list --json"))
def show(
    is_json: AsJson = False,
    data: DataFolder = None,
) -> None:
    """List all keys and their limits. Secrets are not stored, so they cannot be listed."""
    settings = read_settings(data_dir=data)
    found: list[tuple[str, ApiKey]] = []
    if has_redis(settings) or not settings.keys_file:
        with _redis(settings) as client:
            found += [("redis", key) for key in list_keys(client)]
    if settings.keys_file:
        try:
            found += [("file", key) for key in read_key_file(settings.keys_file)]
        except KeyFileError as exc:
            fail(f"KIRAZURI_KEYS_FILE: {exc}")
    if is_json:
        print_json([{**_as_json(key), "kept_in": place} for place, key in found])
        return
    print_table(("ID", "SINCE", "KEPT IN", "NAME", "LIMITS"), [_row(*one) for one in found])
    if not found:
        note("there are no keys")


@app.command(epilog=examples("kirazuri keys revoke alice"))
def revoke(name: _Name, data: DataFolder = None, is_json: AsJson = False) -> None:
    """Revoke a key. Within seconds it no longer works, and neither do links that it made."""
    settings = read_settings(data_dir=data)
    with _redis(settings) as client:
        if not revoke_key(client, name):
            fail(f"Redis has no key named {name}; edit the keys file to remove one of its keys")
        is_last = not list_keys(client) and not settings.keys_file
    if is_json:
        print_json({"name": name, "is_last": is_last})
    note(f"{name} is revoked")
    if is_last and settings.auth != "off":
        place = () if settings.redis_url else ("--data", settings.data_dir.absolute())
        again = command_line("keys", "add", "NAME", *place)
        note(f"it was the last key, and the service still requires one; this makes one: {again}")


@contextlib.contextmanager
def _redis(settings: Settings, *, may_be_new: bool = False) -> Iterator["Redis"]:
    """The service's Redis; its errors end the command, and so does a folder that has none."""
    if not has_redis(settings) and not may_be_new:
        fail(
            f"no service has run in {settings.data_dir.absolute()}; name the service's folder "
            "with --data, or its Redis in KIRAZURI_REDIS_URL. "
            "For a service that is yet to be started: kirazuri keys add NAME --first"
        )
    try:
        with available_redis(settings) as url, _connected(url) as client:
            yield client
    except (StartError, RedisError, OSError) as exc:
        fail(str(exc))


def _connected(url: str) -> "Redis":
    try:
        check_url(url)
        check_database(url)
    except ValueError as exc:
        fail(str(exc))
    return connect(url)


def _row(place: str, key: ApiKey) -> list[object]:
    limits = key.limits.model_dump(mode="json", exclude_defaults=True)
    shown = ", ".join(f"{field} {_plain(value)}" for field, value in limits.items())
    since = f"{key.created_at:%Y-%m-%d}" if key.created_at else "-"
    return [key.id, since, place, key.name, shown or "no limits"]


def _what_is_wrong(exc: ValidationError) -> str:
    """The wrong limits, and how they are written."""
    places = [(error["loc"][-1], error["msg"]) for error in exc.errors()]
    return "; ".join(f"{name}: {_ADVICE.get(name, message)}" for name, message in places)


def _as_json(key: ApiKey) -> dict[str, Any]:
    return {"id": key.id, **key.model_dump(mode="json", exclude={"hash"})}


def _plain(value: Any) -> str:
    return "/".join(value) or "none" if isinstance(value, list) else str(value)


def _as_table(key: ApiKey) -> str:
    """The key as TOML. Strings, numbers and lists are written as in JSON, which TOML accepts."""
    fields = {"hash": key.hash, **key.limits.model_dump(mode="json", exclude_defaults=True)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join([f'["{key.name}"]', *lines, ""])
