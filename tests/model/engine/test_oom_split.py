"""Forwards on a device with little memory."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from model.engine.oom_split import ChunkedForward
from model.network.transformer.forward import Row, TextKeys

MakeRows = Callable[[int], list[Row]]


def nothing() -> None:
    """There is no cache to release."""


class SmallDevice:
    """Has memory for `max_tokens` tokens. Every row's result depends on the row."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.sizes: list[int] = []

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        height, width = rows[0].latents.shape[-2:]
        if len(rows) * (height // 2) * (width // 2) > self.max_tokens:
            raise torch.OutOfMemoryError("no memory")
        self.sizes.append(len(rows))
        return torch.cat([row.latents * row.sigma + row.text.values for row in rows])


@pytest.fixture
def rows() -> MakeRows:
    def make(count: int) -> list[Row]:
        generator = torch.Generator().manual_seed(count)
        x = torch.randn(count, 2, 1, 4, 4, generator=generator)  # four tokens a row
        sigmas = torch.rand(count, generator=generator).tolist()
        texts = [TextKeys(torch.tensor(float(number)), 1) for number in range(count)]
        return [Row(*row) for row in zip(torch.split(x, 1), sigmas, texts, strict=True)]

    return make


def test_a_batch_that_fits_is_not_split(
    rows: MakeRows,
) -> None:
    device = SmallDevice(100)
    chunked = ChunkedForward(device, nothing)
    assert torch.equal(chunked(rows(8)), device(rows(8)))
    assert device.sizes == [8, 8]
    assert (chunked.max_tokens, chunked.shortages) == (math.inf, 0)


def test_a_batch_is_halved_until_it_fits_and_keeps_its_order(
    rows: MakeRows,
) -> None:
    for count in (2, 7, 8, 11):
        chunked = ChunkedForward(device := SmallDevice(12), nothing)
        velocity = chunked(rows(count))
        assert torch.equal(velocity, SmallDevice(1000)(rows(count))), count
        assert max(device.sizes) <= 3, count
        assert chunked.shortages == (count > 3) + (count > 7), count


def test_later_forwards_stay_small_and_grow_slowly(
    rows: MakeRows,
) -> None:
    chunked = ChunkedForward(device := SmallDevice(16), nothing)
    chunked(rows(8))
    assert chunked.shortages == 1
    for _ in range(100):
        chunked(rows(8))
    assert chunked.shortages == 1
    assert set(device.sizes) == {4}
    device.max_tokens = 1000
    for _ in range(700):
        chunked(rows(8))
    assert device.sizes[-1] == 8
    assert chunked.shortages == 1


def test_a_single_row_without_memory_is_an_error(
    rows: MakeRows,
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        ChunkedForward(SmallDevice(3), nothing)(rows(4))
