"""Float8 weights widen exactly as their definition says."""

import struct

import numpy
import torch

from model.files.stored_weights.float8 import bfloat16_codes, widen
from tests.support.float8 import decode_float8, expected_weight, round_to_bfloat16

ALL_BYTES = numpy.arange(256, dtype=numpy.uint8)
FORMATS = (("F8_E4M3", torch.float8_e4m3fn, 3), ("F8_E5M2", torch.float8_e5m2, 2))


def widened(dtype: str, scale: float) -> torch.Tensor:
    data = widen(ALL_BYTES.tobytes(), bfloat16_codes(dtype, scale))
    return torch.frombuffer(data, dtype=torch.bfloat16)


def assert_same(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    assert torch.equal(mine.isnan(), theirs.isnan())
    numbers = ~theirs.isnan()
    assert torch.equal(mine[numbers].view(torch.int16), theirs[numbers].view(torch.int16))


def test_all_256_patterns_have_the_value_of_the_definition() -> None:
    for dtype, of_torch, mantissa_bits in FORMATS:
        exact = torch.from_numpy(decode_float8(ALL_BYTES, mantissa_bits=mantissa_bits))
        assert_same(widened(dtype, 1.0), exact.bfloat16())
        assert torch.equal(widened(dtype, 1.0).double().nan_to_num(7), exact.nan_to_num(7))
        assert_same(widened(dtype, 1.0), torch.from_numpy(ALL_BYTES).view(of_torch).bfloat16())


def test_known_values_of_the_specification() -> None:
    values = widened("F8_E4M3", 1.0).double()
    known = {0x00: 0.0, 0x01: 2**-9, 0x07: 7 * 2**-9, 0x08: 2**-6, 0x38: 1.0, 0x7E: 448.0}
    assert {byte: float(values[byte]) for byte in known} == known
    assert float(values[0xFE]) == -448
    assert values[[0x7F, 0xFF]].isnan().all()
    assert float(widened("F8_E5M2", 1.0)[0x7B]) == 57344


def test_scaled_values_are_rounded_once_from_the_float32_product() -> None:
    random = numpy.random.default_rng(7)
    scales = [*numpy.exp(random.normal(-4, 6, 60)).astype(numpy.float32), 0.0, 1e-40, -0.5]
    scales += [1 + 2**-8, 1 + 3 * 2**-8]  # whose products lie halfway between two weights
    for dtype, of_torch, _ in FORMATS:
        stored = torch.from_numpy(ALL_BYTES).view(of_torch)
        for scale in map(float, scales):
            mine = widened(dtype, scale)
            assert_same(mine, (stored.float() * scale).bfloat16())
            assert_same(mine, expected_weight(stored, scale))


def test_the_reference_rounds_to_nearest_even() -> None:
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF]
    values = numpy.array([struct.unpack("<f", struct.pack("<I", b))[0] for b in bits], "float32")
    assert round_to_bfloat16(values).view(numpy.uint32).tolist() == [
        0x3F800000, 0x3F820000, 0x3F810000, 0x3F800000,
    ]  # fmt: skip


def test_products_that_are_too_large_become_infinite() -> None:
    values = widened("F8_E4M3", 3e38)
    assert float(values[0x7E]) == float("inf")
    assert float(values[0xFE]) == float("-inf")
    assert float(values[0]) == 0
