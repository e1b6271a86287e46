"""Weights merged with `oft_R` equal those that peft and OneTrainer computed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.files.lora.folder import read_lora
from model.files.lora.plan import plan_changes
from model.files.lora.targets import LoraTarget, stem_table
from model.network.lora_merge import MergeInput, merge_files
from tests.support.lora_agreement import MAX_ERRORS
from tests.support.paths import DATA

CASES = json.loads((DATA / "oft_rotations.json").read_text(encoding="utf-8"))["cases"]


def merged(folder: Path, case: dict[str, Any], dtype: torch.dtype, strength: float) -> torch.Tensor:
    """The case's weight after the service has merged the file."""
    config = case["config"]
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    path = folder / "adapter_model.safetensors"
    metadata = None if config else {"ot_branch": "master"}
    save_file(
        {key: torch.tensor(numbers) for key, numbers in case["tensors"].items()}, path, metadata
    )
    start = torch.tensor(case["start"], dtype=dtype)
    layer = nn.Linear(start.shape[1], start.shape[0], bias=False, dtype=dtype)
    layer.weight.data = start
    name = "e" if any(".e." in key for key in case["tensors"]) else "q"
    target = LoraTarget("transformer", name, name, (start.shape[0], start.shape[1]))
    plan = plan_changes(read_lora(path), stem_table([target]))
    files = [MergeInput(path, plan.changes, strength)]
    return merge_files(files, {target: layer}, mask_columns=None, dtype=dtype)[layer, "weight"]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_merged_weights_equal_those_of_the_writers(number: int, tmp_path: Path) -> None:
    case = CASES[number]
    start, whole = np.array(case["start"]), np.array(case["merged"])
    assert np.abs(whole - start).max() > 0.1
    for dtype, limit in MAX_ERRORS.items():
        for strength in (1.0, -0.5, 2.0, 0.0):
            found = merged(tmp_path, case, dtype, strength).double().numpy()
            wanted = start + strength * (whole - start)
            assert np.abs(found - wanted).max() <= limit * np.abs(wanted).max(), (dtype, strength)
