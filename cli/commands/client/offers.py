"""`kirazuri capabilities`, `models`, `loras`, `tags` and `queue`: what a service has."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from cli.client import api
from cli.client.descriptions import age
from cli.client.errors import ClientError, exit_on_error
from cli.client.progress import duration
from cli.commands.client.service_option import FROM_SETTINGS, Url
from cli.options import AsJson
from cli.output import AWAY, examples, note, print_fields, print_json, print_table

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("kirazuri capabilities", "kirazuri capabilities --json"))
def capabilities(url: Url = FROM_SETTINGS, is_json: AsJson = False) -> None:
    """List what requests may ask for: presets, samplers, schedulers, limits and defaults.

    Recommended ones have a star.
    """
    with exit_on_error():
        offered = api.capabilities(url)
    if is_json:
        print_json(offered)
        return
    print_fields(_capability_fields(offered))
    rows = [
        [
            f"{sampler['name']}{'*' if sampler['is_recommended'] else ''}",
            sampler["default_steps"],
            "{}-{}".format(*sampler["recommended_steps"]),
            ", ".join(option["name"] for option in sampler["options"]),
            sampler["note"],
        ]
        for sampler in offered["samplers"]
    ]
    typer.echo()
    print_table(("SAMPLER", "STEPS", "ADVISED", "OPTIONS", "NOTE"), rows)


def _capability_fields(offered: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "checkpoint", f"{offered['title']}: {offered['summary']}"
    yield "licence", offered["licence"]["name"]
    defaults, limits, features = offered["defaults"], offered["limits"], offered["features"]
    yield "defaults", ", ".join(f"{name} {value}" for name, value in defaults.items() if value)
    for preset in offered["resolutions"]:
        yield "preset", f"{preset['name']} {preset['width']}x{preset['height']}"
    yield (
        "sizes",
        f"{limits['min_side']} to {limits['max_side']} a side in steps of {limits['multiple']}, "
        f"at most {limits['max_pixels']:,} pixels",
    )
    yield (
        "limits",
        f"{limits['max_steps']} steps, guidance {limits['max_cfg_scale']:g}, "
        f"{limits['max_images']} images, prompts of {limits['max_prompt_chars']} characters",
    )
    yield (
        "schedulers",
        ", ".join(
            f"{one['name']}{'*' if one['is_recommended'] else ''}" for one in offered["schedulers"]
        ),
    )
    yield "qualities", ", ".join(one["name"] for one in offered.get("qualities", ()))
    yield "formats", ", ".join(offered["formats"])
    yield "features", ", ".join(name for name, value in features.items() if value is True)
    yield "LoRAs", f"{len(offered['loras'])}; `kirazuri loras` lists them"
    yield "workers", f"{len(offered['workers'])}; `kirazuri queue` lists them"


@app.command(epilog=examples("kirazuri models"))
def models(url: Url = FROM_SETTINGS, is_json: AsJson = False) -> None:
    """List the checkpoints of a service, with the names by which OpenAI's API may call them."""
    with exit_on_error():
        offered = api.capabilities(url)
        names = api.model_names(url)
    warm = sum(worker["is_warm"] for worker in offered["workers"])
    found = {
        **{name: offered[name] for name in ("name", "title", "version", "base_model")},
        "licence": offered["licence"]["name"],
        "names": names,
        "workers": warm,
    }
    if is_json:
        print_json([found])
        return
    heads = ("NAME", "TITLE", "VERSION", "BASE", "WORKERS", "LICENCE")
    fields = ("name", "title", "version", "base_model", "workers", "licence")
    print_table(heads, [[found[field] for field in fields]])


@app.command(epilog=examples("kirazuri loras", "kirazuri loras --json"))
def loras(url: Url = FROM_SETTINGS, is_json: AsJson = False) -> None:
    """List the LoRAs of a service, and the refused files with the reason.

    With --json: an object with `loras` and `refused_loras`, as in /capabilities.
    """
    with exit_on_error():
        offered = api.capabilities(url)
    kinds = ("loras", "refused_loras")
    if is_json:
        print_json({kind: offered[kind] for kind in kinds})
        return
    rows: list[list[object]] = [
        [
            one["name"],
            f"{one['method']}{' ' + str(one['rank']) if one['rank'] else ''}",
            one["base"] or "-",
            ", ".join(one["trigger_words"]) or "-",
            one["warning"] or "",
        ]
        for one in offered["loras"]
    ]
    rows += [[one["name"], "refused", "-", "-", one["reason"]] for one in offered["refused_loras"]]
    print_table(("LORA", "METHOD", "BASE", "TRIGGERS", "NOTE"), rows)
    if not rows:
        note(
            "the service has no LoRAs; KIRAZURI_LORA_DIR or `kirazuri up --lora-dir` names a folder"
        )


