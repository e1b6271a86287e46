"""Writes random weights in the published sizes and measures loading and running them.

    python -m tests.tools.full_size write FOLDER     5.6 GB, in the published layout
    python -m tests.tools.full_size bundle FOLDER    all parts in one file
    python -m tests.tools.full_size load FOLDER      seconds and peak host memory
    python -m tests.tools.full_size compare FOLDER   a 256x256 forward here and in diffusers (9 GB)

Too large for the tests. The folder may be removed afterwards.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor

from model.card import Card, load_card, shipped_folder
from model.files.checkpoint_check import check_part
from model.files.keymap import BUNDLE_PREFIXES
from model.files.layouts import locate_parts
from model.files.safetensors_header import encode_header
from model.network.architectures import plan_transformer
from model.network.load import Components, load_components
from model.network.text.encoder import TextEncoder
from model.network.transformer.forward import Row, Transformer
from model.network.weights import map_file, release_pages, stored_values
from tests.support.cosmos_reference import install_mask_resize
from tests.support.paths import DATA

CARD = load_card("kirazuri-v1")
KEYMAPS = json.loads((DATA / "keymaps.json").read_text())
FILES: Mapping[str, Mapping[str, str]] = {
    CARD.files.transformer.path: {
        "dit_to_CosmosTransformer3DModel": "net.",
        "adapter_to_AnimaTextConditioner": "net.",
    },
    CARD.files.text_encoder.path: {"qwen_to_Qwen3Model": ""},
    CARD.files.vae.path: {"vae_to_AutoencoderKLQwenImage": ""},
}
PROMPT = "1girl, blue hair, twintails, smile, looking at viewer"
Shapes = list[tuple[str, tuple[int, ...]]]


def write(
    folder: Path,
    files: Mapping[str, Mapping[str, str]] = FILES,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
) -> None:
    """Write all files in bfloat16, with the tokenizers of the small checkpoint.

    The weights are drawn on the device.
    """
    for file, sections in files.items():
        shapes = [
            (prefix + name, tuple(shape))
            for section, prefix in sections.items()
            for name, (ours, shape) in KEYMAPS[section].items()
            if ours
        ]
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            out.write(encode_header(((n, "BF16", s) for n, s in shapes), {"format": "pt"}))
            for tensor in random_tensors(shapes, device):
                out.write(tensor.cpu().view(torch.uint8).numpy().data)
        print(f"{path} {path.stat().st_size}")
    tiny = load_card("kirazuri-tiny")
    for mine, theirs in (
        (CARD.files.qwen_tokenizer, tiny.files.qwen_tokenizer),
        (CARD.files.t5_tokenizer, tiny.files.t5_tokenizer),
    ):
        shutil.copytree(shipped_folder(tiny) / theirs, folder / mine, dirs_exist_ok=True)


def bundle(folder: Path) -> None:
    """Write all parts to the file of the transformer."""
    prefixes = {
        "dit_to_CosmosTransformer3DModel": "model.diffusion_model.",
        "adapter_to_AnimaTextConditioner": "model.diffusion_model.",
        "qwen_to_Qwen3Model": BUNDLE_PREFIXES["text_encoder"][0],
        "vae_to_AutoencoderKLQwenImage": BUNDLE_PREFIXES["vae"][0],
    }
    write(folder, {CARD.files.transformer.path: prefixes})


def random_tensors(shapes: Shapes, device: torch.device) -> Iterator[Tensor]:
    """Random bfloat16 weights, scaled to keep the variance of activations."""
    generator = torch.Generator(device).manual_seed(0)
    for _, shape in shapes:
        values = torch.randn(math.prod(shape), generator=generator, device=device)
        inputs = math.prod(shape[1:])
        values = 1 + 0.1 * values if inputs == 1 else values / math.sqrt(inputs)
        yield values.bfloat16()


def card_without_checksums() -> Card:
    """The published card without checksums."""
    files = CARD.files.model_dump()
    for name in ("transformer", "text_encoder", "vae"):
        files[name]["sha256"] = None
    return Card.model_validate({**CARD.model_dump(), "files": files})


def load(folder: Path) -> Components:
    """Load all parts in bfloat16 on the CPU; print time and memory."""
    before = memory("VmRSS")
    started = time.perf_counter()
    parts = load_components(
        card_without_checksums(),
        folder,
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        has_vae_encoder=True,
    )
    seconds = time.perf_counter() - started
    files = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    peak = memory("VmHWM")
    print(f"files {files / 1e9:.3f} GB, loaded in {seconds:.1f} s")
    print(f"host memory before {before / 1e9:.3f} GB, after {memory('VmRSS') / 1e9:.3f} GB")
    print(f"peak {peak / 1e9:.3f} GB, {peak / files:.3f} of the files")
    return parts


def memory(field: str) -> int:
    """Resident memory of this process in bytes: current (VmRSS) or peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@torch.inference_mode()
def compare(folder: Path) -> None:
    """Compare a forward of 256x256 pixels with the class of diffusers."""
    parts = load(folder)
    started = time.perf_counter()
    prompt = TextEncoder(parts, CARD.text).encode(PROMPT)
    print(f"prompt encoded in {time.perf_counter() - started:.1f} s")
    latents = torch.randn(1, 16, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.7])
    started = time.perf_counter()
    network = Transformer(parts.transformer, dtype=torch.bfloat16)
    text = network.read_text(prompt.context, prompt.tokens)
    mine = network.velocity([Row(latents, sigma.item(), text)])
    print(f"forward in {time.perf_counter() - started:.1f} s")
    theirs = library_velocity(folder, latents, sigma, prompt.context[None])
    difference = (mine - theirs).abs()
    print(
        f"velocity std {mine.std():.4f}; largest difference {difference.max():.3e}, "
        f"mean {difference.mean():.3e}"
    )
    print(f"peak {memory('VmHWM') / 1e9:.3f} GB")


def library_velocity(folder: Path, latents: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
    """The velocity of the class of diffusers, with the channel of its padding mask."""
    part = locate_parts(CARD.files, folder).parts["transformer"]
    plan = plan_transformer(check_part("transformer", part, CARD), CARD)
    config = {**vars(plan.module.config), "concat_padding_mask": True}
    with torch.device("meta"):
        module: Any = CosmosTransformer3DModel.from_config(config)
    weights = {}
    with map_file(part.path) as mapping:
        for name, stored in plan.stored.items():
            weights[name] = stored_values(mapping, stored).clone()
            release_pages(mapping, stored)
    module.load_state_dict(weights, assign=True)
    with pytest.MonkeyPatch.context() as patch:
        install_mask_resize(patch)
        (velocity,) = module(
            hidden_states=latents.bfloat16(),
            timestep=sigma,
            encoder_hidden_states=context.bfloat16(),
            padding_mask=torch.zeros(1, 1, 256, 256, dtype=torch.bfloat16),
            return_dict=False,
        )
    found: Tensor = velocity.float()
    return found


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    actions = {"write": write, "bundle": bundle, "load": load, "compare": compare}
    parser.add_argument("action", choices=actions)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    actions[options.action](options.folder)


if __name__ == "__main__":
    main()
