"""The blocks compiled, and beside a compilation. Nothing is compiled to machine code here."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import torch

from model.network.transformer.attention import stack_projections
from model.network.transformer.blocks import Blocks
from model.network.transformer.forward import Row, Transformer
from tests.support.random_transformer import random_case, random_transformer

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
"""Raised by what the compiler imports."""


@pytest.fixture(scope="module")
def network() -> Transformer:
    module = random_transformer(1)
    stack_projections(module)
    return Transformer(module, dtype=torch.float32)


@pytest.fixture(scope="module")
def rows(network: Transformer) -> list[Row]:
    case = random_case(1, 1, 6, 10)
    texts = map(network.read_text, case.contexts, case.tokens)
    return [Row(case.latents, case.sigmas[0], text) for text in texts]


def test_compiled_blocks_compute_the_same(network: Transformer, rows: list[Row]) -> None:
    expected = network.velocity(rows)
    network.use(Blocks.compiled(backend="eager", fullgraph=True))
    try:
        found = network.velocity(rows)
    finally:
        network.use(Blocks())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(network.velocity(rows), expected)


def test_a_compilation_in_another_thread_changes_no_bit(
    network: Transformer, rows: list[Row]
) -> None:
    """PyTorch says of the whole process that it is compiling."""
    expected = network.velocity(rows)
    began, may_end = Event(), Event()

    def compiler(graph: Any, inputs: Any) -> Any:
        began.set()
        assert may_end.wait(60)
        return graph.forward

    def compile_something() -> Any:
        return torch.compile(lambda x: x * 2, backend=compiler)(torch.ones(3))

    with ThreadPoolExecutor(1) as other:
        compilation = other.submit(compile_something)
        assert began.wait(60)
        during = network.velocity(rows)
        may_end.set()
        compilation.result()
    assert torch.equal(during, expected)