@app.command(epilog=examples("kirazuri tags 'long h'", "kirazuri tags blue --limit 5 --json"))
def tags(
    prefix: Annotated[str, typer.Argument(help="How the tag, or an alias of it, begins.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    url: Url = FROM_SETTINGS,
    is_json: AsJson = False,
) -> None:
    """Complete a tag, by frequency."""
    with exit_on_error():
        found = api.tags(prefix, limit=limit, url=url)
    if is_json:
        print_json(found)
        return
    rows = [
        [tag["tag"], tag["category"] or "-", tag["count"] or "-", tag["alias_of"] or ""]
        for tag in found
    ]
    print_table(("TAG", "CATEGORY", "COUNT", "ALIAS OF"), rows)
    if not rows:
        note("no tag begins like this")


@app.command(epilog=examples("kirazuri queue", "kirazuri queue --json"))
def queue(url: Url = FROM_SETTINGS, is_json: AsJson = False) -> None:
    """Show the queue: its length, the workers and their pace, and how long a new job would take.

    The exit code is 5 if jobs are not carried out now.
    """
    with exit_on_error():
        offered = api.capabilities(url)
        state = _queue_state(url, offered)
    if is_json:
        print_json(state)
    else:
        _print_queue(state)
    if state["reasons"]:
        raise typer.Exit(AWAY)


def _queue_state(url: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    values = _metric_values(api.metrics(url))
    workers = []
    for worker in offered["workers"]:
        name = worker["name"]
        steps, seconds = values.get(("steps", name), 0.0), values.get(("busy", name), 0.0)
        pace = round(steps / seconds, 2) if seconds else None
        workers.append({**worker, "steps_per_second": pace})
    try:
        plan = api.dry_run({"prompt": offered["prompting"]["example"]}, url=url)
    except ClientError:  # a key that may submit nothing, or a policy that refuses the example
        plan = {"waiting_seconds": None, "own_seconds": None}
    reasons, warnings = api.readiness(url)
    return {
        "reasons": reasons,
        "warnings": warnings,
        "waiting": _whole(values.get(("waiting", ""))),
        "limit": _whole(values.get(("limit", ""))),
        "running": _whole(values.get(("running", ""))),
        "oldest_seconds": values.get(("oldest", "")),
        "next_waits_seconds": plan["waiting_seconds"],
        "picture_seconds": plan["own_seconds"],
        "workers": workers,
    }


_METRICS = {
    "kirazuri_queue_depth": "waiting",
    "kirazuri_queue_limit": "limit",
    "kirazuri_queue_oldest_seconds": "oldest",
    "kirazuri_jobs_running": "running",
    "kirazuri_engine_steps_total": "steps",
    "kirazuri_engine_busy_seconds_total": "busy",
}


def _metric_values(text: str) -> dict[tuple[str, str], float]:
    """The metrics that this command shows, by what they are and by worker."""
    # Imported here: no other command needs it.
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (_METRICS[sample.name], sample.labels.get("worker", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in _METRICS
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _waiting(state: Mapping[str, Any]) -> str | None:
    """The length of the queue; None if Redis does not answer."""
    waiting = state["waiting"]
    return None if waiting is None else f"{waiting} of at most {state['limit']} jobs"


def _print_queue(state: Mapping[str, Any]) -> None:
    print_fields(
        [
            *(("not ready", reason) for reason in state["reasons"]),
            *(("warning", text) for text in state["warnings"]),
            ("waiting", _waiting(state)),
            ("running", state["running"]),
            ("oldest waits", duration(state["oldest_seconds"]) if state["waiting"] else None),
        ]
    )
    if state["picture_seconds"] is not None:
        print_fields(
            [
                ("a new job", f"waits about {duration(state['next_waits_seconds'])}"),
                ("a picture", f"takes about {state['picture_seconds']:.3g} s, by the defaults"),
            ]
        )
    rows = [
        [
            worker["name"],
            "warm" if worker["is_warm"] else "not ready",
            worker["running"],
            "-" if worker["steps_per_second"] is None else worker["steps_per_second"],
            f"{age(worker['seen_at'])} ago",
            f"{worker['device']}, {worker['precision']}",
        ]
        for worker in state["workers"]
    ]
    typer.echo()
    print_table(("WORKER", "STATE", "JOBS", "STEPS/S", "SEEN", "DEVICE"), rows)
    if not rows:
        note("no worker is up")
