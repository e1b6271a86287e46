"""The bounds of the compiled forward, so that they cannot creep up; counted without a device."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.bench import counts
from model.bench.compiled_counts import schedule
from model.card import load_card

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
"""Raised by what Inductor imports."""

CARD = load_card("kirazuri-v1")
SHAPE = (1, 16, 1, 128, 128)
"""Latents of 1024x1024 pixels."""


def test_a_compiled_forward_of_a_guidance_pair_keeps_within_its_bounds() -> None:
    eager = counts.count_ours(CARD, counts.PUBLISHED, SHAPE, 77)
    compiled = counts.count_compiled(CARD, counts.PUBLISHED, SHAPE, 77)
    assert 300 < compiled["launches"] <= 405 < eager["launches"]
    assert 20 < compiled["elementwise GB"] <= 25.7 < eager["elementwise GB"]


def test_what_computes_an_operand_also_writes_it_in_float8() -> None:
    """Only attention, which is a library's kernel, cannot: twice a block another one rounds."""
    exact = counts.count_compiled(CARD, counts.PUBLISHED, SHAPE, 77)
    lossy = counts.count_compiled(CARD, counts.PUBLISHED, SHAPE, 77, float8=True)
    assert lossy["launches"] <= exact["launches"] + 2 * 28
    assert 20 < lossy["elementwise GB"] < exact["elementwise GB"]


def test_kernels_are_counted_as_they_are_scheduled() -> None:
    def two(x: Tensor, y: Tensor) -> Tensor:
        # One product, then one kernel that reads twice 8 x 8 numbers and writes 8 x 8.
        return functional.relu(x @ x.T * y) + 2

    product, rest = schedule(two, (torch.empty(8, 4, device="meta"), torch.empty(8, 8)))
    assert product[0]
    assert rest == (False, 4 * 3 * 64)


def test_what_is_not_compiled_is_said() -> None:
    def graph_free(number: int) -> int:
        return number

    with pytest.raises(RuntimeError, match="graph_free was not compiled"):
        schedule(graph_free, (1,))
