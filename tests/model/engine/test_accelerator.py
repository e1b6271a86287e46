"""The engine on a simulated accelerator: it mixes no devices, waits little and frees its memory."""

import copy
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.nn import functional

from model.engine import loading
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import EngineEvent, Failed, Finished, ImageReady, Preview, StepDone
from model.errors import DeviceLost
from model.network.load import Components
from model.network.vae.pixels import decode_latents
from model.network.vae.tiles import decoding_bytes
from model.resolved_request import ResolvedHires, ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG
from tests.support.engines import drain, of, request, run, work_at_once
from tests.support.lora_writer import resolved, some_places, write_lora
from tests.support.random_checkpoint import LATENTS_MEAN, LATENTS_STD, WrittenCheckpoint
from tests.support.simulated_accelerator import State, simulated_accelerator

SMALL: dict[str, Any] = {"prompt": "1girl, smile", "width": 64, "height": 48, "steps": 3}
MakeEngine = Callable[[str], Engine]


@pytest.fixture
def sim() -> Iterator[State]:
    with simulated_accelerator() as state:
        yield state


@pytest.fixture
def make(written: WrittenCheckpoint, tmp_path: Path) -> MakeEngine:
    """An engine on a device whose work beside the steps runs at once, so that runs repeat."""

    def make(device: str) -> Engine:
        engine = load_engine(
            written.card, written.folder, device=device, precision="float32", threads=1,
            token_budget=8192, lora_dir=tmp_path, read_image=lambda _: picture(),
        )  # fmt: skip
        work_at_once(engine)
        return engine

    return make


def picture() -> numpy.ndarray[Any, Any]:
    """A photo and mask of the request's size."""
    ramp = numpy.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3)
    return ramp.astype(numpy.uint8)


def pixels_of(events: list[EngineEvent], job_id: str) -> list[Any]:
    assert not [event for event in events if isinstance(event, Failed)]
    return [event.pixels.astype(int) for event in of(ImageReady, events, job_id)]


def kinds(tmp_path: Path, written: WrittenCheckpoint) -> dict[str, ResolvedRequest]:
    """A request for every way through the engine."""
    lora = resolved(write_lora(tmp_path / "a.safetensors", some_places(written.made)), 0.5)
    hires = {"scale": 1.5, "width": 96, "height": 64, "steps": 2, "strength": 0.5}
    image = {"init_image": "photo", "strength": 0.6}
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "without guidance": {"cfg_scale": 1.0},
        "deterministic": {"deterministic": True},
        "image": image,
        "mask": {**image, "mask": "photo"},
        "latent hires": {"hires": ResolvedHires(**hires, upscaler="latent")},
        "pixel hires": {"hires": ResolvedHires(**hires, upscaler="lanczos")},
        "previews": {"previews": True, "steps": 6},
        "lora": {"loras": (lora,)},
        "several": {"num_images": 3},
    }
    base = request(**SMALL)
    return {name: base.model_copy(update=change) for name, change in changes.items()}


def test_every_kind_of_request_gives_the_cpus_pictures(
    make: MakeEngine, written: WrittenCheckpoint, tmp_path: Path
) -> None:
    jobs = kinds(tmp_path, written)
    expected = run(make("cpu"), jobs)
    with simulated_accelerator():
        found = run(make("sim:0"), jobs)
    for name in jobs:
        mine, theirs = pixels_of(found, name), pixels_of(expected, name)
        assert len(mine) == len(theirs) == jobs[name].num_images, name
        for one, other in zip(mine, theirs, strict=True):
            assert numpy.abs(one - other).max() <= 1, name
    shown = of(Preview, found, "previews")
    assert len(shown) == len(of(Preview, expected, "previews")) > 2


