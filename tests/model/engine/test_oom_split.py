"""Forwards on a device whose memory is short."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.engine.oom_split import ChunkedForward


class SmallDevice:
    """Holds `room` tokens at most; every row's answer tells which row it was."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, contexts: Tensor) -> Tensor:
        if len(x) * (x.shape[-2] // 2) * (x.shape[-1] // 2) > self.room:
            raise torch.OutOfMemoryError("no memory")
        self.sizes.append(len(x))
        return x * sigma.view(-1, 1, 1, 1, 1) + contexts[:, 0, 0].view(-1, 1, 1, 1, 1)


@pytest.fixture
def rows() -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
    def make(count: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(count)
        x = torch.randn(count, 2, 1, 4, 4, generator=generator)  # four tokens a row
        return x, torch.rand(count, generator=generator), torch.arange(count).float().view(-1, 1, 1)

    return make


def test_nothing_changes_while_everything_fits(
    rows: Callable[[int], tuple[Tensor, Tensor, Tensor]],
) -> None:
    device = SmallDevice(100)
    chunked = ChunkedForward(device)
    assert torch.equal(chunked(*rows(8)), device(*rows(8)))
    assert device.sizes == [8, 8]
    assert (chunked.max_tokens, chunked.shortages) == (math.inf, 0)


@pytest.mark.parametrize("count", [2, 7, 8, 11])
def test_a_batch_is_halved_until_it_fits_and_comes_back_in_order(
    count: int, rows: Callable[[int], tuple[Tensor, Tensor, Tensor]]
) -> None:
    chunked = ChunkedForward(device := SmallDevice(12))
    answer = chunked(*rows(count))
    assert torch.equal(answer, SmallDevice(1000)(*rows(count)))
    assert max(device.sizes) <= 3
    assert chunked.shortages == (count > 3) + (count > 7)


def test_the_next_forwards_stay_small_without_trying_again(
    rows: Callable[[int], tuple[Tensor, Tensor, Tensor]],
) -> None:
    chunked = ChunkedForward(device := SmallDevice(16))
    chunked(*rows(8))
    assert chunked.shortages == 1
    for _ in range(100):
        chunked(*rows(8))
    assert chunked.shortages == 1
    assert set(device.sizes) == {4}
    device.room = 1000
    for _ in range(700):
        chunked(*rows(8))
    assert device.sizes[-1] == 8
    assert chunked.shortages == 1


def test_a_single_row_without_memory_is_an_error(
    rows: Callable[[int], tuple[Tensor, Tensor, Tensor]],
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        ChunkedForward(SmallDevice(3))(*rows(4))
