"""Puts LoRAs into a loaded checkpoint and checks all of its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.files.lora.folder import LoraFolder
from model.network.load import Components
from model.network.lora_switch import LoraSwitch
from model.resolved_request import LoraSet
from tests.support.lora_writer import Written, changed, linear
from tests.support.random_checkpoint import RandomModels


def all_weights(models: Components) -> dict[str, Tensor]:
    """Every weight of every part by name."""
    modules = {
        "transformer": models.transformer,
        "adapter": models.conditioner,
        "text_encoder": models.text_encoder,
        "vae": models.vae,
    }
    return {
        f"{part}.{name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def switch_of(models: Components, folder: Path, **options: Any) -> LoraSwitch:
    """A switch for the LoRAs of a folder."""
    files = LoraFolder(folder)
    files.refresh()
    return LoraSwitch(models, files, **options)


def use(switch: LoraSwitch, loras: LoraSet) -> None:
    """Activate the set in the text encoder and the transformer."""
    in_text, in_transformer = switch.split(loras)
    switch.use_in_text(in_text)
    switch.use_in_transformer(in_transformer)


def wrong_weights(
    models: Components, made: RandomModels, written: Written, *, strength: float
) -> list[str]:
    """The weights that are not as expected, changed or not; [] if all are right."""
    expected = {
        f"{place.part}.{place.library}.weight": changed(
            linear(made, place).weight.detach(), change, strength=strength
        )
        for place, change in written.changes.items()
    }
    originals = {
        f"{part}.{name}": tensor
        for part, module in (
            ("transformer", made.transformer),
            ("adapter", made.conditioner),
            ("text_encoder", made.text_encoder),
        )
        for name, tensor in module.state_dict().items()
    }
    wrong = []
    for name, tensor in all_weights(models).items():
        if name.startswith("vae."):
            continue
        wanted = expected.pop(name, originals[name].double())
        wanted = wanted[..., : tensor.shape[-1]]  # the mask's columns are not loaded
        is_close = torch.allclose(tensor.double(), wanted, atol=1e-6, rtol=1e-6)
        if tensor.shape != wanted.shape or not is_close:
            wrong.append(name)
    return wrong + [f"{name} does not exist" for name in expected]
