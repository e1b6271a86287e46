"""Products with weights, by the fastest exact kernel."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.network.load import Components
from model.network.transformer.forward import Row, Transformer
from model.network.transformer.products import linear, linear_each
from tests.support.random_checkpoint import CONTEXT_ROWS


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_library(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    for shape, width in (((5,), 7), ((1, 1), 3), ((2, 9, 24), 48), ((3, 64), 576)):
        x = torch.randn(*shape, 192, generator=generator).to(dtype)
        wide = torch.randn(width, 2 * 192, generator=generator).to(dtype)
        for weight in (wide[:, :192].contiguous(), wide[:, :192], wide[:, ::2]):
            exact = x.double() @ weight.double().T
            found, library = linear(x, weight), torch.nn.functional.linear(x, weight)
            allowed = max(2e-6, 2 * relative_error(library, exact))
            assert relative_error(found, exact) < allowed, (shape, width)


def test_several_products_are_each_of_them() -> None:
    x, weights = torch.randn(2, 9, 16), torch.randn(3, 8, 16)
    for found, weight in zip(linear_each(x, weights, 3), weights, strict=True):
        assert torch.equal(found, linear(x, weight))


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not torch._C.has_mkl, reason="no x86 processor")
def test_no_product_of_the_forward_takes_the_slow_library(components: Components) -> None:
    network = Transformer(components.transformer, dtype=torch.float32)
    context = torch.randn(CONTEXT_ROWS, 20)
    context[9:] = 0
    row = Row(torch.randn(1, 16, 1, 6, 10), 0.5, network.read_text(context, 9))
    network.velocity([row])  # fills the caches
    with torch.inference_mode(), Launches() as seen:
        network.velocity([row])
    assert "mkldnn::_linear_pointwise" in seen.names
    assert {"aten::mm", "aten::addmm", "aten::bmm"}.isdisjoint(seen.names)
