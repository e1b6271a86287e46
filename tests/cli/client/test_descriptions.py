"""Plans and jobs as names and values: every value that the service knows, and no others."""

from typing import Any

from cli.client.descriptions import describe_plan
from tests.support.plans import PLAN

NAME = "0" * 40 + ".png"


def lines(**changes: Any) -> dict[str, str]:
    """The printed values by label."""
    return {label: str(value) for label, value in describe_plan({**PLAN, **changes})}


def test_known_values_are_printed() -> None:
    printed = lines()
    assert printed["prompt"] == PLAN["request"]["prompt"]
    assert printed["picture"].startswith("1 of 1024x1024, 30 steps of er_sde, simple, guidance 4")
    assert printed["picture"].endswith("seed random")
    assert printed["tokens"] == "41 T5, 38 Qwen of 512"
    assert printed["… negative"] == "1 T5, 0 Qwen of 512"
    assert printed["queue"] == "2 before it"
    assert printed["time"] == "27.3 s: 18.2 waiting, 9.1 working"
    assert printed["warning"].startswith("short_prompt: ")


def test_unknown_values_are_left_out() -> None:
    unknown = {"prompt": None, "negative_prompt": None}
    printed = lines(tokens=unknown, queue_position=None, eta_seconds=None, warnings=[])
    labels = {"prompt", "negative prompt", "picture", "repaints", "second pass", "LoRA", "cost"}
    assert set(printed) == labels


def test_a_cut_prompt_and_a_given_seed_are_printed() -> None:
    cut = {**PLAN["tokens"]["prompt"], "is_cut": True}
    printed = lines(
        tokens={**PLAN["tokens"], "prompt": cut},
        request={**PLAN["request"], "seed": 0, "negative_prompt": ""},
    )
    assert printed["tokens"].endswith("the end is cut off")
    assert printed["picture"].endswith("seed 0")
    assert printed["negative prompt"] == "none"


def test_an_edit_and_a_second_pass_are_printed() -> None:
    hires = {
        "scale": 1.5, "width": 192, "height": 192, "steps": 9, "strength": 0.5,
        "upscaler": "lanczos",
    }  # fmt: skip
    request = {**PLAN["request"], "init_image": NAME, "strength": 0.6, "mask": None, "hires": hires}
    printed = lines(request=request)
    assert printed["starts from"] == f"{NAME}, strength 0.6"
    assert printed["second pass"] == "192x192 by lanczos, 9 steps, strength 0.5"
    assert lines(request={**request, "mask": NAME})["repaints"] == f"{NAME}, strength 0.6"
