"""Attention to a shortened context equals attention to the whole one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.network.transformer.attention import text_attention, text_rows

CONTEXT = 512


def lengthened(values: Tensor, rows: int) -> Tensor:
    return functional.pad(values, (0, 0, 0, 0, 0, rows - values.shape[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_rows_count_as_all_that_are_left_out(dtype: torch.dtype) -> None:
    like = torch.empty(0, dtype=dtype)
    for tokens in range(CONTEXT + 1):
        rows, bias = text_rows(tokens, CONTEXT, like)
        assert tokens <= rows <= CONTEXT
        if bias is None:
            assert rows == CONTEXT
        else:
            assert rows <= tokens + 34
            assert bias.dtype == dtype
            assert not bias.flatten()[:tokens].any()
            assert bias.double().exp().sum().item() == pytest.approx(CONTEXT, rel=1e-5)


@pytest.mark.parametrize("tokens", [0, 1, 77, 470, 500, 512])
def test_attention_equals_that_to_all_rows(tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q = torch.randn(2, 30, 3, 16, generator=generator)
    k, v = torch.randn(2, 2, tokens, 3, 16, generator=generator)
    rows, bias = text_rows(tokens, CONTEXT, q)
    found = text_attention(q, lengthened(k, rows), lengthened(v, rows), bias)
    expected = text_attention(q, lengthened(k, CONTEXT), lengthened(v, CONTEXT), None)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