def test_a_step_of_any_sampler_waits_once_for_all_images(make: MakeEngine, sim: State) -> None:
    engine = make("sim:0")
    for sampler in SAMPLER_CATALOG:
        engine.admit("a", request(**SMALL, sampler=sampler, num_images=2))
        engine.admit("b", request(**SMALL, sampler=sampler, cfg_scale=1))
        engine.step()
        forwards, copies, waits = engine.stats.forwards, Counter(sim.copies), Counter(sim.waits)
        events: list[EngineEvent] = []
        while engine._running:
            events += engine.step()
        waited, copied = sim.waits - waits, sim.copies - copies
        in_steps = sum(count for line, count in waited.items() if "device.py" in line)
        assert in_steps == engine.stats.forwards - forwards > 0, sampler
        assert files_of(waited) <= {"device.py", "pixels.py"}, sampler
        assert files_of(copied) <= {"pixels.py", "noise.py"}, "only pixels, and a sampler's noise"
        assert len(of(ImageReady, events, "a")) == 2, sampler


def files_of(lines: Counter[str]) -> set[str]:
    return {line.split()[-1].partition(":")[0] for line in lines}


def test_a_failure_is_named_with_its_step_although_it_is_read_one_step_later(
    make: MakeEngine, sim: State
) -> None:
    engine = make("sim:0")
    velocity = engine._velocity._velocity
    sigmas: list[float] = []

    def broken(rows: Any) -> torch.Tensor:
        sigmas.append(rows[0].sigma)
        return velocity(rows) * (torch.nan if len(sigmas) == 3 else 1)

    engine._velocity._velocity = broken
    events = run(engine, {"a": request(**{**SMALL, "steps": 8}, sampler="euler")})
    (failed,) = of(Failed, events, "a")
    assert failed.code == "non_finite"
    assert f"sigma {sigmas[2]:.4f}" in failed.detail
    assert len(sigmas) == 4
    assert [event.step for event in of(StepDone, events, "a")] == [1, 2]


# -- memory ------------------------------------------------------------------------------------


def peak_of(engine: Engine, sim: State, jobs: dict[str, ResolvedRequest]) -> int:
    """The memory that the jobs need beside what is loaded."""
    before = sim.peak = sim.allocated
    run(engine, jobs)
    engine._pipeline.release_memory()
    return sim.peak - before


def denoising(make: MakeEngine) -> Engine:
    """An engine that keeps pixels out of the measurement of memory."""
    engine = make("sim:0")
    object.__setattr__(engine._pipeline, "decode", lambda _: numpy.zeros((1, 48, 64, 3), "uint8"))
    return engine


def test_a_batch_that_does_not_fit_is_halved(make: MakeEngine, sim: State) -> None:
    jobs = {str(seed): request(**SMALL, seed=seed) for seed in range(4)}
    engine = denoising(make)
    one, all_four = (peak_of(engine, sim, dict(list(jobs.items())[:n])) for n in (1, 4))
    assert all_four > 2 * one
    sim.limit = sim.allocated + (one + all_four) / 2
    events = run(engine, jobs)
    assert len([event for event in events if isinstance(event, Finished)]) == 4
    assert engine.stats.shortages >= 1


def test_a_forward_that_fails_leaves_its_memory_to_the_retries(
    make: MakeEngine, sim: State
) -> None:
    """A traceback that still holds the failed forward's tensors would leave too little."""
    jobs = {str(seed): request(**SMALL, seed=seed, sampler="euler") for seed in range(2)}
    engine = denoising(make)
    both = peak_of(engine, sim, jobs)
    sim.limit = sim.allocated + 1.1 * both
    for job_id, wanted in jobs.items():
        engine.admit(job_id, wanted)
    engine.step()
    launches = sim.launches
    engine.step()
    sim.fail_at = sim.launches + (sim.launches - launches) // 2  # in the middle of a forward
    held = sim.allocated
    seen: list[int] = []
    engine._velocity._velocity = watched(engine._velocity._velocity, lambda: sim.allocated, seen)
    events = drain(engine)
    assert len([event for event in events if isinstance(event, Finished)]) == 2
    assert sim.failures == 1
    # The failed forward, then each image alone: no more memory is taken than before the failure.
    assert max(seen[1:3]) <= 1.02 * max(held, seen[0])


