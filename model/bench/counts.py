"""Counts the work of one forward of a guidance pair, and of one step of the engine; needs no GPU.

Run by `kirazuri bench counts`. Compares the library's class with the service's own forward on the
meta device, where tensors have shapes but no numbers: FLOPs, kernel launches, bytes moved by
elementwise kernels, and waits and copies between host and device.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.bench.counting import KernelCount, counted
from model.bench.library import library_transformer
from model.bench.report import add_json_option, print_report
from model.card import Card, load_card, shipped_folder
from model.engine.engine import Engine
from model.engine.pipeline import Pipeline
from model.files.checkpoint_check import check_part
from model.files.layouts import locate_parts
from model.files.weight_shapes import TransformerSizes
from model.network.architectures import empty_transformer
from model.network.text.encoder import EncodedPrompt
from model.network.transformer.attention import stack_projections
from model.network.transformer.blocks import Blocks
from model.network.transformer.float8 import keep_float8
from model.network.transformer.forward import Row, TextKeys, Transformer
from model.request import GenerationRequest
from model.resolved_request import resolve_request

PUBLISHED = TransformerSizes(
    latent_channels=16, heads=16, head_dim=128, blocks=28, mlp=8192, text_width=1024,
    modulation_rank=256,
)  # fmt: skip
"""Sizes of Anima's published checkpoints, for cards whose files are not at hand."""

META = torch.device("meta")


