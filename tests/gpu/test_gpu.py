"""The rehearsal on the CPU, and every check with what it checks broken."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.engine.compiled import paths
from model.engine.oom_split import ChunkedForward
from model.engine.protocol import EAGER, FLOAT8
from model.network.lora_switch import MergedSets
from model.network.transformer import attention, forward
from model.network.vae import tiles
from model.network.vae.modules import OneFrameConv
from model.sampling import forecast, noise, samplers
from tests.gpu import __main__ as entry
from tests.gpu import checks, float8, speed
from tests.gpu.__main__ import SECTIONS, main, run
from tests.gpu.findings import Check, Number
from tests.gpu.launches import enqueued
from tests.gpu.subject import Subject
from tests.support.paths import ROOT

Section = Callable[[Subject], Iterator[Any]]
Break = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    torch.set_num_threads(1)
    return Subject("cpu", tmp_path_factory.mktemp("gpu"), is_tiny=True)


@pytest.mark.timeout(900)  # a process of it has little priority
def test_the_rehearsal_holds_and_measures_everything(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--size", "tiny", "--minutes", "14", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", *options],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(check["holds"] for check in found["checks"])
    names = [number["name"] for number in found["numbers"]]
    for size in ("64x64", "128x128", "96x64"):
        for kind in ("ours", "diffusers"):
            assert {f"forward {size}, {kind}", f"step {size}, {kind}"} <= set(names)
        for kind in ("ours", "ours, compiled"):
            assert {f"forward {size}, {kind}", f"enqueueing a forward {size}, {kind}"} <= set(names)
    for kind in ("diffusers, compiled", "ours in float8, compiled", "compiled with templates"):
        assert f"forward 128x128, {kind}" in names
    assert "step 128x128, diffusers, compiled" in names
    assert {"matrix peak in bfloat16", "pictures at saturation"} <= set(names)
    assert "from the start of the service to the first picture" in names
    text = (tmp_path / "gpu.md").read_text()
    assert all(check["name"] in text for check in found["checks"])
    assert found["torch"] == torch.__version__


def text_unread(patch: pytest.MonkeyPatch) -> None:
    """The rows that fill the context count as one."""
    plain = attention.text_rows

    def wrong(tokens: int, context: int, like: Tensor) -> tuple[int, Tensor | None]:
        rows, bias = plain(tokens, context, like)
        return rows, None if bias is None else torch.zeros_like(bias)

    patch.setattr(forward, "text_rows", wrong)


def levels_mixed(patch: pytest.MonkeyPatch) -> None:
    """All images of a batch get the noise level of the first."""
    plain = forward._modulation
    patch.setattr(forward, "_modulation", lambda tables: plain([tables[0]] * len(tables)))


def noise_unseeded(patch: pytest.MonkeyPatch) -> None:
    """Noise comes from the process's own generator."""
    for module in [module for name, module in sys.modules.items() if name.startswith("model.")]:
        if module is not noise and hasattr(module, "noise_stream"):
            patch.setattr(
                module, "noise_stream", lambda seed, shape, **_: lambda: torch.randn(shape)
            )


def sampler_missing(patch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such kernel")

    patch.setitem(samplers.SAMPLERS, "deis", broken)


def forecasts_shared(patch: pytest.MonkeyPatch) -> None:
    """All images continue the same line."""
    shared = forecast.Forecast(2)
    patch.setattr(forecast, "Forecast", lambda points: shared)


def lora_kept(patch: pytest.MonkeyPatch) -> None:
    """The original weights do not come back."""

    def forgetting(sets: MergedSets) -> None:
        sets._originals.clear()
        sets.current = ()

    patch.setattr(MergedSets, "_restore", forgetting)


def compiler_missing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(paths, "trial_command", lambda plan: ["false"])


def forward_unsplit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChunkedForward, "__call__", lambda self, rows: self._velocity(rows))


def tiles_without_margin(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tiles, "reach", lambda decoder: 0)


def convolution_shifted(patch: pytest.MonkeyPatch) -> None:
    plain = OneFrameConv.forward
    patch.setattr(OneFrameConv, "forward", lambda self, x: plain(self, x).roll(1, -1))


def rotation_backwards(patch: pytest.MonkeyPatch) -> None:
    """Compiled code turns queries and keys the other way."""
    plain = attention._turned_at_once
    patch.setattr(
        attention, "_turned_at_once", lambda x, w, tables: plain(x, w, (tables[0], -tables[1]))
    )


def scales_forgotten(patch: pytest.MonkeyPatch) -> None:
    plain = torch._scaled_mm

    def without(x: Tensor, weight: Tensor, of_x: Tensor, of_weight: Tensor, **options: Any) -> Any:
        if x.shape[0] == 16:  # the question whether there is float8 at all
            return plain(x, weight, of_x, of_weight, **options)
        return plain(x, weight, of_x, torch.ones_like(of_weight), **options)

    patch.setattr(torch, "_scaled_mm", without)