def watched(velocity: Any, allocated: Callable[[], int], seen: list[int]) -> Any:
    def watching(rows: Any) -> torch.Tensor:
        seen.append(allocated())
        result: torch.Tensor = velocity(rows)
        return result

    return watching


def test_a_request_without_memory_fails_and_its_memory_is_released(
    make: MakeEngine, sim: State
) -> None:
    engine = denoising(make)
    need = peak_of(engine, sim, {"a": request(**SMALL, cfg_scale=1)})
    loaded = sim.allocated
    sim.limit = loaded + need / 2
    (failed,) = of(Failed, run(engine, {"a": request(**SMALL, cfg_scale=1)}), "a")
    assert (failed.code, failed.is_retryable) == ("out_of_memory", True)
    assert sim.released[-1] <= loaded + need / 10, "released while the failed forward held it"


@pytest.mark.parametrize("failures", [1, 2, 4])
def test_memory_that_is_short_at_decoding_costs_no_denoising(
    make: MakeEngine, sim: State, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles: list[int | None] = []
    expected = pixels_of(run(make("sim:0"), {"a": request(**SMALL)}), "a")

    def short(*values: Any, tile: int | None = None, **options: Any) -> Any:
        tiles.append(tile)
        if len(tiles) <= failures:
            raise torch.OutOfMemoryError("simulated")
        return decode_latents(*values, tile=tile, **options)

    monkeypatch.setattr(loading, "decode_latents", short)
    engine = make("sim:0")
    found = pixels_of(run(engine, {"a": request(**SMALL)}), "a")
    assert engine.stats.forwards == SMALL["steps"]
    assert tiles == [None, None, 64, 32, 16][: failures + 1]
    assert numpy.abs(found[0] - expected[0]).max() <= 1
    assert len(sim.released) == failures


def test_tiles_take_less_memory_than_the_whole(components: Components, sim: State) -> None:
    vae: Any = copy.deepcopy(components.vae)
    vae.to("sim:0")
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 1, 40, 96, generator=generator).to("sim:0")
    found, peaks = [], []
    for tile in (None, 16):
        before = sim.peak = sim.allocated
        pixels = decode_latents(vae, latents, mean=LATENTS_MEAN, std=LATENTS_STD, tile=tile)
        found.append(pixels.astype(int))
        peaks.append(sim.peak - before)
    assert numpy.abs(found[0] - found[1]).max() <= 1
    assert peaks[1] < 0.7 * peaks[0]


