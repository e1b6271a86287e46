"""The network's own forward sees every change of every LoRA, and none after its removal."""

from pathlib import Path

import pytest
import torch

from model.network.load import Components
from model.network.transformer.forward import Transformer
from tests.support.lora_switches import switch_of, use
from tests.support.lora_writer import LAYOUTS, METHODS, places, resolved, some_places, write_lora
from tests.support.random_checkpoint import CONTEXT_ROWS, WrittenCheckpoint
from tests.support.velocities import stacked_rows
from tests.support.weight_trees import library_of

CASES = [
    *((method, "comfy") for method in METHODS),
    *(("lora_down_up_alpha", layout) for layout in LAYOUTS),
]


@pytest.mark.parametrize(("method", "layout"), CASES)
def test_a_merged_lora_acts_as_in_the_library_and_its_removal_restores_every_bit(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path, method: str, layout: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 16, 1, 4, 6, generator=generator)
    sigma = torch.tensor([0.9, 0.3])
    context = torch.randn(2, CONTEXT_ROWS, 20, generator=generator)
    context[:, 11:] = 0
    at = places(written.made) if layout != "comfy" else some_places(written.made)
    at = [place for place in at if place.part == "transformer"]
    lora = resolved(write_lora(tmp_path / "a.safetensors", at, method=method, layout=layout), 0.1)
    switch = switch_of(untouched, tmp_path)
    network = Transformer(
        untouched.transformer, dtype=torch.float32, variant=lambda: switch.in_transformer
    )

    def velocity() -> torch.Tensor:
        return network.velocity(stacked_rows(network, latents, sigma, context))

    plain = velocity()
    use(switch, (lora,))
    changed = velocity()
    (expected,) = library_of(untouched.transformer)(latents, sigma, context, return_dict=False)
    use(switch, ())
    assert (changed - plain).abs().max() > 1e-3
    assert (changed - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(velocity(), plain)
