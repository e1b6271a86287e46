"""Loading, inspecting and converting refuse the same checkpoints, for the same reasons."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import CheckpointError
from model.network.load import load_components
from tests.support.checkpoint_command import TINY, inspected, run_checkpoint
from tests.support.every_layout import CARD, MAIN, QWEN, SHIPPED, VAE, all_in_one, library_folder
from tests.support.paths import ROOT
from tests.support.refusals import message_of

Tensors = dict[str, Tensor]
Change = Callable[[Tensors], object]


def drop(key: str) -> Change:
    return lambda tensors: tensors.pop(key)


def add(key: str, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Change:
    return lambda tensors: tensors.update({key: torch.ones(shape).to(dtype)})


def reshape(key: str, *shape: int) -> Change:
    return lambda tensors: tensors.update({key: tensors[key].reshape(shape)})


def rename(key: str, new: str) -> Change:
    return lambda tensors: tensors.update({new: tensors.pop(key)})


def heads_of(width: int) -> Change:
    """Norms of another width of head, so that the shapes fit no number of heads."""

    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            if name.startswith("net.blocks") and name.endswith(("q_norm.weight", "k_norm.weight")):
                tensors[name] = torch.ones(width, dtype=torch.bfloat16)

    return change


def drop_all(*, is_adapter: bool) -> Change:
    """Drop all weights of the adapter, or of the transformer."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if ("llm_adapter" in name) == is_adapter]:
            del tensors[name]

    return change


def empty_layers(tensors: Tensors) -> None:
    """Feed-forward layers of width 0, which fit one another."""
    for name, tensor in tensors.items():
        if "net.blocks" in name and "mlp.layer" in name:
            tensors[name] = tensor[:0] if "layer1" in name else tensor[:, :0]


