"""Merged weights of every LoRA layout and method equal weights computed independently."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.network.load import Components, load_components
from tests.support.lora_switches import switch_of, use, wrong_weights
from tests.support.lora_writer import (
    LAYOUTS,
    METHODS,
    changed,
    linear,
    places,
    resolved,
    some_places,
    write_lora,
)
from tests.support.random_checkpoint import WrittenCheckpoint


def test_every_layout_changes_the_expected_weights(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    wrong = {}
    for layout in LAYOUTS:
        folder = tmp_path / layout
        lora = write_lora(folder / "a.safetensors", places(written.made), layout=layout)
        switch = switch_of(untouched, folder)
        use(switch, (resolved(lora, 0.7),))
        if found := wrong_weights(untouched, written.made, lora, strength=0.7):
            wrong[layout] = found
        use(switch, ())
    assert wrong == {}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_weights_of_its_formula(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path, method: str
) -> None:
    at, wrong = some_places(written.made), {}
    for layout in ("comfy", "kohya"):
        lora = write_lora(tmp_path / layout / "a.safetensors", at, method=method, layout=layout)
        switch = switch_of(untouched, tmp_path / layout)
        for strength in (1.0, -0.6):
            use(switch, (resolved(lora, strength),))
            if found := wrong_weights(untouched, written.made, lora, strength=strength):
                wrong[layout, strength] = found
            use(switch, ())
    assert wrong == {}


def test_several_loras_add_up(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    place = next(p for p in places(written.made) if p.library.endswith("attn1.to_q"))
    first = write_lora(tmp_path / "a.safetensors", [place], seed=1)
    second = write_lora(tmp_path / "b.safetensors", [place], seed=2, method="lokr_w2_split")
    third = write_lora(tmp_path / "c.safetensors", [place], seed=3, method="dora_rows")
    switch = switch_of(untouched, tmp_path)
    use(switch, (resolved(first, 0.5), resolved(second, 2), resolved(third, -1)))
    expected = linear(written.made, place).weight.detach()
    for lora, strength in ((first, 0.5), (second, 2.0), (third, -1.0)):
        expected = changed(expected, lora.changes[place], strength=strength)
    found = untouched.transformer.get_submodule(place.library).weight
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
    use(switch, ())


def test_bfloat16_weights_are_rounded_once(written: WrittenCheckpoint, tmp_path: Path) -> None:
    models = load_components(
        written.card, written.folder, device=torch.device("cpu"), dtype=torch.bfloat16
    )
    place = next(p for p in places(written.made) if p.library.endswith("attn1.to_q"))
    lora = write_lora(tmp_path / "a.safetensors", [place])
    use(switch_of(models, tmp_path), (resolved(lora),))
    weight = models.transformer.get_parameter(f"{place.library}.weight")
    start = linear(written.made, place).weight.detach().bfloat16()
    expected = changed(start, lora.changes[place], strength=1).float().bfloat16()
    assert weight.dtype == torch.bfloat16
    torch.testing.assert_close(weight, expected, atol=0, rtol=2**-8)
    assert torch.eq(weight, expected).float().mean() > 0.99


def test_merged_weights_are_of_the_same_kind_as_others(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    """Compiled code tells tensors that were made in inference mode from all others."""
    lora = write_lora(tmp_path / "a.safetensors", places(written.made))
    switch = switch_of(untouched, tmp_path)
    with torch.inference_mode():
        use(switch, (resolved(lora, 0.7),))
        transformer: Any = untouched.transformer
        used = [*transformer.parameters(), *(b.attn1.qkv for b in transformer.transformer_blocks)]
        found = [tensor.is_inference() for tensor in used]
        use(switch, ())
    assert found == [False] * len(used)
