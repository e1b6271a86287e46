"""The bounds of the network's work, so that it cannot creep up; counted without a device."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from model.bench import counts
from model.bench.counting import counted
from model.card import load_card
from model.network.transformer.forward import Row

CARD = load_card("kirazuri-v1")
SHAPE = (1, 16, 1, 128, 128)
"""Latents of 1024x1024 pixels."""


def test_a_forward_of_a_guidance_pair_keeps_within_its_bounds() -> None:
    library = counts.count_library(CARD, counts.PUBLISHED, SHAPE)
    # What was measured when the bounds were set; another number means another way of counting.
    assert library["launches"] == 2719
    assert library["elementwise GB"] == pytest.approx(142.3, abs=0.1)
    for tokens, saved in ((77, 0.035), (256, 0.027)):
        ours = counts.count_ours(CARD, counts.PUBLISHED, SHAPE, tokens)
        assert ours["launches"] <= 780
        assert ours["elementwise GB"] <= 40
        assert ours["TFLOP"] <= (1 - saved) * library["TFLOP"]


def test_float8_is_three_quarters_of_the_operations() -> None:
    exact = counts.count_ours(CARD, counts.PUBLISHED, SHAPE, 77)
    lossy = counts.count_ours(CARD, counts.PUBLISHED, SHAPE, 77, float8=True)
    assert lossy["TFLOP"] == exact["TFLOP"]
    width, tokens = 2048, 4096
    # For both rows: five square matrices of each block with k and v, and twice four of them. The
    # first block's self-attention, and its question to the text, are the same for both.
    squares = 28 * 2 * (3 + 1 + 1 + 1 + 8) - (3 + 1 + 1)
    assert lossy["of it float8"] == pytest.approx(2 * squares * tokens * width**2 / 1e12)
    assert counts.float8_cost(CARD, counts.PUBLISHED, SHAPE, 77) == pytest.approx(0.612, abs=5e-4)


def test_different_noise_levels_in_a_forward_keep_within_900_launches() -> None:
    network = counts._network(CARD, counts.PUBLISHED)
    text = counts._text(network, CARD, counts.PUBLISHED, 77)
    images = [torch.empty(SHAPE, device="meta") for _ in range(2)]
    rows = [Row(x, sigma, text) for x, sigma in zip(images, (0.9, 0.1), strict=True)] * 2
    rows.sort(key=lambda row: row.sigma)
    network.velocity(rows)
    with counted() as (kernels, _):
        network.velocity(rows)
    assert sum(kernels.launches.values()) <= 900


def test_a_step_waits_once_for_the_device_and_copies_nothing() -> None:
    found = counts.count_step(CARD, counts.PUBLISHED, width=1024, height=1024)
    assert found["waits per step"] <= 1
    assert found["copies per step"] == 0


def test_kernels_are_counted_as_a_gpu_runs_them() -> None:
    x = torch.empty(4, 6, device="meta")
    with counted() as (kernels, flops):
        x.view(6, 4).t()  # no kernel
        torch.add(x, x[:1].expand(4, 6))  # reads 24 and 6 numbers, writes 24
        x.mul_(2)  # reads and writes 24
        x @ x.t()  # a matrix product: 2 * 4 * 4 * 6 operations
        functional.rms_norm(x.t(), (4,))  # a copy of what is not contiguous, then one kernel
    assert dict(kernels.launches) == {"add": 1, "mul_": 1, "mm": 1, "contiguous": 1, "rms_norm": 1}
    assert kernels.bytes["add"] == 4 * (24 + 6 + 24)
    assert kernels.bytes["mul_"] == 4 * 48
    assert flops.get_total_flops() == 2 * 4 * 4 * 6
    with counted() as (kernels, flops):
        torch.ones(3).to("meta")
        assert torch.ones(3, device="meta").sum().item() == 1.0
    assert (kernels.waits, kernels.copies) == (1, 1)


def test_the_command_prints_a_table_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "counts.json"
    options = ["--card", "kirazuri-tiny", "--size", "128x128", "--tokens", "20"]
    monkeypatch.setattr(sys, "argv", ["counts", *options, "--json", str(path)])
    counts.main()
    printed = capsys.readouterr().out
    assert "kirazuri-tiny, 128x128, bfloat16, 6 blocks of width 192" in printed
    assert "| ours, 20 tokens |" in printed
    written = json.loads(path.read_text())
    assert [row["forward"] for row in written["rows"]] == ["the library's class", "ours, 20 tokens"]
    assert written["command"].startswith("kirazuri bench counts --card kirazuri-tiny")
    assert written["machine"]["cores"]
    assert written["versions"]["torch"] == torch.__version__
