"""Switching LoRAs: cached sets, the two parts of the model, and refused files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.errors import LoraChanged, LoraMissing, LoraUnusable
from model.files.lora.folder import LoraFolder
from model.network.load import Components
from model.network.lora_merge import MergedValues
from model.network.lora_switch import LoraSwitch, MergedSets
from model.network.text.encoder import TextEncoder
from model.network.transformer.float8 import float8_of, float8_places, keep_float8, quantised
from model.resolved_request import LoraSet, ResolvedLora
from tests.support.lora_switches import all_weights, switch_of, use, wrong_weights
from tests.support.lora_writer import (
    Place,
    places,
    resolved,
    some_places,
    write_lora,
)
from tests.support.random_checkpoint import WrittenCheckpoint


def test_switching_swaps_pointers_and_caches_the_latest_sets(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    at = some_places(written.made)
    a, b, c = (
        (resolved(write_lora(tmp_path / f"{name}.safetensors", at, seed=ord(name))),)
        for name in "abc"
    )
    switch = switch_of(untouched, tmp_path, cached_sets=2)

    def pointers(loras: LoraSet) -> list[int]:
        use(switch, loras)
        return [tensor.data_ptr() for tensor in all_weights(untouched).values()]

    plain, with_a, with_b = pointers(()), pointers(a), pointers(b)
    assert plain != with_a != with_b
    assert switch.is_merged(a)
    assert switch.is_merged(b)
    assert (pointers(()), pointers(a), pointers(b)) == (plain, with_a, with_b)
    kept = all_weights(untouched)  # alive, so that no new weight can take an old one's place
    assert pointers(c) != with_a
    assert not switch.is_merged(a)
    assert switch.is_merged(b)
    assert pointers(a) != with_a
    assert kept
    assert pointers(()) == plain


def test_a_cache_of_one_set_is_enough(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    at = some_places(written.made)
    first, second = (write_lora(tmp_path / f"{n}.safetensors", at, seed=n) for n in (1, 2))
    switch = switch_of(untouched, tmp_path, cached_sets=1)
    for lora in (first, second, first):
        use(switch, (resolved(lora),))
        assert wrong_weights(untouched, written.made, lora, strength=1) == []
    use(switch, ())


def test_loras_are_split_by_the_part_that_they_change(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    by_part = {
        part: [place for place in some_places(written.made) if place.part == part]
        for part in ("transformer", "adapter", "text_encoder")
    }
    loras = {
        part: resolved(write_lora(tmp_path / f"{part}.safetensors", at))
        for part, at in by_part.items()
    }
    everything = resolved(write_lora(tmp_path / "all.safetensors", some_places(written.made)))
    switch = switch_of(untouched, tmp_path)
    assert switch.split((*loras.values(), everything)) == (
        (loras["adapter"], loras["text_encoder"], everything),
        (loras["transformer"], everything),
    )
    nothing = loras["transformer"].model_copy(update={"weight": 0.0})
    assert switch.split((nothing,)) == ((), ())


def test_encoded_prompts_are_cached_per_set(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    at = [place for place in some_places(written.made) if place.part == "adapter"]
    loras = (resolved(write_lora(tmp_path / "a.safetensors", at)),)
    switch = switch_of(untouched, tmp_path)
    text = TextEncoder(untouched, written.card.text)
    plain = text.encode("1girl, red hair", variant=switch.in_text)
    switch.use_in_text(loras)
    other = text.encode("1girl, red hair", variant=switch.in_text)
    assert (other.context - plain.context).abs().max() > 0.01
    assert text.encode("1girl, red hair", variant=switch.in_text) is other
    switch.use_in_text(())
    assert text.encode("1girl, red hair", variant=switch.in_text) is plain


def test_missing_changed_and_unusable_files_are_refused(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    at = some_places(written.made)
    lora = resolved(write_lora(tmp_path / "a.safetensors", at))
    switch = switch_of(untouched, tmp_path)
    with pytest.raises(LoraMissing, match="there is no LoRA b"):
        switch.split((lora.model_copy(update={"name": "b"}),))
    switch.split((lora,))
    write_lora(tmp_path / "a.safetensors", at, seed=5)
    with pytest.raises(LoraChanged, match=lora.sha256[:12]):
        switch.split((lora,))
    with pytest.raises(LoraChanged):
        switch.use_in_transformer((lora,))
    stray = Place("transformer", "nowhere", "blocks.1.nowhere", (4, 4))
    lora = resolved(write_lora(tmp_path / "c.safetensors", [*at, stray]))
    with pytest.raises(LoraUnusable, match=r"LoRA c matches nothing .*lora_unet_blocks_1_nowhere"):
        switch.split((lora,))
    (tmp_path / "c.safetensors").unlink()
    with pytest.raises(LoraMissing):
        switch.split((lora,))
    with pytest.raises(LoraMissing):
        LoraSwitch(untouched, LoraFolder(None)).split((lora,))


def test_weights_that_are_not_finite_leave_the_model_unchanged(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    place = next(p for p in places(written.made) if p.library.endswith("attn1.to_q"))
    good = resolved(write_lora(tmp_path / "good.safetensors", [place]))
    lora = write_lora(tmp_path / "nan.safetensors", [place])
    tensors = {f"lora_unet_{place.original.replace('.', '_')}.{end}": tensor
               for end, tensor in lora.changes[place][0].items()}  # fmt: skip
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, lora.path)
    switch = switch_of(untouched, tmp_path)
    use(switch, (good,))
    with pytest.raises(LoraUnusable, match="not finite"):
        use(switch, (good, resolved(lora)))
    assert switch.is_merged((good,))


def test_cached_sets_are_dropped_if_memory_runs_out() -> None:
    layer = nn.Linear(2, 2)
    sets = MergedSets(2)
    tries: list[int] = []

    def merge() -> MergedValues:
        tries.append(len(tries))
        if len(tries) in (2, 4):
            raise torch.OutOfMemoryError
        return {(layer, "weight"): nn.Parameter(torch.zeros(2, 2))}

    a, b, c = ((ResolvedLora(name=name, weight=1, sha256=name * 64),) for name in ("a", "b", "c"))
    sets.use(a, merge)
    sets.use(b, merge)
    assert len(tries) == 3
    assert (a in sets, b in sets) == (False, True)
    fresh = MergedSets(2)
    with pytest.raises(torch.OutOfMemoryError):
        fresh.use(c, merge)
    assert fresh.current == ()
    with pytest.raises(ValueError, match="cached_sets is 0"):
        MergedSets(0)


def test_misfits_may_be_left_out(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    at = some_places(written.made)
    stray = Place("transformer", "nowhere", "blocks.1.nowhere", (4, 4))
    lora = write_lora(tmp_path / "a.safetensors", [*at, stray])
    switch = switch_of(untouched, tmp_path, skips_misfits=True)
    use(switch, (resolved(lora),))
    del lora.changes[stray]
    assert wrong_weights(untouched, written.made, lora, strength=1) == []
    use(switch, ())


def test_float8_follows_merged_weights_and_comes_back(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    network = untouched.transformer
    keep_float8(network)
    before = {place: float8_of(place[0]) for place in float8_places(network)}
    lora = (resolved(write_lora(tmp_path / "a.safetensors", places(written.made))),)
    switch = switch_of(untouched, tmp_path)
    for loras in (lora, (), lora):
        use(switch, loras)
        for (module, name), old in before.items():
            now, expected = float8_of(module), quantised(getattr(module, name).flatten(0, -2))
            assert torch.equal(now.numbers.float(), expected.numbers.float())
            assert torch.equal(now.scale, expected.scale)
            assert (now.numbers is old.numbers) == (now.scale is old.scale) == (not loras)
    use(switch, ())


def test_without_float8_a_merged_set_has_none(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    lora = resolved(write_lora(tmp_path / "a.safetensors", some_places(written.made)))
    merged = switch_of(untouched, tmp_path).merge((lora,))
    assert {name for _, name in merged} <= {"weight", "bias", "qkv"}
