"""The tables of names and shapes equal the libraries' modules."""

import random
from collections.abc import Iterator

import torch
from torch import nn

from model.bench.library import (
    library_conditioner,
    library_text_encoder,
    library_transformer,
    library_vae,
)
from model.card import Card, load_card
from model.files.checkpoint_check import check_parts
from model.files.layouts import locate_parts
from model.files.weight_shapes import (
    AdapterSizes,
    Shapes,
    TextEncoderSizes,
    TransformerSizes,
    adapter_shapes,
    text_encoder_shapes,
    transformer_shapes,
    vae_shapes,
)
from tests.support.every_layout import CARD, SHIPPED

PUBLISHED = (
    TransformerSizes(16, 16, 128, 28, 8192, 1024, 256),
    AdapterSizes(1024, 1024, 1024, 16, 6, 4096, 32128),
    TextEncoderSizes(1024, 16, 8, 128, 28, 3072, 151936),
)


def shapes_of(module: nn.Module) -> Shapes:
    assert all(weight.is_meta for weight in module.state_dict().values())
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


def differing(
    card: Card, sizes: tuple[TransformerSizes, AdapterSizes, TextEncoderSizes]
) -> Iterator[str]:
    """The parts whose module differs from its table."""
    transformer, adapter, text_encoder = sizes
    libraries: list[tuple[nn.Module, Shapes]] = [
        (library_transformer(transformer, card), transformer_shapes(transformer)),
        (library_conditioner(adapter, card), adapter_shapes(adapter)),
        (library_text_encoder(text_encoder, card), text_encoder_shapes(text_encoder)),
        (library_vae(card), vae_shapes(card.vae, card.transformer.latent_channels)),
    ]
    for module, table in libraries:
        if shapes_of(module) != table:
            yield f"{type(module).__name__} {sizes}"


def test_the_shipped_and_the_published_modules_equal_their_tables() -> None:
    checked = check_parts(locate_parts(CARD.files, SHIPPED).parts, CARD)
    tiny = tuple(checked[name].sizes for name in ("transformer", "conditioner", "text_encoder"))
    assert list(differing(CARD, tiny)) == []
    assert list(differing(load_card("kirazuri-v1"), PUBLISHED)) == []
    count = sum(torch.Size(shape).numel() for shape in transformer_shapes(PUBLISHED[0]).values())
    assert count == 1_956_405_248 - 2048 * 4, "without the columns of the padding mask"


def test_modules_of_random_sizes_equal_their_tables() -> None:
    draw = random.Random(5)
    wrong: list[str] = []
    for _ in range(12):
        heads, head_dim, keys = draw.randint(1, 4), 2 * draw.randint(6, 12), draw.randint(1, 3)
        width, rank = heads * head_dim, draw.randint(1, 9)
        sizes = (
            TransformerSizes(
                16, heads, head_dim, draw.randint(1, 3), draw.randint(1, 99), 20, rank
            ),
            AdapterSizes(24, draw.choice((width, 20)), width, heads, 2, draw.randint(1, 99), 30),
            TextEncoderSizes(24, 2 * keys, keys, head_dim, 2, draw.randint(1, 99), 40),
        )
        levels = draw.randint(2, 4)
        vae = CARD.vae.model_copy(
            update={
                "base_dim": 4 * draw.randint(1, 4),
                "dim_mult": tuple(draw.randint(1, 4) for _ in range(levels)),
                "num_res_blocks": draw.randint(1, 3),
                "temperal_downsample": tuple(draw.random() < 0.5 for _ in range(levels - 1)),
            }
        )
        wrong += differing(CARD.model_copy(update={"vae": vae}), sizes)
    assert wrong == []