def main() -> None:
    """Parse the command line, count and print the table."""
    parser = argparse.ArgumentParser(prog="kirazuri bench counts", description=__doc__)
    parser.add_argument("--card", default="kirazuri-v1", help="name of a card, or its .toml file")
    parser.add_argument("--checkpoint-dir", type=Path, help="folder with the card's files")
    parser.add_argument("--size", default="1024x1024", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--tokens", type=int, nargs="+", default=[77, 256], help="of each prompt")
    parser.add_argument(
        "--compiled", action="store_true", help="also as Inductor schedules compiled blocks"
    )
    parser.add_argument(
        "--templates",
        action="store_true",
        help="with --compiled: also with matrix products that compute what follows them",
    )
    parser.add_argument("--float8", action="store_true", help="the large products in float8")
    add_json_option(parser)
    options = parser.parse_args()
    card = load_card(options.card)
    width, height = map(int, options.size.split("x"))
    sizes = transformer_sizes(card, options.checkpoint_dir)
    rows = count_all(
        card, sizes, width=width, height=height, tokens=options.tokens,
        compiled=options.compiled, templates=options.templates, float8=options.float8,
    )  # fmt: skip
    conditions = (
        f"{card.name}, {width}x{height}, bfloat16, {sizes.blocks} blocks of width {sizes.width}; "
        "one forward of a guidance pair, and what one step of the engine asks of the device"
    )
    print_report(conditions, rows, command="counts", json_path=options.json)


def transformer_sizes(card: Card, checkpoint_dir: Path | None) -> TransformerSizes:
    """The sizes in the card's files if these are at hand, else the published ones."""
    folder = checkpoint_dir or shipped_folder(card)
    if checkpoint_dir is None and not (folder / card.files.transformer.path).exists():
        return PUBLISHED
    part = locate_parts(card.files, folder).parts["transformer"]
    sizes: TransformerSizes = check_part("transformer", part, card).sizes
    return sizes


def count_all(
    card: Card,
    sizes: TransformerSizes,
    *,
    width: int,
    height: int,
    tokens: list[int],
    compiled: bool = False,
    templates: bool = False,
    float8: bool = False,
) -> list[dict[str, Any]]:
    """A row for the library's class, and one of ours for each number of tokens.

    With `compiled`, a row for compiled blocks follows, for the first number of tokens, and with
    `templates` one for those whose products are templates. With `float8` ours have their large
    products in it.
    """
    scale = card.vae.scale_factor
    shape = (1, sizes.latent_channels, 1, height // scale, width // scale)
    library = count_library(card, sizes, shape)
    base = library["TFLOP"]
    rows = [library]
    context = card.text.context_rows
    for number in tokens:
        ours = count_ours(card, sizes, shape, min(number, context), float8=float8)
        rows.append({**ours, "FLOPs saved": f"{1 - ours['TFLOP'] / base:.2%}"})
    for with_templates in (False, True)[: compiled + (compiled and templates)]:
        found = count_compiled(
            card, sizes, shape, min(tokens[0], context), templates=with_templates, float8=float8
        )
        rows.append({**rows[1], **found})
    step = count_step(card, sizes, width=width, height=height)
    for row in rows[1:]:
        row |= step
    return rows


@torch.no_grad()
def count_library(card: Card, sizes: TransformerSizes, shape: tuple[int, ...]) -> dict[str, Any]:
    """The library's class with both halves of the guidance in one forward."""
    module = library_transformer(sizes, card).bfloat16()
    latents = torch.empty(2, *shape[1:], dtype=torch.bfloat16, device=META)
    sigma = torch.empty(2, device=META)
    text = (2, card.text.context_rows, sizes.text_width)
    context = torch.empty(text, dtype=torch.bfloat16, device=META)
    with counted() as counts:
        module(latents, sigma, context, return_dict=False)
    return {**_row("the library's class", counts), "FLOPs saved": "", "waits per step": "",
            "copies per step": ""}  # fmt: skip


def count_ours(
    card: Card,
    sizes: TransformerSizes,
    shape: tuple[int, ...],
    tokens: int,
    *,
    float8: bool = False,
) -> dict[str, Any]:
    """Our forward of a pair whose texts and noise level it has met before."""
    network = _network(card, sizes)
    if float8:
        keep_float8(network.module)
        network.use(Blocks(), float8=True)
    latents = torch.empty(shape, device=META)
    texts = [_text(network, card, sizes, tokens) for _ in range(2)]
    rows = [Row(latents, 0.5, text) for text in texts]
    network.velocity(rows)
    with counted() as counts:
        network.velocity(rows)
    row = _row(f"ours, {tokens} tokens", counts)
    if float8:
        operations = counts[1].get_flop_counts()["Global"]
        row["of it float8"] = operations[torch.ops.aten._scaled_mm] / 1e12
    return row


def float8_cost(card: Card, sizes: TransformerSizes, shape: tuple[int, ...], tokens: int) -> float:
    """What a forward in float8 costs, of an exact one, if that halves the time of its products."""
    row = count_ours(card, sizes, shape, tokens, float8=True)
    return 1 - 0.5 * float(row["of it float8"]) / float(row["TFLOP"])


def count_compiled(
    card: Card,
    sizes: TransformerSizes,
    shape: tuple[int, ...],
    tokens: int,
    *,
    templates: bool = False,
    float8: bool = False,
) -> dict[str, Any]:
    """Our forward of a pair with compiled blocks, as Inductor schedules them."""
    # Loads the compiler, which takes seconds.
    from model.bench.compiled_counts import ScheduledBlocks

    network, scheduled = _network(card, sizes), ScheduledBlocks(templates=templates)
    if float8:
        keep_float8(network.module)
    network.use(scheduled.blocks(), float8=float8)
    latents = torch.empty(shape, device=META)
    rows = [Row(latents, 0.5, _text(network, card, sizes, tokens)) for _ in range(2)]
    network.velocity(rows)
    scheduled.reset()
    with counted() as (outside, _):
        network.velocity(rows)
    return {
        "forward": f"ours, {tokens} tokens, compiled" + ", templates" * templates,
        "launches": scheduled.kernels + sum(outside.launches.values()),
        "elementwise GB": (scheduled.bytes + sum(outside.bytes.values())) / 1e9,
    }


def count_step(
    card: Card, sizes: TransformerSizes, *, width: int, height: int, images: int = 1
) -> dict[str, Any]:
    """Waits and copies between host and device in a middle step of Euler."""
    network = _network(card, sizes)

    def encode(prompt: str) -> EncodedPrompt:
        context = torch.empty(card.text.context_rows, sizes.text_width, device=META)
        return EncodedPrompt(context, 77, 77, 77, 512, is_cut=False)

    def unused(*_: Any) -> Any:
        raise AssertionError("a middle step decodes nothing")

    def read(prompt: EncodedPrompt, _: Any) -> TextKeys:
        return network.read_text(prompt.context, prompt.tokens)

    pipeline = Pipeline(
        encode, read, network.velocity, unused, unused, latent_channels=sizes.latent_channels,
        scale_factor=card.vae.scale_factor, device=META,
    )  # fmt: skip
    engine = Engine(pipeline, token_budget=1 << 30)
    asked = GenerationRequest(prompt="1girl", steps=4, cfg_scale=4.0, sampler="euler")
    resolved = resolve_request(asked, card, seed=1).model_copy(
        update={"width": width, "height": height, "num_images": images}
    )
    engine.admit("job", resolved)
    with counted():
        engine.step()
    with counted() as (kernels, _):
        engine.step()
    return {"waits per step": kernels.waits, "copies per step": kernels.copies}


def _network(card: Card, sizes: TransformerSizes) -> Transformer:
    module = empty_transformer(sizes, card).bfloat16().requires_grad_(requires_grad=False)
    stack_projections(module)
    return Transformer(module, dtype=torch.bfloat16)


def _text(network: Transformer, card: Card, sizes: TransformerSizes, tokens: int) -> Any:
    context = torch.empty(card.text.context_rows, sizes.text_width, device=META)
    return network.read_text(context, tokens)


def _row(name: str, counts: tuple[KernelCount, FlopCounterMode]) -> dict[str, Any]:
    kernels, flops = counts
    return {
        "forward": name,
        "launches": sum(kernels.launches.values()),
        "elementwise GB": sum(kernels.bytes.values()) / 1e9,
        "TFLOP": flops.get_total_flops() / 1e12,
    }


if __name__ == "__main__":
    main()