def empty_adapter(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if "llm_adapter.blocks" in name:
            shape = [0 if size == 128 else size for size in tensor.shape]
            tensors[name] = torch.empty(shape, dtype=torch.bfloat16)


REFUSED: list[tuple[str, Change, str]] = [
    (MAIN, empty_adapter, "heads of width 32 in a width of 0"),
    (MAIN, empty_layers, "is empty"),
    (MAIN, drop_all(is_adapter=True), "has no conditioner"),
    (MAIN, drop_all(is_adapter=False), "has no transformer"),
    (MAIN, add("net.blocks.0.mlp.layer3.weight", 2), "net.blocks.0.mlp.layer3.weight"),
    (MAIN, add("unet.weight", 2), "unet.weight"),
    (MAIN, add("vae_extra.weight", 2), "vae_extra.weight"),
    (MAIN, add("model.blocks.0.mlp.layer1.weight", 576, 192), "model.blocks.0.mlp.layer1.weight"),
    (MAIN, add("img_in.weight", 8, 8), "img_in.weight"),
    (MAIN, add("net.extra_pos_embedder.pos_emb_h", 8, 8), "pos_emb_h"),
    (MAIN, add("net.llm_adapter.in_proj.weight", 128, 128), "in_proj.weight"),
    (MAIN, add("net.blocks.0.mlp.layer1.bias", 576), "net.blocks.0.mlp.layer1.bias"),
    (MAIN, add("net.blocks.7.mlp.layer1.weight", 576, 192), "net.blocks.6."),
    (MAIN, drop("net.blocks.3.mlp.layer2.weight"), "net.blocks.3.mlp.layer2.weight"),
    (MAIN, drop("net.x_embedder.proj.1.weight"), "x_embedder"),
    (MAIN, rename("net.final_layer.linear.weight", "final_layer.linear.weight"), "final_layer"),
    (MAIN, reshape("net.blocks.0.mlp.layer1.weight", 192, 576), "net.blocks.0.mlp.layer"),
    (MAIN, reshape("net.blocks.1.mlp.layer1.weight", 192, 576), "net.blocks.1.mlp.layer1.weight"),
    (MAIN, reshape("net.blocks.1.mlp.layer1.weight", 576, 192, 1, 1), "blocks.1.mlp.layer1.weight"),
    (MAIN, add("net.t_embedding_norm.weight", 191), "net.t_embedding_norm.weight"),
    (MAIN, add("net.final_layer.linear.weight", 32, 192), "net.final_layer.linear.weight"),
    (MAIN, add("net.x_embedder.proj.1.weight", 192, 72), "net.x_embedder.proj.1.weight"),
    (MAIN, add("net.llm_adapter.norm.weight", 127), "net.llm_adapter.norm.weight"),
    (MAIN, heads_of(50), "heads of width 50"),
    (MAIN, heads_of(8), "heads of width 8"),
    (MAIN, heads_of(0), "shapes of another architecture"),
    (MAIN, add("net.blocks.1.mlp.layer1.weight", 576, 192, dtype=torch.float64), "F64"),
    (MAIN, add("net.blocks.1.mlp.layer1.weight", 576, 192, dtype=torch.int8), "int8"),
    (MAIN, add("_orig_mod.net.blocks.0.mlp.layer1.weight", 576, 192), "name the same weight"),
    (MAIN, add("vae.conv1.weight", 32, 32, 1, 1, 1), "vae.conv1.bias"),
    (MAIN, add("first_stage_model.conv1.weight", 32, 32, 1, 1, 1), "first_stage_model.conv1.bias"),
    (QWEN, drop("model.layers.1.self_attn.q_norm.weight"), "layers.1.self_attn.q_norm.weight"),
    (QWEN, add("visual.patch_embed.weight", 1), "visual.patch_embed.weight"),
    (QWEN, add("model.layers.1.mlp.up_proj.weight", 128, 256), "layers.1.mlp.up_proj.weight"),
    (QWEN, add("model.layers.0.self_attn.q_proj.bias", 128), "q_proj.bias"),
    (VAE, drop("encoder.conv1.bias"), "encoder.conv1.bias"),
    (VAE, add("decoder.head.2.bias", 4), "decoder.head.2.bias"),
    (VAE, add("decoder.upsamples.0.extra.weight", 4), "decoder.upsamples.0.extra.weight"),
    (VAE, add("conv2.weight", 16, 16, 1, 1), "conv2.weight"),
]


def loading_refusal(folder: Path) -> str:
    return message_of(
        CheckpointError,
        lambda: load_components(CARD, folder, device=torch.device("cpu"), dtype=torch.float32),
    )


def test_what_loading_refuses_is_a_problem_and_is_not_converted(tmp_path: Path) -> None:
    wrong = []
    shutil.copytree(SHIPPED, tmp_path / "source")
    for file, change, named in REFUSED:
        path = tmp_path / "source" / file
        tensors = load_file(SHIPPED / file)
        change(tensors)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        code, output = run_checkpoint("convert", path, tmp_path / "target", *TINY)
        says = {
            "load": loading_refusal(tmp_path / "source"),
            "inspect a folder": " ".join(inspected(tmp_path / "source", "--no-hash")["problems"]),
            "inspect a file": " ".join(inspected(path, "--no-hash")["problems"]),
            "convert": output.replace("\n", " ") if code == 1 else "",
        }
        wrong += [(how, named, message) for how, message in says.items() if named not in message]
        if (tmp_path / "target").exists():
            wrong.append(("convert wrote", named, ""))
            shutil.rmtree(tmp_path / "target")
        shutil.copy(SHIPPED / file, path)
    assert wrong == []
    assert loading_refusal(tmp_path / "source") == ""
    assert inspected(tmp_path / "source")["problems"] == []


def test_a_folder_with_other_settings_is_a_problem_and_is_not_converted(tmp_path: Path) -> None:
    library_folder(tmp_path / "source")
    config = tmp_path / "source" / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rope_scale": [1.0, 3.0, 3.0]}))
    assert "rope_scale" in loading_refusal(tmp_path / "source")
    assert "rope_scale" in " ".join(inspected(tmp_path / "source")["problems"])
    code, output = run_checkpoint("convert", tmp_path / "source", tmp_path / "target", *TINY)
    assert code == 1
    assert "rope_scale" in output
    assert not (tmp_path / "target").exists()


def test_parts_of_different_widths_are_a_problem_in_one_folder_and_one_file(
    tmp_path: Path,
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "source")
    tensors = load_file(SHIPPED / MAIN)
    for name in tensors:
        if "llm_adapter" in name and name.endswith(("attn.k_proj.weight", "attn.v_proj.weight")):
            width = 64 if "cross_attn" in name else 128
            tensors[name] = torch.ones(128, width, dtype=torch.bfloat16)
    save_file(tensors, tmp_path / "source" / MAIN)
    assert "Qwen3 width 64" in loading_refusal(tmp_path / "source")
    assert "Qwen3 width 64" in " ".join(inspected(tmp_path / "source")["problems"])
    all_in_one(tmp_path / "bundle")
    bundled = load_file(tmp_path / "bundle" / MAIN)
    bundled |= {f"model.diffusion_model.{k.removeprefix('net.')}": v for k, v in tensors.items()}
    save_file(bundled, tmp_path / "bundle" / MAIN)
    code, output = run_checkpoint(
        "convert", tmp_path / "bundle" / MAIN, tmp_path / "a.safetensors", *TINY
    )
    assert code == 1
    assert "Qwen3 width 64" in output
    assert not (tmp_path / "a.safetensors").exists()


def test_tokenizers_that_loading_refuses_are_a_problem_and_are_not_converted(
    tmp_path: Path,
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "source")
    library_folder(tmp_path / "library")
    for root, t5 in (
        (tmp_path / "source", tmp_path / "source" / CARD.files.t5_tokenizer),
        (tmp_path / "library", tmp_path / "library" / "t5_tokenizer"),
    ):
        tokenizer = t5 / "tokenizer.json"
        content = json.loads(tokenizer.read_text())
        more = [[f"extra{index}", -9.0] for index in range(500)]
        content["model"]["vocab"] += more
        for text, named in (("{", "cannot read tokenizer"), (json.dumps(content), "embeds 225")):
            tokenizer.write_text(text)
            assert named in loading_refusal(root)
            assert named in " ".join(inspected(root)["problems"])
    code, output = run_checkpoint("convert", tmp_path / "library", tmp_path / "target", *TINY)
    assert code == 1
    assert "embeds 225" in output
    assert not (tmp_path / "target").exists()


def test_a_lora_in_place_of_a_part_is_a_problem(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "source")
    lora = {"diffusion_model.blocks.0.mlp.layer1.lora_A.weight": torch.ones(2, 192)}
    save_file(lora, tmp_path / "source" / MAIN)
    assert "is a LoRA" in loading_refusal(tmp_path / "source")
    assert "is a LoRA" in " ".join(inspected(tmp_path / "source")["problems"])


def test_a_checksum_other_than_the_cards_is_a_problem_at_its_path(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "source")
    card = tmp_path / "card.toml"
    text = (ROOT / "model" / "cards" / "kirazuri-tiny.toml").read_text()
    path = f'path = "{MAIN}"'
    assert path in text
    card.write_text(text.replace(path, f'{path}\nsha256 = "{"0" * 64}"'))
    file = tmp_path / "source" / MAIN
    for inspected_path, options, problem, said in (
        (tmp_path / "source", (), True, "the card says 000"),
        (tmp_path / "source", ("--no-hash",), False, "transformer was not compared"),
        (file, (), False, "refuses this file"),
    ):
        arguments = ("inspect", inspected_path, "--card", card, *options)
        code, output = run_checkpoint(*arguments)
        assert (code == 1) == problem, output
        assert said in output.replace("\n", " ")


def test_files_that_loading_does_not_read_are_no_problem(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    shutil.copy(SHIPPED / MAIN, tmp_path / VAE)
    save_file({"broken.weight": torch.ones(1)}, tmp_path / QWEN)
    assert loading_refusal(tmp_path) == ""
    assert inspected(tmp_path)["problems"] == []


@pytest.mark.parametrize("place", [MAIN, "."])
def test_a_folder_saved_by_diffusers_is_inspected_as_it_is_loaded(
    place: str, tmp_path: Path
) -> None:
    library_folder(tmp_path / place)
    for own in (CARD.files.qwen_tokenizer, CARD.files.t5_tokenizer):
        shutil.copytree(SHIPPED / own, tmp_path / own, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / place / "vae")
    assert "no weight file" in loading_refusal(tmp_path)
    assert [missing.partition(":")[0] for missing in inspected(tmp_path)["missing"]] == ["VAE"]
    (tmp_path / VAE).parent.mkdir(exist_ok=True)
    shutil.copy(SHIPPED / VAE, tmp_path / VAE)
    assert loading_refusal(tmp_path) == ""
    report = inspected(tmp_path)
    assert (report["problems"], report["missing"]) == ([], [])
