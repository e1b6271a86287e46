"""The network's own forward gives the velocities of the library's class."""

import copy
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor
from torch.nn import functional

from model.network.load import Components, load_components
from model.network.transformer import embeddings, forward
from model.network.transformer.attention import stack_projections
from model.network.transformer.forward import Row, Transformer
from tests.support.cosmos_reference import install_mask_resize
from tests.support.random_checkpoint import CONTEXT_ROWS, WrittenCheckpoint
from tests.support.random_transformer import (
    Case,
    library_velocity,
    random_case,
    random_transformer,
)
from tests.support.velocities import stacked_rows

SIZES = [(1, 16, 16), (1, 2, 2), (2, 32, 20), (3, 6, 10), (5, 8, 8), (1, 2, 90)]
"""Images, height and width of their latents."""


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, sigmas and contexts of three samples at different noise levels."""
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(3, 16, 1, 6, 10, generator=generator)
    context = torch.randn(3, CONTEXT_ROWS, 20, generator=generator)
    context[:, 9:] = 0
    return latents, torch.tensor([1.0, 0.5037, 0.002994]), context


def velocity(components: Components, *inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    network = Transformer(components.transformer, dtype=dtype or torch.float32)
    return network.velocity(stacked_rows(network, *inputs))


def network_of(module: CosmosTransformer3DModel, dtype: torch.dtype = torch.float32) -> Transformer:
    stack_projections(module)
    return Transformer(module, dtype=dtype)


def rows_of(network: Transformer, case: Case) -> list[Row]:
    """Two rows for each image, as guidance asks for them."""
    texts = map(network.read_text, case.contexts, case.tokens)
    latents = torch.split(case.latents, 1)
    return [
        Row(latents[index // 2], case.sigmas[index // 2], text) for index, text in enumerate(texts)
    ]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("seed", range(3))
def test_in_float32_it_equals_the_library_to_1e5(seed: int) -> None:
    module = random_transformer(seed)
    errors = {}
    for size in SIZES:
        case = random_case(seed, *size)
        expected = library_velocity(module, case)
        assert expected.std() > 0.3
        network = network_of(copy.deepcopy(module))
        errors[size] = relative_error(network.velocity(rows_of(network, case)), expected)
    assert max(errors.values()) < 1e-5, errors


def test_in_bfloat16_it_is_no_further_from_float32_than_the_library() -> None:
    ours = theirs = 0.0
    for seed in range(4):
        module = random_transformer(seed)
        rounded = copy.deepcopy(module).bfloat16()
        for size in SIZES:
            case = random_case(seed, *size)
            exact = library_velocity(module, case)
            network = network_of(copy.deepcopy(rounded), torch.bfloat16)
            mine = network.velocity(rows_of(network, case))
            assert mine.dtype == torch.float32
            ours += float((mine - exact).norm() / exact.norm())
            theirs += float((library_velocity(rounded, case) - exact).norm() / exact.norm())
    assert 0 < ours <= theirs


def test_the_velocity_equals_that_of_the_17_channel_network(
    components: Components,
    written: WrittenCheckpoint,
    inputs: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_mask_resize(monkeypatch)
    latents, sigma, context = inputs
    (expected,) = written.made.transformer(
        latents, sigma, context, padding_mask=torch.zeros(1, 1, 48, 80), return_dict=False
    )
    found = velocity(components, *inputs)
    assert found.std() > 0.1
    assert relative_error(found, expected) < 1e-5


def test_rows_of_one_image_share_the_work_before_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = network_of(random_transformer(1))
    rows = rows_of(network, random_case(1, 2, 8, 8))
    batches = []
    attention = functional.scaled_dot_product_attention

    def recording(q: Tensor, *others: Any, **options: Any) -> Tensor:
        batches.append(len(q))
        return attention(q, *others, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", recording)
    together = network.velocity(rows)
    assert batches == [2, 4, *[4] * 6]  # to the patches and to the text, in each of four blocks
    apart = torch.cat([network.velocity([row]) for row in rows])
    assert torch.allclose(together, apart, atol=1e-5)


def test_samples_of_a_batch_are_independent(
    components: Components, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    together = velocity(components, *inputs)
    for i in range(3):
        alone = velocity(components, *(part[i : i + 1] for part in inputs))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)


def test_the_network_attends_to_the_zero_rows(
    components: Components, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, sigma, context = inputs
    full = velocity(components, latents, sigma, context)
    assert (full - velocity(components, latents, sigma, context[:, :9])).abs().max() > 1e-3
    changed = context.clone()
    changed[:, -1] = 1.0
    assert (full - velocity(components, latents, sigma, changed)).abs().max() > 1e-3


def test_sigma_is_neither_scaled_nor_ignored(
    components: Components, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, sigma, context = inputs
    found = velocity(components, latents, sigma, context)
    assert (found - velocity(components, latents, sigma * 0.9, context)).abs().max() > 1e-3


def test_sigma_is_not_rounded_to_bfloat16(
    written: WrittenCheckpoint, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    """0.5037 and its neighbour 0.5039 are one number in bfloat16."""
    parts = load_components(
        written.card, written.folder, device=torch.device("cpu"), dtype=torch.bfloat16
    )
    latents, _, context = (part[:1] for part in inputs)
    low, high = (
        velocity(parts, latents, torch.tensor([level]), context, dtype=torch.bfloat16)
        for level in (0.5020, 0.5037)
    )
    assert not torch.equal(low, high)


def test_bfloat16_is_close_and_returns_float32(
    components: Components,
    written: WrittenCheckpoint,
    inputs: tuple[Tensor, Tensor, Tensor],
) -> None:
    parts = load_components(
        written.card, written.folder, device=torch.device("cpu"), dtype=torch.bfloat16
    )
    exact = velocity(components, *inputs)
    rounded = velocity(parts, *inputs, dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).pow(2).mean().sqrt() < 0.05 * exact.std()


def test_sides_up_to_4096_pixels_have_positions(
    components: Components, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, sigma, context = inputs
    for height, width in ((4096, 16), (16, 4096)):
        latents = torch.ones(1, 16, 1, height // 8, width // 8)
        found = velocity(components, latents, sigma[:1], context[:1])
        assert found.shape == latents.shape
        assert torch.isfinite(found).all(), (height, width)


# -- what is computed once ---------------------------------------------------------------------


def test_a_text_is_read_once_for_each_set_of_weights() -> None:
    module = random_transformer(2)
    case = random_case(2, 1, 4, 4)
    stack_projections(module)
    variants = ["plain"]
    network = Transformer(module, dtype=torch.float32, variant=lambda: variants[-1])
    context, tokens = case.contexts[0], case.tokens[0]
    first = network.read_text(context, tokens)
    assert network.read_text(context, tokens) is first
    assert first.values.shape == (4, 2, tokens, 3, 32)
    variants.append("changed")
    layer: Any = module.get_submodule("transformer_blocks.1.attn2.to_v")
    layer.weight = torch.nn.Parameter(2 * layer.weight, requires_grad=False)
    other = network.read_text(context, tokens)
    assert torch.allclose(other.values[1, 1], 2 * first.values[1, 1])
    variants.append("plain")
    assert network.read_text(context, tokens) is first


def test_texts_are_forgotten_beyond_their_bytes() -> None:
    module = random_transformer(2)
    stack_projections(module)
    case = random_case(2, 2, 4, 4)
    contexts = list(case.contexts)
    size = 4 * 2 * 3 * 32 * 4  # bytes of one token
    limit = size * (case.tokens[0] + case.tokens[1])
    network = Transformer(module, dtype=torch.float32, text_bytes=limit)
    a, b = (network.read_text(contexts[i], case.tokens[i]) for i in (0, 1))
    assert network.read_text(contexts[0], case.tokens[0]) is a
    network.read_text(contexts[2], 1)  # one token too many: the least recently used goes
    assert network.read_text(contexts[0], case.tokens[0]) is a
    assert network.read_text(contexts[1], case.tokens[1]) is not b


def test_a_noise_level_is_computed_once_and_has_the_same_bits_in_every_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed = []
    table = embeddings.modulation_table

    def recording(module: CosmosTransformer3DModel, sigma: float, like: Tensor) -> Tensor:
        computed.append((sigma, table(module, sigma, like)))
        return computed[-1][1]

    monkeypatch.setattr(forward, "modulation_table", recording)
    module = random_transformer(3)
    case = random_case(3, 3, 4, 4)
    together, alone = network_of(module), network_of(copy.deepcopy(module))
    for _ in range(2):
        together.velocity(rows_of(together, case))
    assert [sigma for sigma, _ in computed] == case.sigmas
    alone.velocity(rows_of(alone, case)[2:4])
    assert computed[-1][0] == case.sigmas[1]
    assert torch.equal(computed[-1][1], computed[1][1])


def test_stacked_projections_keep_the_bits_and_share_their_memory() -> None:
    module = random_transformer(4)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    stack_projections(module)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    attention: Any = module.transformer_blocks[0].attn1
    assert attention.to_k.weight.data_ptr() == attention.qkv[1].data_ptr()
