"""LoRAs in the model: every layout and method against weights worked out by hand, and back."""

import copy
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.card import load_card, shipped_folder
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import EngineEvent, Failed, ImageReady
from model.errors import LoraChanged, LoraMissing, LoraUnusable
from model.files.lora_folder import LoraFolder
from model.network.load import Components, load_components
from model.network.lora_switch import LoraSwitch, MergedSets
from model.network.text_encoder import TextEncoder
from model.resolved_request import LoraSet, ResolvedLora, ResolvedRequest
from tests.support.engines import drain, of, request
from tests.support.lora_writer import (
    LAYOUTS,
    METHODS,
    Place,
    Written,
    changed,
    linear,
    places,
    write_lora,
)
from tests.support.random_checkpoint import RandomModels, WrittenCheckpoint, write_checkpoint


def some_places(made: RandomModels) -> list[Place]:
    """One of every kind of layer, in every part."""
    wanted = {
        ("transformer", "patch_embed.proj"),
        ("transformer", "time_embed.t_embedder.linear_2"),
        ("transformer", "transformer_blocks.0.attn1.to_q"),
        ("transformer", "transformer_blocks.1.attn1.to_out.0"),
        ("transformer", "transformer_blocks.1.attn2.to_k"),
        ("transformer", "transformer_blocks.0.ff.net.0.proj"),
        ("transformer", "transformer_blocks.1.ff.net.2"),
        ("transformer", "transformer_blocks.1.norm2.linear_1"),
        ("transformer", "transformer_blocks.0.norm3.linear_2"),
        ("transformer", "norm_out.linear_1"),
        ("transformer", "proj_out"),
        ("adapter", "blocks.1.cross_attn.o_proj"),
        ("adapter", "blocks.0.mlp.2"),
        ("adapter", "out_proj"),
        ("text_encoder", "layers.0.self_attn.k_proj"),
        ("text_encoder", "layers.1.mlp.down_proj"),
    }
    found = [place for place in places(made) if (place.part, place.library) in wanted]
    assert len(found) == len(wanted)
    return found


def resolved(written: Written, weight: float = 1.0) -> ResolvedLora:
    sha256 = hashlib.sha256(written.path.read_bytes()).hexdigest()
    return ResolvedLora(name=written.name, weight=weight, sha256=sha256)


def all_weights(models: Components) -> dict[str, Tensor]:
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


@pytest.fixture
def untouched(components: Components) -> Iterator[Components]:
    """A loaded checkpoint of the test's own; afterwards every bit and pointer is what it was."""
    own = replace(
        components,
        transformer=copy.deepcopy(components.transformer),
        conditioner=copy.deepcopy(components.conditioner),
        text_encoder=copy.deepcopy(components.text_encoder),
    )
    before = {name: (tensor, tensor.clone()) for name, tensor in all_weights(own).items()}
    yield own
    for name, tensor in all_weights(own).items():
        pointer, bits = before[name]
        assert tensor.data_ptr() == pointer.data_ptr(), name
        assert torch.equal(tensor, bits), name


def switch_of(models: Components, folder: Path, **options: Any) -> LoraSwitch:
    files = LoraFolder(folder)
    files.refresh()
    return LoraSwitch(models, files, **options)


def use(switch: LoraSwitch, loras: LoraSet) -> None:
    """Put the set in force everywhere."""
    in_text, in_transformer = switch.split(loras)
    switch.use_in_text(in_text)
    switch.use_in_transformer(in_transformer)


def check(models: Components, made: RandomModels, written: Written, *, strength: float) -> None:
    """Every weight is what it should be, the changed ones and all the others."""
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
    for name, tensor in all_weights(models).items():
        if name.startswith("vae."):
            continue
        wanted = expected.pop(name, originals[name].double())
        columns = tensor.shape[-1]  # the mask's columns are not loaded
        torch.testing.assert_close(tensor.double(), wanted[..., :columns], atol=1e-6, rtol=1e-6)
    assert not expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_changes_every_weight_as_it_says(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path, layout: str
) -> None:
    lora = write_lora(tmp_path / "a.safetensors", places(written.made), layout=layout)
    switch = switch_of(untouched, tmp_path)
    use(switch, (resolved(lora, 0.7),))
    check(untouched, written.made, lora, strength=0.7)
    use(switch, ())


