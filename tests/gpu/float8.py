"""Float8 on the device: whether it computes what it should, and what it saves and loses."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.engine.protocol import FLOAT8
from model.network.transformer.blocks import Blocks
from model.network.transformer.float8 import (
    Float8,
    float8_fault,
    float8_linear,
    keep_float8,
    quantised,
)
from model.network.transformer.forward import Transformer
from tests.gpu.checks import digest, distance, error, same, style_lora
from tests.gpu.findings import Check, Finding, Number
from tests.gpu.speed import of_network, use_fastest_kernels
from tests.gpu.subject import DTYPES, Case, Subject, pictures

PRODUCT_ERROR = 2**-7
"""Of the largest result, which is rounded to bfloat16; tensor cores add with fewer bits."""


def float8(subject: Subject) -> Iterator[Finding]:
    """Products beside those of the rounded matrices, whole pictures, and the times."""
    dtype = DTYPES[subject.precision]
    if fault := float8_fault(subject.device, dtype):
        yield Number("float8", None, "", f"this device computes none: {fault}")
        return
    yield products(subject, dtype)
    yield from images(subject)
    yield from linear_layers(subject)
    yield from forwards(subject, dtype)


def products(subject: Subject, dtype: torch.dtype) -> Check:
    """Products beside those of the rounded matrices in float64, with an outlier and zeros."""
    x, weight = (torch.randn(rows, 192, device=subject.device).to(dtype) for rows in (70, 576))
    x[3, 5], x[7] = 3e4, 0
    found = float8_linear(x, quantised(weight)).double()
    exact = wide(quantised(x)) @ wide(quantised(weight)).T
    largest = exact.abs().amax(1, keepdim=True)
    worst = float(((found - exact).abs() / largest.clamp(min=1e-9)).max())
    holds = worst <= PRODUCT_ERROR and bool(found.isfinite().all()) and not bool(found[7].any())
    detail = f"{worst:.1e} of the largest of a row; at most {PRODUCT_ERROR:.1e}"
    return Check("float8: products are those of the rounded matrices", holds, detail)


def wide(matrix: Float8) -> Tensor:
    """The numbers that a matrix means."""
    return matrix.numbers.double() * matrix.scale.double()


def images(subject: Subject) -> Iterator[Finding]:
    """Which pictures are computed in float8, and what LoRAs leave behind."""
    plain, engine = subject.engine(), subject.engine(float8=True)
    exact = subject.request(steps=8, quality="fast", deterministic=True)
    lossy = exact.model_copy(update={"deterministic": False})
    styled = lossy.model_copy(update={"loras": (style_lora(subject),)})
    found, expected = (pictures(one, {"it": exact})["it"] for one in (engine, plain))
    name = "float8: a deterministic request stays exact"
    yield Check(name, same(found, expected), digest(found))
    before, with_it, after, again = (
        pictures(engine, {"it": wanted})["it"] for wanted in (lossy, styled, lossy, styled)
    )
    is_chosen = engine._pipeline.paths.choose(lossy) == FLOAT8
    changes = is_chosen and not same(before, expected) and not same(before, with_it)
    yield Check("float8: it and a LoRA change the picture", changes, digest(with_it))
    name = "float8: without the LoRA every byte is back, with it again too"
    yield Check(name, same(before, after) and same(with_it, again), digest(after))
    note = "mean difference of a picture; the weights may be random"
    yield Number("float8: a picture beside the exact one", distance(before, found), "levels", note)


def linear_layers(subject: Subject) -> Iterator[Finding]:
    """The linear layers of a forward of a guidance pair, of the usual size."""
    width, height = subject.sizes[1]
    config: Any = subject.parts.transformer.config
    inner = config.num_attention_heads * config.attention_head_dim
    tokens = 2 * (width // 16) * (height // 16)
    times = dict.fromkeys(("bfloat16", "float8", "float8 and its scaling"), 0.0)
    for ways in [(inner, inner)] * 6 + [(inner, 4 * inner), (4 * inner, inner)]:
        for name, call in linears(subject, tokens, *ways).items():
            times[name] += config.num_layers * subject.seconds(call)
    for name, seconds in times.items():
        note = f"{times['bfloat16'] / seconds:.2f}x bfloat16; {tokens} rows, as many as a pair has"
        yield Number(f"linear layers of a forward in {name}", 1000 * seconds, "ms", note)


def linears(subject: Subject, tokens: int, into: int, out: int) -> dict[str, Callable[[], Tensor]]:
    """A linear layer in bfloat16, in float8, and in float8 with the scaling of its input."""
    x, weight = (
        torch.randn(rows, into, device=subject.device).bfloat16() for rows in (tokens, out)
    )
    small_x, small = quantised(x), quantised(weight)

    def product() -> Tensor:
        found: Tensor = torch._scaled_mm(
            small_x.numbers, small.numbers.T, small_x.scale, small.scale.T, out_dtype=torch.bfloat16
        )
        return found

    return {
        "bfloat16": lambda: functional.linear(x, weight),
        "float8": product,
        "float8 and its scaling": lambda: float8_linear(x, small),
    }


def forwards(subject: Subject, dtype: torch.dtype) -> Iterator[Finding]:
    """A compiled forward of a guidance pair, of the usual size."""
    module = subject.module(dtype)
    keep_float8(module)
    exact, small = (Transformer(module, dtype=dtype) for _ in range(2))
    small.use(Blocks.compiled(backend=subject.backend, dynamic=False), float8=True)
    use_fastest_kernels(subject, allowed=False)
    width, height = subject.sizes[1]
    case = Case(subject, (width, height), 1)
    usual, lossy = (of_network(network, case) for network in (exact, small))
    note = f"difference from the exact one {error(lossy(), usual()):.2e}"
    title = f"forward {width}x{height}, ours in float8, compiled"
    yield Number(title, 1000 * subject.seconds(lossy), "ms", note)
