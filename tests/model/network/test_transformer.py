"""The velocity equals the library's; the network receives the right inputs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.network.load import Components, load_components
from model.network.transformer import predict_velocity
from tests.support.cosmos_reference import install_mask_resize
from tests.support.random_checkpoint import CONTEXT_ROWS, WrittenCheckpoint


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, sigmas and contexts of three samples at different noise levels."""
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(3, 16, 1, 6, 10, generator=generator)
    context = torch.randn(3, CONTEXT_ROWS, 20, generator=generator)
    context[:, 9:] = 0
    return latents, torch.tensor([1.0, 0.5037, 0.002994]), context


def velocity(components: Components, *inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    with torch.no_grad():
        return predict_velocity(components.transformer, *inputs, dtype=dtype or torch.float32)


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
    assert torch.allclose(found, expected, atol=1e-6)


def test_samples_of_a_batch_are_independent(
    components: Components, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    together = velocity(components, *inputs)
    for i in range(3):
        alone = velocity(components, *(part[i : i + 1] for part in inputs))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_network_gets_float32_sigmas_and_no_mask(
    dtype: torch.dtype,
    written: WrittenCheckpoint,
    inputs: tuple[Tensor, Tensor, Tensor],
) -> None:
    calls: list[dict[str, Any]] = []

    def transformer(**given: Any) -> tuple[Tensor]:
        calls.append(given)
        return (given["hidden_states"],)

    latents, sigma, context = inputs
    found = predict_velocity(transformer, latents, sigma, context, dtype=dtype)  # type: ignore[arg-type]
    (given,) = calls
    assert set(given) == {"hidden_states", "timestep", "encoder_hidden_states", "return_dict"}
    assert given["timestep"].dtype == torch.float32
    assert torch.equal(given["timestep"], sigma)
    assert given["hidden_states"].dtype == given["encoder_hidden_states"].dtype == dtype
    assert given["encoder_hidden_states"].shape == (3, CONTEXT_ROWS, 20)
    assert found.dtype == torch.float32


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


def test_a_sigma_of_another_shape_or_precision_is_refused(
    components: Components, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, _, context = inputs
    bfloat16 = torch.tensor([0.5] * 3, dtype=torch.bfloat16)
    for sigma in (torch.tensor([0.5]), bfloat16, torch.ones(())):
        with pytest.raises(ValueError, match="sigma must be float32"):
            velocity(components, latents, sigma, context)
