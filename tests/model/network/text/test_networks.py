"""Qwen3 and the text adapter compute what the libraries' modules compute."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.bench.library import library_conditioner, library_text_encoder
from model.card import Card, load_card
from model.files.weight_shapes import AdapterSizes, TextEncoderSizes
from model.network.text.networks import adapted, qwen_states
from tests.support.weight_trees import tree_of

CARD = load_card("kirazuri-v1")
QWEN = [
    TextEncoderSizes(width=32, heads=4, key_heads=2, head_dim=8, blocks=3, mlp=48, vocabulary=50),
    TextEncoderSizes(width=40, heads=3, key_heads=3, head_dim=16, blocks=2, mlp=24, vocabulary=9),
    TextEncoderSizes(
        width=256, heads=16, key_heads=8, head_dim=128, blocks=4, mlp=96, vocabulary=99
    ),
]
ADAPTERS = [
    AdapterSizes(
        source_width=32, target_width=20, width=24, heads=2, blocks=2, mlp=60, vocabulary=50
    ),
    AdapterSizes(
        source_width=16, target_width=32, width=32, heads=4, blocks=3, mlp=128, vocabulary=30
    ),
]
LENGTHS = (1, 2, 33, 200)


def filled(module: Any, seed: int) -> Any:
    """The module with weights that keep the variance, and norms around one."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, weight in module.state_dict().items():
        std = 0.2 if weight.ndim == 1 else weight.shape[1] ** -0.5
        mean = float(weight.ndim == 1 and name.endswith("weight"))
        weights[name] = torch.empty(weight.shape).normal_(mean, std, generator=generator)
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(requires_grad=False).eval()


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.std() > 0.1
    return float((found - expected).abs().max() / expected.abs().max())


def of_card(theta: float, epsilon: float) -> Card:
    text = CARD.text.model_copy(
        update={"qwen_rope_theta": theta, "qwen_rms_norm_eps": epsilon, "context_rows": 1}
    )
    return CARD.model_copy(update={"text": text})


@pytest.mark.parametrize("sizes", QWEN)
@pytest.mark.parametrize(("theta", "epsilon"), [(1e6, 1e-6), (1e4, 1e-2)])
def test_qwen3_equals_the_library(sizes: TextEncoderSizes, theta: float, epsilon: float) -> None:
    library = filled(library_text_encoder(sizes, of_card(theta, epsilon)), 1)
    tree = tree_of(library)
    for length in LENGTHS:
        ids = torch.randint(sizes.vocabulary, (2, length))
        expected = library(input_ids=ids, use_cache=False).last_hidden_state
        found = qwen_states(tree, ids, theta=theta, epsilon=epsilon)
        assert error(found, expected) < 1e-5, length


def test_qwen3_leaves_out_what_the_library_masks() -> None:
    sizes = QWEN[0]
    library = filled(library_text_encoder(sizes, CARD), 2)
    ids = torch.randint(sizes.vocabulary, (3, 12))
    lengths = (12, 7, 1)
    mask = torch.tensor([[place < length for place in range(12)] for length in lengths])
    batch = library(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    for row, length in enumerate(lengths):
        text = CARD.text
        found = qwen_states(
            tree_of(library), ids[row : row + 1, :length],
            theta=text.qwen_rope_theta, epsilon=text.qwen_rms_norm_eps,
        )  # fmt: skip
        assert error(found[0], batch[row, :length]) < 1e-5, length


@pytest.mark.parametrize("sizes", ADAPTERS)
def test_the_adapter_equals_the_library(sizes: AdapterSizes) -> None:
    library = filled(library_conditioner(sizes, of_card(1e6, 1e-6)), 3)
    tree = tree_of(library)
    assert hasattr(tree, "in_proj") == (sizes.width != sizes.target_width)
    for states, rows in zip(LENGTHS, reversed(LENGTHS), strict=True):
        ids = torch.randint(sizes.vocabulary, (2, rows))
        source = torch.randn(2, states, sizes.source_width)
        assert error(adapted(tree, source, ids), library(source, ids)) < 1e-5, rows


def test_weights_of_less_precision_are_widened_first() -> None:
    library: nn.Module = filled(library_text_encoder(QWEN[0], CARD), 4)
    narrow = tree_of(library)
    for weight in narrow.parameters():
        if weight.ndim > 1:
            weight.data = weight.data.bfloat16()
    wide = tree_of(library)
    wide.load_state_dict({name: weight.float() for name, weight in narrow.state_dict().items()})
    ids = torch.randint(50, (1, 20))
    found, expected = (qwen_states(tree, ids, theta=1e6, epsilon=1e-6) for tree in (narrow, wide))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
