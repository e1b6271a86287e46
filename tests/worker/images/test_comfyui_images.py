"""ComfyUI files as people bring them: nodes of extensions are read, or noted by field."""

from typing import Any

import pytest

from tests.support.foreign_images import FIELD_IMAGES, imported

EXPECTED: dict[str, Any] = {
    "prompt": "1girl, red hair",
    "negative_prompt": "lowres",
    "seed": 42,
    "steps": 20,
    "cfg_scale": 4.5,
    "sampler": "er_sde",
    "scheduler": "simple",
    "resolution": "832x1216",
}
WLOP = [{"name": "style/wlop", "weight": 0.8}]
INPUT_PARAMETERS = {
    "seed": 15,
    "steps": 8,
    "cfg_scale": 4.5,
    "sampler": "euler",
    "scheduler": "beta",
    "resolution": "128x128",
}
CONFIG = {"steps": 28, "cfg_scale": 5.0, "sampler": "euler", "scheduler": "normal"}
TAGGED = {"prompt": "1girl", "resolution": "128x128"}


@pytest.mark.parametrize(
    ("name", "changes", "notes"),
    [
        ("wf-inputparams-small", INPUT_PARAMETERS, []),
        ("wf-ksconfig", CONFIG, []),
        ("wf-stringreplace", {"prompt": "1girl, blue hair"}, []),
        ("wf-concat", {"prompt": "masterpiece, 1girl, red hair"}, []),
        ("wf-reroute", {}, []),
        ("wf-powerlora", {"loras": WLOP}, []),
        ("wf-craspect", {}, []),
        ("wf-usdu", {}, ["node UltimateSDUpscale: left out; it runs after the first pass"]),
        ("wf-loratag", TAGGED, ["<lora:foo:0.8>: left out; it had no effect"]),
    ],
)
def test_files_of_comfyui(name: str, changes: dict[str, Any], notes: list[str]) -> None:
    found = imported(FIELD_IMAGES / f"{name}.png")
    assert found.fields == EXPECTED | changes
    assert found.notes == notes