@pytest.mark.parametrize("strength", [1.0, -0.6])
@pytest.mark.parametrize("layout", ["comfy", "kohya"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_weights_of_its_formula(
    untouched: Components,
    written: WrittenCheckpoint,
    tmp_path: Path,
    method: str,
    layout: str,
    strength: float,
) -> None:
    at = some_places(written.made)
    lora = write_lora(tmp_path / "a.safetensors", at, method=method, layout=layout)
    switch = switch_of(untouched, tmp_path)
    use(switch, (resolved(lora, strength),))
    check(untouched, written.made, lora, strength=strength)
    use(switch, ())


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
    layer = models.transformer.get_submodule(place.library)
    assert isinstance(layer, nn.Linear)
    start = linear(written.made, place).weight.detach().bfloat16()
    expected = changed(start, lora.changes[place], strength=1).float().bfloat16()
    assert layer.weight.dtype == torch.bfloat16
    torch.testing.assert_close(layer.weight, expected, atol=0, rtol=2**-8)
    assert torch.eq(layer.weight, expected).float().mean() > 0.99


def test_switching_swaps_pointers_and_keeps_the_latest_sets(
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


def test_a_single_kept_set_is_enough(
    untouched: Components, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    at = some_places(written.made)
    first, second = (write_lora(tmp_path / f"{n}.safetensors", at, seed=n) for n in (1, 2))
    switch = switch_of(untouched, tmp_path, cached_sets=1)
    for lora in (first, second, first):
        use(switch, (resolved(lora),))
        check(untouched, written.made, lora, strength=1)
    use(switch, ())


def test_the_text_path_and_the_transformer_are_told_apart(
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


def test_the_text_cache_knows_the_loras(
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


# -- what is refused ---------------------------------------------------------------------------


def test_a_missing_a_changed_and_an_unusable_file_are_told_apart(
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
    stray = Place("transformer", "nowhere", "blocks.9.nowhere", (4, 4))
    lora = resolved(write_lora(tmp_path / "c.safetensors", [*at, stray]))
    with pytest.raises(LoraUnusable, match=r"LoRA c matches nothing .*lora_unet_blocks_9_nowhere"):
        switch.split((lora,))
    (tmp_path / "c.safetensors").unlink()
    with pytest.raises(LoraMissing):
        switch.split((lora,))
    with pytest.raises(LoraMissing):
        LoraSwitch(untouched, LoraFolder(None)).split((lora,))


def test_numbers_that_are_not_finite_leave_the_model_as_it_was(
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


def test_sets_that_leave_too_little_memory_are_let_go() -> None:
    layer = nn.Linear(2, 2)
    sets = MergedSets(2)
    tries: list[int] = []

    def merge() -> dict[nn.Linear, Tensor]:
        tries.append(len(tries))
        if len(tries) in (2, 4):
            raise torch.OutOfMemoryError
        return {layer: nn.Parameter(torch.zeros(2, 2))}

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


# -- pictures ----------------------------------------------------------------------------------

SAMPLING: dict[str, Any] = {
    "prompt": "1girl, red hair", "width": 96, "height": 96, "steps": 4, "sampler": "euler",
}  # fmt: skip


def latents_of(engine: Engine, jobs: dict[str, ResolvedRequest]) -> dict[str, Tensor]:
    """Final latents by job; all jobs at once."""
    decoded: list[Tensor] = []

    def keep(latents: Tensor) -> "numpy.ndarray[Any, Any]":
        decoded.append(latents)
        return numpy.zeros((1, 8, 8, 3), numpy.uint8)

    engine._pipeline = replace(engine._pipeline, decode=keep)
    for job_id, wanted in jobs.items():
        engine.admit(job_id, wanted)
    events = drain(engine)
    assert not [event for event in events if isinstance(event, Failed)]
    order = [event.job_id for event in events if isinstance(event, ImageReady)]
    return dict(zip(order, decoded, strict=True))


def engine_at(written: WrittenCheckpoint, folder: Path, **options: Any) -> Engine:
    return load_engine(
        written.card, folder, device="cpu", precision="float32", threads=0, token_budget=8192,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["lora_A_B", "lokr_w2_split", "loha", "dora_columns"])
def test_a_lora_gives_the_picture_of_a_checkpoint_with_merged_weights(
    written: WrittenCheckpoint, tmp_path: Path, method: str
) -> None:
    at = some_places(written.made)
    lora = write_lora(tmp_path / "loras/a.safetensors", at, method=method, layout="comfy")
    merged = copy.deepcopy(written.made)
    for place, change in lora.changes.items():
        layer = linear(merged, place)
        layer.weight.data = changed(layer.weight.detach(), change, strength=0.8).float()
    (tmp_path / "merged").mkdir()
    write_checkpoint(tmp_path / "merged", merged)
    job = request(**SAMPLING)
    expected = latents_of(engine_at(written, tmp_path / "merged"), {"a": job})["a"]
    engine = engine_at(written, written.folder, lora_dir=tmp_path / "loras")
    with_lora = job.model_copy(update={"loras": (resolved(lora, 0.8),)})
    torch.testing.assert_close(
        latents_of(engine, {"a": with_lora})["a"], expected, atol=1e-5, rtol=1e-5
    )
    plain = latents_of(engine, {"a": job})["a"]
    assert (plain - expected).abs().max() > 0.01
    assert torch.equal(plain, latents_of(engine_at(written, written.folder), {"a": job})["a"])


def merged_tiny(folder: Path, lora: Written) -> None:
    """Copy the checkpoint that ships, with the LoRA's changes in its transformer's file."""
    shutil.copytree(shipped_folder(load_card("kirazuri-tiny")), folder)
    path = folder / load_card("kirazuri-tiny").files.transformer.path
    weights = load_file(path)
    for place, change in lora.changes.items():
        name = f"net.{place.original}.weight"
        weights[name] = changed(weights[name], change, strength=0.1).float()
    save_file(weights, path)


def test_the_checkpoint_that_ships_gives_the_picture_of_its_merged_file(tmp_path: Path) -> None:
    card = load_card("kirazuri-tiny")
    models = load_components(card, None, device=torch.device("cpu"), dtype=torch.float32)
    at = [p for p in places(models) if p.part != "text_encoder" and ".1." in p.library]
    lora = write_lora(tmp_path / "loras/a.safetensors", at, layout="comfy")
    merged_tiny(tmp_path / "merged", lora)
    job = request(prompt=card.prompting.example, width=96, height=96, steps=4)
    with_lora = job.model_copy(update={"loras": (resolved(lora, 0.1),)})
    found = {}
    for name, folder, wanted in (
        ("merged", tmp_path / "merged", job),
        ("lora", None, with_lora),
        ("plain", None, job),
    ):
        engine = load_engine(
            card, folder, device="cpu", precision="float32", threads=0, token_budget=8192,
            lora_dir=tmp_path / "loras",
        )  # fmt: skip
        found[name] = latents_of(engine, {"a": wanted})["a"]
    torch.testing.assert_close(found["lora"], found["merged"], atol=1e-4, rtol=0)
    assert (found["plain"] - found["merged"]).abs().max() > 0.05


@pytest.fixture(scope="module")
def four_sets(
    written: WrittenCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, LoraSet]]:
    """A folder, and four sets of its files: two of them in the text path as well."""
    folder = tmp_path_factory.mktemp("loras")
    at = some_places(written.made)
    in_transformer = [place for place in at if place.part == "transformer"]
    a = resolved(write_lora(folder / "a.safetensors", at, seed=1), 0.5)
    b = resolved(write_lora(folder / "b.safetensors", in_transformer, seed=2, layout="comfy"), 0.5)
    return folder, {"none": (), "a": (a,), "b": (b,), "a and b": (a, b)}


@pytest.mark.parametrize("cached_sets", [1, 2, 4])
def test_requests_with_different_loras_share_an_engine_and_keep_their_pictures(
    written: WrittenCheckpoint, four_sets: tuple[Path, dict[str, LoraSet]], cached_sets: int
) -> None:
    folder, sets = four_sets
    engine = engine_at(written, written.folder, lora_dir=folder, lora_cache_sets=cached_sets)
    jobs = {
        f"{name} {seed}": request(**SAMPLING, seed=seed, cfg_scale=2 + seed).model_copy(
            update={"loras": loras}
        )
        for seed in range(2)
        for name, loras in sets.items()
    }
    together = latents_of(engine, jobs)
    assert engine.stats.evaluations == 2 * engine.stats.forwards  # pairs of equal sets
    for job_id, job in jobs.items():
        alone = latents_of(engine_at(written, written.folder, lora_dir=folder), {"job": job})["job"]
        torch.testing.assert_close(together[job_id], alone, atol=1e-5, rtol=1e-5)
    first = [together[f"{name} 0"] for name in sets]
    for i, one in enumerate(first):
        assert all((one - other).abs().max() > 1e-3 for other in first[:i])


def test_what_is_wrong_with_a_lora_fails_its_request_alone(
    written: WrittenCheckpoint, four_sets: tuple[Path, dict[str, LoraSet]]
) -> None:
    folder, sets = four_sets
    (lora,) = sets["a"]
    engine = engine_at(written, written.folder, lora_dir=folder)
    wanted = {
        "lora_missing": lora.model_copy(update={"name": "nobody"}),
        "lora_changed": lora.model_copy(update={"sha256": "0" * 64}),
    }
    engine.admit("good", request(**SAMPLING))
    for code, broken in wanted.items():
        engine.admit(code, request(**SAMPLING).model_copy(update={"loras": (broken,)}))
    events: list[EngineEvent] = drain(engine)
    for code in wanted:
        (failed,) = of(Failed, events, code)
        assert (failed.code, failed.is_retryable) == (code, False)
        assert str(folder) not in failed.detail
    assert of(ImageReady, events, "good")


def test_a_file_that_changes_while_its_request_runs_fails_that_request(
    written: WrittenCheckpoint, tmp_path: Path
) -> None:
    """With one kept set, a request in the middle of its steps needs the file again."""
    at = [place for place in some_places(written.made) if place.part == "transformer"]
    lora = resolved(write_lora(tmp_path / "a.safetensors", at))
    engine = engine_at(written, written.folder, lora_dir=tmp_path, lora_cache_sets=1)
    engine.admit("changing", request(**SAMPLING).model_copy(update={"loras": (lora,)}))
    engine.step()
    write_lora(tmp_path / "a.safetensors", at, seed=9)
    engine._pipeline.loras._transformer._sets.clear()
    engine._pipeline.loras.use_in_transformer(())
    engine.admit("plain", request(**SAMPLING))
    events = drain(engine)
    (failed,) = of(Failed, events, "changing")
    assert failed.code == "lora_changed"
    assert of(ImageReady, events, "plain")