def test_with_too_little_memory_for_all_parts_prompts_are_encoded_on_the_cpu(
    make: MakeEngine,
    written: WrittenCheckpoint,
    tmp_path: Path,
    sim: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = [place for place in some_places(written.made) if place.part != "transformer"]
    lora = resolved(write_lora(tmp_path / "a.safetensors", at), 0.5)
    wanted = request(**SMALL)
    jobs = {"plain": wanted, "lora": wanted.model_copy(update={"loras": (lora,)})}
    before = sim.allocated
    everything = make("sim:0")
    size = sim.allocated - before
    expected = run(everything, jobs)
    monkeypatch.setattr("model.network.load.WORKING_BYTES", 1000)
    gc.collect()
    before = sim.allocated
    engine = load_engine(
        written.card, written.folder, device="sim:0", precision="float32", threads=1,
        token_budget=8192, lora_dir=tmp_path, device_memory_gb=size / 1e9,
    )  # fmt: skip
    work_at_once(engine)
    texts = sum(
        weight.nbytes
        for part in (written.made.text_encoder, written.made.conditioner)
        for weight in part.state_dict().values()
    )
    assert sim.allocated - before <= size - texts
    found = run(engine, jobs)
    for job_id in jobs:
        (mine,), (theirs,) = pixels_of(found, job_id), pixels_of(expected, job_id)
        assert numpy.abs(mine - theirs).max() <= 1, job_id


@pytest.fixture
def fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that never holds all its scores, as that of a GPU."""
    whole = functional.scaled_dot_product_attention

    def in_parts(query: Any, *others: Any, **options: Any) -> torch.Tensor:
        parts = [whole(part, *others, **options) for part in torch.split(query, 16, dim=-2)]
        return torch.cat(parts, dim=-2)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", in_parts)


@pytest.mark.usefixtures("fused_attention")
@pytest.mark.parametrize("tile", [None, 64, 32, 16])
def test_a_decoding_takes_no_more_than_is_expected(
    components: Components, sim: State, tile: int | None
) -> None:
    vae: Any = copy.deepcopy(components.vae)
    vae.to("sim:0")
    for height, width in ((24, 24), (40, 96), (72, 40)):
        latents = torch.zeros(1, 16, 1, height, width, device="sim:0")
        before = sim.peak = sim.allocated
        decode_latents(vae, latents, mean=LATENTS_MEAN, std=LATENTS_STD, tile=tile)
        expected = decoding_bytes(vae.decoder, height, width, tile)
        assert 0.4 * expected < sim.peak - before <= expected, (height, width)


@pytest.mark.usefixtures("fused_attention")
def test_a_whole_picture_stays_within_its_budget(
    written: WrittenCheckpoint, sim: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts, steps, upscaling in pixels, a second pass and its decoding, with all weights."""
    hires = ResolvedHires(scale=4, width=256, height=192, steps=2, strength=0.5, upscaler="lanczos")
    wanted = request(**SMALL, hires=hires)
    tiles: list[int | None] = []

    def seen(*values: Any, tile: int | None = None, **options: Any) -> Any:
        tiles.append(tile)
        return decode_latents(*values, tile=tile, **options)

    monkeypatch.setattr(loading, "decode_latents", seen)
    # The constants of real sizes, in proportion to this checkpoint.
    monkeypatch.setattr(loading, "CACHE_BYTES", 100_000)

    def picture_within(gigabytes: float) -> tuple[int, Any, str]:
        gc.collect()
        start = sim.peak = sim.allocated
        engine = load_engine(
            written.card, written.folder, device="sim:0", precision="float32", threads=1,
            token_budget=400, device_memory_gb=gigabytes,
        )  # fmt: skip
        work_at_once(engine)
        context = engine._pipeline.encode("1girl").context
        (pixels,) = pixels_of(run(engine, {"a": wanted}), "a")
        return sim.peak - start, pixels, context.device.type

    everything, expected, encoder = picture_within(0)
    assert encoder == "sim", "without a budget the text encoder stays on the device"
    assert tiles == [None, None]
    tiles.clear()
    budget = int(0.92 * everything)
    monkeypatch.setattr("model.network.load.WORKING_BYTES", budget)
    peak, found, encoder = picture_within(budget / 1e9)
    assert encoder == "cpu", (everything, budget, peak, tiles)
    assert tiles[-1] in (64, 32, 16)
    assert peak <= budget < everything, tiles
    assert sim.released == [], "nothing had to be tried twice"
    assert numpy.abs(found - expected).max() <= 1


def test_a_lost_device_ends_the_engine(make: MakeEngine, sim: State) -> None:
    engine = make("sim:0")
    engine.admit("a", request(**{**SMALL, "steps": 9}))
    engine.step()
    sim.is_broken = True
    with pytest.raises(DeviceLost, match="the device is lost"):
        drain(engine)


def test_devices_do_not_mix(sim: State) -> None:
    """The simulation refuses what a GPU refuses, or the other tests would prove nothing."""
    here = torch.ones(2, device="sim:0")
    with pytest.raises(RuntimeError, match="a CPU tensor of"):
        here + torch.ones(2)
    assert (here + 1).sum().item() == 4
    assert sum(sim.waits.values()) == 1
    assert sim.allocated > 0
