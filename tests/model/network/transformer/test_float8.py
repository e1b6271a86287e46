"""Products in float8 beside a second computation, from the bytes and in float64."""

import pytest
import torch
from torch import Tensor

from model.files.stored_weights.float8 import bfloat16_codes
from model.network.transformer import products
from model.network.transformer.attention import stack_projections
from model.network.transformer.blocks import Blocks
from model.network.transformer.float8 import (
    LARGEST,
    Float8,
    float8_bytes,
    float8_fault,
    float8_linear,
    float8_places,
    keep_float8,
    quantised,
)
from model.network.transformer.forward import Row, Transformer
from model.network.transformer.products import linear_each
from tests.support.random_transformer import random_case, random_transformer

CODES = torch.tensor(bfloat16_codes("F8_E4M3", 1.0), dtype=torch.uint16)
E4M3 = CODES.view(torch.bfloat16).double()
"""The value of each byte, by a decoder that does not use PyTorch's type."""


def decoded(matrix: Float8) -> Tensor:
    """The numbers that a matrix means, float64."""
    bits = matrix.numbers.view(torch.uint8).int()
    return E4M3[bits] * matrix.scale.double()


def drawn(rows: int, columns: int, *, seed: int = 3) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_every_number_becomes_the_nearest_one_of_its_row() -> None:
    x = drawn(40, 96) * torch.logspace(-20, 20, 40).unsqueeze(1)
    x[:, ::7] *= 1e-3  # down to the small numbers of E4M3, which have few digits
    found = quantised(x)
    scaled = (x / found.scale).double()
    finite = E4M3[E4M3.isfinite()]
    nearest = (scaled.unsqueeze(-1) - finite).abs().amin(-1)
    assert torch.equal((decoded(found) / found.scale.double() - scaled).abs(), nearest)
    largest = decoded(found).abs().amax(1)
    torch.testing.assert_close(largest, x.abs().amax(1).double(), atol=0, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)])
def test_a_product_is_that_of_the_rounded_matrices(dtype: torch.dtype, tolerance: float) -> None:
    for rows, into, out in ((1, 16, 16), (7, 192, 576), (64, 576, 192)):
        x, matrix = drawn(rows, into).to(dtype), drawn(out, into, seed=4).to(dtype)
        weight = quantised(matrix)
        found = float8_linear(x.view(1, rows, into), weight)
        assert found.shape == (1, rows, out)
        assert found.dtype == dtype
        exact = decoded(quantised(x)) @ decoded(weight).T
        sizes = decoded(quantised(x)).abs() @ decoded(weight).abs().T
        error = ((found[0].double() - exact).abs() / sizes).max()
        assert error <= tolerance, (rows, into, out)
        loss = (exact - x.double() @ matrix.double().T).norm() / exact.norm()
        assert 0.02 < loss < 0.05  # two roundings to four binary digits


def test_an_outlier_costs_its_own_row_alone() -> None:
    x, weight = drawn(4, 64), quantised(drawn(32, 64, seed=5))
    plain = float8_linear(x, weight)
    x[1, 5] = 1e6
    found = float8_linear(x, weight)
    others = torch.tensor([0, 2, 3])
    assert torch.equal(found[others], plain[others])
    column = decoded(weight)[:, 5]
    torch.testing.assert_close(found[1].double(), 1e6 * column, atol=1e4, rtol=1e-2)


def test_zeros_small_and_huge_rows_stay_finite() -> None:
    weight = quantised(drawn(32, 64, seed=5))
    rows = torch.tensor([0.0, 1e-30, 1e30, 1e-40]).unsqueeze(1).expand(4, 64)
    found = float8_linear(rows, weight)
    assert found.isfinite().all()
    assert (found[0] == 0).all()
    ones = decoded(weight).sum(1)
    torch.testing.assert_close(found[2].double(), 1e30 * ones, atol=0, rtol=1e-5)
    torch.testing.assert_close(found[1].double(), 1e-30 * ones, atol=0, rtol=1e-5)
    of_zeros = float8_linear(drawn(3, 64), quantised(torch.zeros(16, 64)))
    assert (of_zeros == 0).all()


def test_the_largest_numbers_do_not_become_nan() -> None:
    """E4M3 has no infinity: what rounds beyond its largest number would be NaN."""
    x = torch.full((1, 16), 3.0)
    x[0, 1:] = torch.nextafter(torch.tensor(3.0), torch.tensor(4.0))
    found = quantised(x)
    assert found.numbers.float().abs().max() == LARGEST
    assert decoded(found).isfinite().all()


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_its_row(fault: float) -> None:
    x = drawn(3, 32)
    x[1, 4] = fault
    found = float8_linear(x, quantised(drawn(16, 32, seed=6)))
    assert found[[0, 2]].isfinite().all()
    assert not found[1].isfinite().any()


def test_several_products_in_one_are_each_of_them() -> None:
    x, weights = drawn(9, 32).view(1, 9, 32), drawn(48, 32).view(3, 16, 32)
    each = linear_each(x, quantised(weights.flatten(0, 1)), 3)
    for found, weight in zip(each, weights, strict=True):
        torch.testing.assert_close(found, float8_linear(x, quantised(weight)), atol=1e-5, rtol=0)


def test_a_device_without_such_products_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert float8_fault(device, torch.float32) is None
    assert float8_fault(device, torch.bfloat16) is None

    def refused(*_: object, **__: object) -> Tensor:
        raise RuntimeError("only compute capability >= 9.0 or 8.9\nand a trace")

    monkeypatch.setattr(torch, "_scaled_mm", refused)
    assert float8_fault(device, torch.float32) == "only compute capability >= 9.0 or 8.9"
    monkeypatch.setattr(torch, "_scaled_mm", lambda x, *_, **__: torch.zeros(16, 16))
    assert "16 x 16 ones give 0" in str(float8_fault(device, torch.float32))


def test_a_forward_is_that_of_the_rounded_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with every product in float64; other sums may round a number to its neighbour."""
    module = random_transformer(2, heads=2, blocks=3)
    stack_projections(module)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    keep_float8(module)
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
    matrices = sum(getattr(part, name).numel() for part, name in float8_places(module))
    width = 2 * 32
    assert matrices == 3 * (6 + 8) * width**2  # of the ten matrices of a block all but k and v
    rows = 3 * width * (3 + 1 + 1 + 1 + 4 + 1)
    assert float8_bytes(module) == matrices + 4 * rows

    case = random_case(5, 2, 8, 12)
    network = Transformer(module, dtype=torch.float32)
    texts = list(map(network.read_text, case.contexts, case.tokens))
    latents = torch.split(case.latents, 1)
    batch = [Row(latents[n // 2], case.sigmas[n // 2], text) for n, text in enumerate(texts)]
    exact = network.velocity(batch)
    network.use(Blocks(), float8=True)
    found = network.velocity(batch)
    alone = torch.cat([network.velocity([row]) for row in batch])
    calls = []

    def second(x: Tensor, weight: Float8) -> Tensor:
        calls.append(weight)
        flat = decoded(quantised(x.reshape(-1, x.shape[-1]))) @ decoded(weight).T
        return flat.float().view(*x.shape[:-1], -1)

    monkeypatch.setattr(products, "float8_linear", second)
    expected = network.velocity(batch)
    network.use(Blocks())
    assert torch.equal(network.velocity(batch), exact)
    assert len(calls) == 3 * 6
    loss = distance(found, exact)
    assert 0.005 < loss < 0.15
    assert distance(found, expected) < 0.2 * loss
    assert distance(found, alone) < 0.2 * loss


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative to the norm."""
    return float((found - exact).norm() / exact.norm())