def everything_float8(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(paths.Paths, "choose", lambda self, _: FLOAT8 if self._takes_float8 else EAGER)


def float8_unused(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(paths.Paths, "choose", lambda self, _: EAGER)


BROKEN: list[tuple[Section, Break, str]] = [
    (checks.parity, text_unread, "parity with diffusers' class in float32"),
    (checks.parity, text_unread, "parity in bfloat16"),
    (checks.independence, levels_mixed, "independence of the batch in float32"),
    (checks.independence, levels_mixed, "independence of the batch in bfloat16"),
    (checks.samplers, sampler_missing, "samplers"),
    (checks.determinism, noise_unseeded, "a deterministic request repeats its bytes"),
    (checks.determinism, noise_unseeded, "its bytes beside other requests"),
    (checks.determinism, forecasts_shared, "the bytes of a forecast beside another one"),
    (checks.lora, lora_kept, "without it every byte is back"),
    (checks.compiled, compiler_missing, "loading compiled code: the code is ready"),
    (speed.forwards, rotation_backwards, "compiled blocks compute what eager ones do"),
    (speed.templates, rotation_backwards, "compiled templates compute what eager ones do"),
    (checks.memory, forward_unsplit, "memory"),
    (checks.memory, tiles_without_margin, "a picture is decoded in tiles"),
    (float8.float8, scales_forgotten, "float8: products are those of the rounded matrices"),
    (float8.float8, everything_float8, "float8: a deterministic request stays exact"),
    (float8.float8, lora_kept, "float8: without the LoRA every byte is back, with it again too"),
    (float8.float8, float8_unused, "float8: it and a LoRA change the picture"),
    (checks.decoding, convolution_shifted, "decoding 96x64 beside diffusers' decoder"),
]


@pytest.mark.parametrize(("section", "broken", "check"), BROKEN)
def test_a_check_fails_when_what_it_checks_is_broken(
    section: Section, broken: Break, check: str, tmp_path: Path
) -> None:
    subject = Subject("cpu", tmp_path, is_tiny=True)
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        findings = run(subject, [section], seconds=600)
    failed = [one.name for one in findings if isinstance(one, Check) and not one.holds]
    assert check in failed


def test_a_check_without_time_fails_and_a_number_is_not_measured(subject: Subject) -> None:
    assert run(subject, [checks.parity, speed.machine], seconds=-1) == [
        Check("_weights", holds=False, detail="no time was left for it"),
        Check("parity", holds=False, detail="no time was left for it"),
        Number("machine", None, "", "no time was left for it"),
    ]


def test_numbers_end_between_two_of_them_and_close_what_they_opened(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    clock = iter(range(1000))
    monkeypatch.setattr(entry, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def numbers(_: Subject) -> Iterator[Any]:
        try:
            yield Number("first", 1.0, "s")
            while next(clock) < 500:
                pass
            yield Number("second", 2.0, "s")
            closed.append("never begun")
        finally:
            closed.append("closed")

    found = run(subject, [numbers], seconds=100)
    assert [(one.name, one.note) for one in found if isinstance(one, Number)] == [
        ("first", ""), ("second", ""), ("numbers", "no time was left for the rest of it"),
    ]  # fmt: skip
    assert closed == ["closed"]


def test_every_part_can_be_run_alone() -> None:
    assert list(SECTIONS)[-2:] == ["float8", "templates"], "what is an experiment comes last"
    with pytest.raises(SystemExit):
        main(["--only", "none_such"])


class HeldDevice:
    """Streams of a device whose clock is the test's: kernels of 3 ms begin when it is let go."""

    def __init__(self, milliseconds: float) -> None:
        self.calls: list[str] = []
        self._milliseconds = milliseconds

    def _sleep(self, cycles: int) -> None:
        self.calls.append("hold")

    def synchronize(self) -> None:
        self.calls.append("wait")

    def Event(self, *, enable_timing: bool) -> "HeldDevice":  # noqa: N802 - CUDA's name
        return self

    def record(self) -> None:
        self.calls.append("record")

    def elapsed_time(self, other: "HeldDevice") -> float:
        return self._milliseconds


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "verdict"), [(0.0, 60_000.0, "do not limit"), (0.01, 3.0, "limit")]
)
def test_the_hosts_time_to_enqueue_is_told_from_the_devices(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    milliseconds: float,
    verdict: str,
) -> None:
    device = HeldDevice(milliseconds)
    monkeypatch.setattr(torch, "cuda", device)
    found = enqueued(Subject("cuda", tmp_path, is_tiny=True), lambda: time.sleep(seconds))
    assert found.device == milliseconds / 1000
    assert seconds <= found.host
    assert found.note.endswith(f"launches {verdict}")
    assert device.calls[:5] == ["wait", "hold", "record", "record", "wait"], "no wait in between"
    alone = enqueued(Subject("cpu", tmp_path, is_tiny=True), lambda: None)
    assert "no device" in alone.note


def test_float8_is_left_out_where_there_is_none(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("only compute capability 8.9 and newer")

    monkeypatch.setattr(torch, "_scaled_mm", refused)
    (found,) = run(subject, [float8.float8], seconds=60)
    assert isinstance(found, Number)
    assert found.value is None
    assert "compute capability 8.9" in found.note
