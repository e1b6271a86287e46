"""Files of every supported layout load as the same modules; all others are refused by name."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from model.card import Card, VaeArchitecture
from model.errors import CheckpointError
from model.files.keymap import (
    adapter_to_original,
    text_encoder_to_original,
    transformer_to_original,
    vae_to_original,
)
from model.network.load import Components, load_components
from model.network.text.encoder import TextEncoder
from tests.support.paths import DATA
from tests.support.random_checkpoint import WrittenCheckpoint, transformer_tensors
from tests.support.refusals import message_of

CPU = torch.device("cpu")
KEYMAPS = json.loads((DATA / "keymaps.json").read_text())
Edit = Callable[[dict[str, Tensor]], object]


def load(
    written: WrittenCheckpoint, folder: Path, card: Card | None = None, *, encoder: bool = False
) -> Components:
    return load_components(
        card or written.card, folder, device=CPU, dtype=torch.float32, has_vae_encoder=encoder
    )


@pytest.fixture
def folder(written: WrittenCheckpoint, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(written.folder, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path: Path, change: Edit) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def assert_equal_weights(loaded: nn.Module, made: nn.Module, *, skip: str = "") -> None:
    mine, theirs = loaded.state_dict(), made.state_dict()
    assert set(mine) == set(theirs)
    for name, weight in theirs.items():
        if name != skip:
            assert torch.equal(mine[name], weight), name


def test_loaded_modules_have_the_written_weights(written: WrittenCheckpoint) -> None:
    parts = load(written, written.folder, encoder=True)
    made = written.made
    assert_equal_weights(parts.text_encoder, made.text_encoder)
    assert_equal_weights(parts.conditioner, made.conditioner)
    patches = "patch_embed.proj.weight"
    assert_equal_weights(parts.transformer, made.transformer, skip=patches)
    wide = made.transformer.state_dict()[patches]
    assert wide.shape[1] == 68
    assert torch.equal(parts.transformer.state_dict()[patches], wide[:, :64])


def test_no_tensor_is_left_without_values(components: Components) -> None:
    for module in (
        components.text_encoder,
        components.conditioner,
        components.transformer,
        components.vae,
    ):
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            assert not tensor.is_meta, name
            assert not tensor.requires_grad, name
        assert not module.training


def test_every_known_prefix_loads(
    written: WrittenCheckpoint, components: Components, folder: Path
) -> None:
    for prefix in ("net.", "model.diffusion_model.", "diffusion_model.", ""):
        tensors = transformer_tensors(written.made, prefix=prefix)
        tensors[f"{prefix}pos_embedder.seq"] = torch.arange(8.0)
        tensors[f"{prefix}blocks.0.self_attn._extra_state"] = torch.zeros(1)
        save_file(tensors, folder / "anima.safetensors")
        parts = load(written, folder)
        assert_equal_weights(parts.transformer, components.transformer)
        assert_equal_weights(parts.conditioner, components.conditioner)


def test_a_transformer_without_mask_channel_loads(
    written: WrittenCheckpoint, components: Components, folder: Path
) -> None:
    def narrow(tensors: dict[str, Tensor]) -> None:
        key = "net.x_embedder.proj.1.weight"
        tensors[key] = tensors[key][:, :64].contiguous()

    edit(folder / "anima.safetensors", narrow)
    assert_equal_weights(load(written, folder).transformer, components.transformer)


def test_library_names_and_bare_names_load(
    written: WrittenCheckpoint, components: Components, folder: Path
) -> None:
    save_file(written.made.vae.state_dict(), folder / "vae.safetensors")
    bare = {**written.made.text_encoder.state_dict(), "lm_head.weight": torch.zeros(1, 1)}
    save_file(bare, folder / "qwen.safetensors")
    parts = load(written, folder)
    assert_equal_weights(parts.vae, components.vae)
    assert_equal_weights(parts.text_encoder, components.text_encoder)


def test_sizes_are_read_from_the_tensors(components: Components) -> None:
    config: Any = components.transformer.config
    assert (config.num_layers, config.num_attention_heads, config.attention_head_dim) == (2, 2, 24)
    assert (config.text_embed_dim, config.adaln_lora_dim, config.in_channels) == (20, 8, 16)
    adapter, qwen = components.conditioner, components.text_encoder
    assert (len(adapter.blocks), len(qwen.layers)) == (2, 2)
    assert adapter.blocks[0].cross_attn.k_proj.weight.shape == (20, 32)
    assert qwen.layers[0].self_attn.k_proj.weight.shape == (16, 32)


def test_only_the_transformer_has_the_requested_precision(written: WrittenCheckpoint) -> None:
    parts = load_components(written.card, written.folder, device=CPU, dtype=torch.bfloat16)
    assert {p.dtype for p in parts.transformer.parameters()} == {torch.bfloat16}
    for module in (parts.text_encoder, parts.conditioner, parts.vae):
        assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_deeper_variants_load(written: WrittenCheckpoint, folder: Path) -> None:
    def deepen(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("net.blocks.1.")]:
            for index in range(2, 40):
                copy = name.replace("blocks.1.", f"blocks.{index}.")
                tensors[copy] = tensors[name].clone()

    edit(folder / "anima.safetensors", deepen)
    parts = load(written, folder)
    assert len(parts.transformer.transformer_blocks) == 40
    assert len(parts.conditioner.blocks) == 2


def test_the_text_encoder_keeps_the_files_precision_and_computes_in_float32(
    written: WrittenCheckpoint, folder: Path
) -> None:
    """With the same bits as weights that are converted to float32 once."""
    for name in ("anima", "qwen"):
        edit(
            folder / f"{name}.safetensors",
            lambda tensors: tensors.update({k: t.bfloat16() for k, t in tensors.items()}),
        )
    narrow = load(written, folder)
    for module in (narrow.text_encoder, narrow.conditioner):
        assert {p.dtype for p in module.parameters() if p.ndim > 1} == {torch.bfloat16}
        assert {p.dtype for p in module.parameters() if p.ndim == 1} == {torch.float32}
    encoder = TextEncoder(narrow, written.card.text)
    prompts = ("1girl, (red hair:1.3)", "", "smile " * 30)
    contexts = [encoder.encode(prompt).context for prompt in prompts]
    for module in (narrow.text_encoder, narrow.conditioner):
        nn.Module.to(module, torch.float32)
    float32 = TextEncoder(narrow, written.card.text)
    for prompt, context in zip(prompts, contexts, strict=True):
        assert context.dtype == torch.float32
        assert torch.equal(float32.encode(prompt).context, context)
    assert contexts[0].std() > 0.1


def test_loaded_weights_do_not_change_with_the_file(
    written: WrittenCheckpoint, folder: Path
) -> None:
    parts = load(written, folder)
    path = folder / "anima.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * (path.stat().st_size // 2))
    assert all(torch.isfinite(p).all() for p in parts.transformer.parameters())


def drop(key: str) -> Edit:
    return lambda tensors: tensors.pop(key)


def add(key: str, tensor: Tensor) -> Edit:
    return lambda tensors: tensors.update({key: tensor})


WRONG_KEYS: list[tuple[str, Edit, str]] = [
    ("anima", drop("net.blocks.1.mlp.layer2.weight"), "net.blocks.1.mlp.layer2.weight"),
    ("anima", drop("net.x_embedder.proj.1.weight"), "x_embedder.proj.1.weight"),
    ("anima", drop("net.llm_adapter.out_proj.bias"), "net.llm_adapter.out_proj.bias"),
    ("anima", add("net.blocks.0.mlp.layer3.weight", torch.ones(2)), "mlp.layer3.weight"),
    ("anima", add("vae.conv1.weight", torch.ones(2)), "vae.conv1.bias"),
    ("anima", add("net.final_layer.adaln_modulation.1.weight", torch.ones(8, 3)), "(8, 3)"),
    ("anima", add("net.blocks.0.mlp.layer1.scale_weight", torch.ones(1)), "scale_weight"),
    ("anima", add("net.blocks.999999999.mlp.layer1.weight", torch.ones(1)), "999999999"),
    ("anima", add("scaled_fp8", torch.ones(2)), "scaled_fp8"),
    ("anima", add("net.blocks.0.mlp.comfy_quant", torch.ones(1)), "comfy_quant"),
    ("qwen", drop("model.norm.weight"), "norm.weight"),
    ("qwen", drop("model.layers.0.self_attn.q_norm.weight"), "q_norm.weight"),
    ("qwen", add("visual.patch_embed.weight", torch.ones(1)), "visual.patch_embed.weight"),
    ("vae", drop("decoder.conv1.bias"), "decoder.conv1.bias"),
    ("vae", drop("encoder.conv1.bias"), "encoder.conv1.bias"),
    ("vae", add("decoder.head.2.bias", torch.ones(4)), "decoder.head.2.bias"),
]


def test_a_wrong_key_is_refused_by_name(written: WrittenCheckpoint, folder: Path) -> None:
    wrong = []
    for file, change, key in WRONG_KEYS:
        path = folder / f"{file}.safetensors"
        edit(path, change)
        message = message_of(CheckpointError, lambda: load(written, folder))
        if key not in message or str(path) not in message:
            wrong.append((key, message))
        shutil.copy(written.folder / path.name, path)
    assert wrong == []


def test_a_truncated_file_is_refused(written: WrittenCheckpoint, folder: Path) -> None:
    path = folder / "vae.safetensors"
    for size in (path.stat().st_size - 1, 100, 4, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match=r"vae\.safetensors is truncated"):
            load(written, folder)


def test_pickles_are_refused_without_reading_them(written: WrittenCheckpoint, folder: Path) -> None:
    (folder / "anima.ckpt").write_bytes(pickle.dumps({"weight": 1}))
    files = {**written.card.files.model_dump(), "transformer": {"path": "anima.ckpt"}}
    card = Card.model_validate({**written.card.model_dump(), "files": files})
    with pytest.raises(CheckpointError, match="pickled"):
        load(written, folder, card)
    (folder / "anima.safetensors").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(CheckpointError, match=r"anima\.safetensors is a pickle"):
        load(written, folder)


def test_missing_files_are_named(written: WrittenCheckpoint, folder: Path) -> None:
    shutil.rmtree(folder / "t5")
    with pytest.raises(CheckpointError, match=r"t5.tokenizer\.json"):
        load(written, folder)
    (folder / "anima.safetensors").unlink()
    shutil.copytree(written.folder / "t5", folder / "t5")
    with pytest.raises(CheckpointError, match=r"no weight file at .*anima\.safetensors"):
        load(written, folder)


def test_the_cards_checksum_is_checked(written: WrittenCheckpoint, components: Components) -> None:
    files = written.card.files.model_dump()
    for name, sha256, is_right in (
        ("transformer", components.sha256, True),
        ("transformer", "0" * 64, False),
        ("vae", "0" * 64, False),
    ):
        changed = {**files, name: {**files[name], "sha256": sha256}}
        card = Card.model_validate({**written.card.model_dump(), "files": changed})
        if is_right:
            load(written, written.folder, card)
        else:
            with pytest.raises(CheckpointError, match="sha256"):
                load(written, written.folder, card)


def test_parts_of_different_checkpoints_are_refused(
    written: WrittenCheckpoint, folder: Path
) -> None:
    config = Qwen3Config(
        **{**written.made.text_encoder.config.to_dict(), "hidden_size": 40, "layer_types": None}
    )
    tensors = {text_encoder_to_original(k): v for k, v in Qwen3Model(config).state_dict().items()}
    save_file(tensors, folder / "qwen.safetensors")
    with pytest.raises(CheckpointError, match=r"Qwen3 width 32.*qwen\.safetensors has 40"):
        load(written, folder)


def test_modules_of_the_published_sizes_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        transformer = CosmosTransformer3DModel(
            num_attention_heads=16,
            rope_scale=(1.0, 4.0, 4.0),
            extra_pos_embed_type=None,
        )
        conditioner = AnimaTextConditioner()
        text_encoder = Qwen3Model(
            Qwen3Config(
                hidden_size=1024,
                intermediate_size=3072,
                num_hidden_layers=28,
                num_attention_heads=16,
                num_key_value_heads=8,
            )
        )
        published = VaeArchitecture(latents_mean=(), latents_std=())
        vae = AutoencoderKLQwenImage(
            base_dim=published.base_dim,
            dim_mult=list(published.dim_mult),
            num_res_blocks=published.num_res_blocks,
            temperal_downsample=list(published.temperal_downsample),
        )
    for module, section, to_original, parameters in (
        (
            transformer,
            "dit_to_CosmosTransformer3DModel",
            transformer_to_original,
            1_956_405_248,
        ),
        (conditioner, "adapter_to_AnimaTextConditioner", adapter_to_original, 134_663_680),
        (text_encoder, "qwen_to_Qwen3Model", text_encoder_to_original, 596_049_920),
        (
            vae,
            "vae_to_AutoencoderKLQwenImage",
            lambda name: vae_to_original(name, published.num_res_blocks),
            126_892_531,
        ),
    ):
        shapes = {to_original(n): list(w.shape) for n, w in module.state_dict().items()}
        assert shapes == {
            original: shape for original, (ours, shape) in KEYMAPS[section].items() if ours
        }
        assert sum(w.numel() for w in module.state_dict().values()) == parameters
