"""A trained run becomes files that the service's own loader turns into the same networks."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from torch import nn

from model.card import load_card
from model.network.load import load_components
from training import export
from training.pictures import dataset as data
from training.pictures.avatars import sample_avatar
from training.pictures.tokenizers import (
    load_tiny_tokenizers,
    qwen_tokenizer,
    save_tokenizers,
    t5_tokenizer,
)
from training.train import anima, batches, dit, frame_vae, loop


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)


def save(path: Path, module: nn.Module) -> None:
    average = loop.Average(module)
    optimizer = torch.optim.AdamW(module.parameters())
    loop.save_state(path, module, average, optimizer, step=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in small: random weights, eight pictures of latents."""
    out = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    avatars = [sample_avatar(rng) for _ in range(8)]
    save_tokenizers(out / "tokenizers", qwen_tokenizer(["1girl, blue hair, smile"]), t5_tokenizer())
    for size in data.SIZES:
        latents = rng.normal(size=(8, 16, size[1] // 8, size[0] // 8)).astype(np.float32)
        np.save(data.latents_path(out, size), latents)
        lines = [json.dumps(asdict(avatar)) for avatar in avatars]
        data.avatars_path(out, size).write_text("\n".join(lines))
    for name, module in (("dit", anima.build(out)), ("vae", frame_vae.FrameVae())):
        randomise(module)
        save(out / f"{name}.safetensors", module)
    return out


@torch.no_grad()
def test_frame_vae_is_the_librarys_vae_for_one_frame() -> None:
    torch.manual_seed(1)
    frames = frame_vae.FrameVae(8, (1, 2, 2, 2), 2)
    randomise(frames)
    library = AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 2, 2, 2], num_res_blocks=2)
    shapes = {name: tensor.shape for name, tensor in library.state_dict().items()}
    library.load_state_dict(frame_vae.expand(frames.state_dict(), shapes))
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    mean, _ = frames.encode(x)
    torch.testing.assert_close(
        library.encode(x[:, :, None]).latent_dist.mean[:, :, 0], mean, rtol=1e-4, atol=1e-4
    )
    pixels = library.decoder(library.post_quant_conv(mean[:, :, None]))[:, :, 0]
    torch.testing.assert_close(pixels, frames.decode(mean), rtol=1e-4, atol=1e-4)


def test_expand_refuses_missing_and_unknown_weights() -> None:
    with pytest.raises(KeyError, match=r"no a\.weight"):
        frame_vae.expand({}, {"a.weight": torch.Size([1])})
    with pytest.raises(KeyError, match="'b'"):
        frame_vae.expand({"b": torch.zeros(1)}, {})


@torch.no_grad()
def test_fast_attention_computes_what_the_librarys_does(run: Path) -> None:
    model = anima.load(run)
    text = batches.encode(["1girl, blue hair", ""], *load_tiny_tokenizers(run / "tokenizers"))
    x, sigma = torch.randn(2, 16, 1, 14, 18), torch.tensor([0.2, 0.9])
    before = model.context(*text), model(x, sigma, torch.randn(2, 80, 128).fill_(0.3))
    dit.prepare(model, is_compiled=False)
    after = model.context(*text), model(x, sigma, torch.full((2, 80, 128), 0.3))
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(old, new, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_exported_files_load_as_the_trained_networks(run: Path, tmp_path: Path) -> None:
    export.export(run, run, tmp_path)
    card = load_card("kirazuri-tiny")
    files = card.files.model_copy(
        update={
            part: getattr(card.files, part).model_copy(update={"sha256": None})
            for part in ("transformer", "text_encoder", "vae")
        }
    )
    loaded = load_components(
        card.model_copy(update={"files": files}),
        tmp_path,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    trained = anima.load(run)
    for ours, theirs in (
        (trained.transformer, loaded.transformer),
        (trained.conditioner, loaded.conditioner),
        (trained.text_encoder, loaded.text_encoder),
    ):
        expected = ours.state_dict()
        for name, weight in theirs.state_dict().items():
            torch.testing.assert_close(weight.float(), expected[name].bfloat16().float())


def test_exported_patch_embedding_has_the_zero_columns_of_the_mask(run: Path) -> None:
    state = export.rename_transformer(anima.load(run).transformer.state_dict())
    weight = state["x_embedder.proj.1.weight"]
    assert weight.shape == (192, 68)
    assert not weight[:, 64:].any()
    assert weight[:, :64].any()


def test_export_refuses_weights_that_are_not_finite(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="bad"):
        export._save(tmp_path / "x.safetensors", {"bad": torch.tensor([1.0, float("nan")])})


def test_state_resumes_module_average_and_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    average = loop.Average(module)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    average.update(module, 0)
    loop.save_state(tmp_path / "s.safetensors", module, average, optimizer, step=7, seconds=1.5)

    other = nn.Linear(3, 2)
    other_optimizer, other_average = torch.optim.AdamW(other.parameters()), loop.Average(other)
    facts = loop.load_state(tmp_path / "s.safetensors", other, other_average, other_optimizer)

    assert facts == {"step": 7, "seconds": 1.5}
    torch.testing.assert_close(other.state_dict(), module.state_dict())
    torch.testing.assert_close(other_average.state, average.state)
    ours, theirs = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    torch.testing.assert_close(dict(theirs), dict(ours))
