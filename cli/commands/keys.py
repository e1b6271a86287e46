"""`kirazuri keys`: make API keys, list them, take them back. A secret is shown once, not kept."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from cli.output import examples, fail, read_settings
from cli.service.embedded_redis import StartError, redis_of
from model.rating import Rating
from worker.auth.api_keys import ApiKey, KeyLimits, Priority, new_secret, secret_hash
from worker.auth.key_store import KeyFileError, add_key, list_keys, read_key_file, revoke_key
from worker.redis_io.client import connect
from worker.settings import Settings

app = typer.Typer(
    help="Make API keys, list them, take them back.", no_args_is_help=True, add_completion=False
)

_Name = Annotated[str, typer.Argument(help="What to call it: letters, digits, . _ -")]
_Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the embedded Redis, unless KIRAZURI_REDIS_URL is set."),
]


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
        str | None, typer.Option(help="Submissions in a span, such as 60/minute.")
    ] = None,
    quota: Annotated[
        float | None, typer.Option(help="Megapixel-steps a day; a dry run tells the cost.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs that wait or run at one time; 0 submits nothing.")
    ] = None,
    priority: Annotated[Priority, typer.Option(help="Its jobs' share of the workers.")] = "normal",
    lora: Annotated[
        list[str] | None, typer.Option(help="A LoRA that may be used; may be repeated.")
    ] = None,
    no_loras: Annotated[bool, typer.Option("--no-loras", help="No LoRA may be used.")] = False,
    resolution: Annotated[
        list[str] | None,
        typer.Option(help="A preset or WIDTHxHEIGHT that may be used; may be repeated."),
    ] = None,
    max_rating: Annotated[
        Rating | None, typer.Option(help="The highest rating of its pictures.")
    ] = None,
    toml: Annotated[
        bool, typer.Option("--toml", help="Keep nothing; print a table for KIRAZURI_KEYS_FILE.")
    ] = False,
    data: _Data = None,
) -> None:
    """Make a key and print it. It is good within seconds and cannot be shown again."""
    if no_loras and lora:
        fail("--no-loras and --lora contradict each other", 2)
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
        fail("; ".join(f"{error['loc'][-1]}: {error['msg']}" for error in exc.errors()), 2)
    if toml:
        typer.echo(_as_table(key))
        typer.echo(f"the key, which is shown only now: {secret}", err=True)
        return
    with _redis(read_settings(data_dir=data)) as client:
        if not add_key(client, key):
            fail(f"there is a key named {name}; revoke it first, or take another name")
    typer.echo(secret)
    typer.echo("keep it now: it is not shown again", err=True)


@app.command("list", epilog=examples("kirazuri keys list", "kirazuri keys list --json"))
def show(
    is_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    data: _Data = None,
) -> None:
    """List all keys with what they may do; their secrets are known to nobody here."""
    settings = read_settings(data_dir=data)
    with _redis(settings) as client:
        found = [("redis", key) for key in list_keys(client)]
    if settings.keys_file:
        try:
            found += [("file", key) for key in read_key_file(settings.keys_file)]
        except KeyFileError as exc:
            fail(str(exc))
    if is_json:
        rows = [{"id": key.id, "kept_in": place, **_shown(key)} for place, key in found]
        typer.echo(json.dumps(rows, indent=2))
        return
    for place, key in found:
        limits = key.limits.model_dump(mode="json", exclude_defaults=True)
        told = ", ".join(f"{field} {_plain(value)}" for field, value in limits.items())
        since = f"{key.created_at:%Y-%m-%d}" if key.created_at else "-"
        typer.echo(f"{key.id}  {since:10}  {place:5}  {key.name}  {told or 'no limits'}")
    if not found:
        typer.echo("there is no key", err=True)


@app.command(epilog=examples("kirazuri keys revoke alice"))
def revoke(name: _Name, data: _Data = None) -> None:
    """Take a key back: within seconds nobody can use it, nor what it made."""
    settings = read_settings(data_dir=data)
    with _redis(settings) as client:
        if not revoke_key(client, name):
            fail(f"there is no key named {name} in Redis; one of the file is taken out there")
    typer.echo(f"{name} is revoked", err=True)


@contextlib.contextmanager
def _redis(settings: Settings) -> Iterator["Redis"]:
    """The service's Redis; what goes wrong with it ends the command."""
    try:
        with redis_of(settings) as url, connect(url) as client:
            yield client
    except (StartError, RedisError, OSError) as exc:
        fail(str(exc))


def _shown(key: ApiKey) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"hash"})


def _plain(value: Any) -> str:
    return "/".join(value) or "none" if isinstance(value, list) else str(value)


def _as_table(key: ApiKey) -> str:
    """The key as TOML; JSON's strings, numbers and lists of strings are TOML's too."""
    fields = {"hash": key.hash, **key.limits.model_dump(mode="json", exclude_defaults=True)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join([f'["{key.name}"]', *lines, ""])
