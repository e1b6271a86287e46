"""A plan as lines: everything the service knows, nothing it does not."""

from typing import Any

from cli.client.dry_run import describe
from tests.support.plans import PLAN


def lines(**changes: Any) -> dict[str, str]:
    """What is told, by its name."""
    told = [line.split("  ", 1) for line in describe({**PLAN, **changes})]
    return {name: value.strip() for name, value in told}


def test_everything_known_is_told() -> None:
    told = lines()
    assert told["prompt"] == PLAN["request"]["prompt"]
    assert told["picture"].startswith("1 of 1024x1024, 30 steps of er_sde, simple, guidance 4")
    assert told["picture"].endswith("seed drawn")
    assert told["tokens"] == "41 T5, 38 Qwen of 512"
    assert told["… negative"] == "1 T5, 0 Qwen of 512"
    assert told["queue"] == "2 before it"
    assert told["time"] == "27.3 s: 18.2 waiting, 9.1 working"
    assert told["warning"].startswith("short_prompt: ")


def test_what_is_unknown_is_left_out() -> None:
    unknown = {"prompt": None, "negative_prompt": None}
    told = lines(tokens=unknown, queue_position=None, eta_seconds=None, warnings=[])
    parts = {"prompt", "negative prompt", "picture", "repaints", "second pass", "cost"}
    assert set(told) == parts


def test_a_cut_prompt_and_a_given_seed_are_told() -> None:
    cut = {**PLAN["tokens"]["prompt"], "is_cut": True}
    told = lines(
        tokens={**PLAN["tokens"], "prompt": cut},
        request={**PLAN["request"], "seed": 0, "negative_prompt": ""},
    )
    assert told["tokens"].endswith("the end is cut")
    assert told["picture"].endswith("seed 0")
    assert told["negative prompt"] == "none"
