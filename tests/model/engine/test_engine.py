"""The engine on an analytic model: shared forwards, separate results, separate failures."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from model.card import load_card
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import (
    Failed,
    Finished,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.errors import DeviceLost
from model.resolved_request import ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, evaluations
from tests.support.engines import AnalyticModel, drain, engine_of, of, pipeline_of, request, run
from tests.support.velocities import by_rows


def alone(wanted: ResolvedRequest) -> Tensor:
    model = AnalyticModel()
    run(engine_of(model), {"job": wanted})
    return model.latents[0]


def test_an_idle_engine_does_nothing() -> None:
    assert engine_of(AnalyticModel()).step() == []


def test_progress_counts_the_actual_levels_of_a_schedule() -> None:
    wrong = []
    for sampler, scheduler in product(("er_sde", "uni_pc"), SCHEDULE_DISPLAY_NAMES):
        model = AnalyticModel()
        wanted = request(sampler=sampler, scheduler=scheduler, steps=150, cfg_scale=1, width=16)
        events = run(engine_of(model), {"a": wanted})
        steps = [e.step for e in of(StepDone, events, "a")]
        first = 0.99 if scheduler == "ddim_uniform" else 1
        if (
            len(model.calls) != evaluations(sampler, scheduler, 150)
            or steps != sorted(steps)
            or steps[-1] != 150
            or model.calls[0][1][0] != pytest.approx(first, abs=0.01)
        ):
            wrong.append((sampler, scheduler, len(model.calls), steps))
    assert wrong == []


def test_a_job_runs_from_start_to_finish_with_every_sampler() -> None:
    for sampler, info in SAMPLER_CATALOG.items():
        model = AnalyticModel()
        events = run(engine_of(model), {"a": request(sampler=sampler, steps=5)})
        assert isinstance(events[0], Started), sampler
        assert isinstance(events[-1], Finished), sampler
        steps = [e.step for e in of(StepDone, events, "a")]
        assert len(steps) == len(model.calls) == info.evaluations(5), sampler
        assert steps == sorted(steps), sampler
        assert steps[-1] == 5, sampler
        (image,) = of(ImageReady, events, "a")
        assert image.pixels.shape == (8, 8, 3), sampler
        assert image.pixels.dtype == numpy.uint8, sampler


def test_options_reach_the_sampler() -> None:
    plain = alone(request(sampler="euler_ancestral"))
    quiet = alone(request(sampler="euler_ancestral", sampler_options={"eta": 0.0}))
    torch.testing.assert_close(quiet, alone(request(sampler="euler")), atol=1e-5, rtol=0)
    assert (plain - quiet).abs().max() > 0.1


def test_guidance_doubles_the_rows_of_a_forward_except_at_scale_one() -> None:
    model = AnalyticModel()
    run(engine_of(model), {"a": request(cfg_scale=4)})
    assert {rows for rows, _ in model.calls} == {2}
    model.calls.clear()
    run(engine_of(model), {"b": request(cfg_scale=1)})
    assert {rows for rows, _ in model.calls} == {1}


def test_guidance_is_linear_in_its_scale() -> None:
    """With Euler on a model that is affine in x, the result is affine in the scale."""
    fields = {"sampler": "euler", "steps": 1, "prompt": "abcdefghi", "negative_prompt": ""}
    ends = {scale: alone(request(cfg_scale=scale, **fields)) for scale in (1, 2, 3)}
    torch.testing.assert_close(ends[3] - ends[2], ends[2] - ends[1], atol=1e-6, rtol=0)
    assert (ends[2] - ends[1]).abs().max() > 1e-3


def mixed() -> dict[str, ResolvedRequest]:
    samplers = list(SAMPLER_CATALOG)
    return {
        f"job{i}": request(
            sampler=samplers[i % len(samplers)],
            prompt="x" * (i + 1),
            seed=100 + i,
            steps=3 + i % 5,
            cfg_scale=(1.0, 2.5, 4.0)[i % 3],
            width=64 if i % 4 else 96,
        )
        for i in range(len(samplers))
    }


def test_mixed_requests_share_forwards_and_equal_their_single_runs() -> None:
    model = AnalyticModel()
    engine = engine_of(model)
    jobs = mixed()
    events = run(engine, jobs)
    assert engine.stats.evaluations / engine.stats.forwards > 4
    order = [e.job_id for e in events if isinstance(e, ImageReady)]
    assert sorted(order) == sorted(jobs)
    for job_id, latents in zip(order, model.latents, strict=True):
        torch.testing.assert_close(latents, alone(jobs[job_id]), atol=1e-5, rtol=0)


def test_requests_join_and_leave_at_step_boundaries() -> None:
    model = AnalyticModel()
    engine = engine_of(model)
    engine.admit("long", request(steps=10))
    engine.step()
    engine.admit("short", request(steps=2))
    events = drain(engine)
    assert [rows for rows, _ in model.calls] == [2, 4, 4, 2, 2, 2, 2, 2, 2, 2]
    assert [e.job_id for e in events if isinstance(e, Finished)] == ["short", "long"]
    assert of(Finished, events, "short")[0].mean_batch == 2


def test_owners_share_the_steps() -> None:
    ends = {}
    for owners in ("aaaa", "aaab"):
        engine = engine_of(AnalyticModel(), token_budget=1)
        for number, owner in enumerate(owners):
            engine.admit(str(number), request(steps=6 if number < 3 else 9), owner=owner)
        ends[owners] = [e.job_id for e in drain(engine) if isinstance(e, Finished)]
    assert ends == {"aaaa": ["0", "1", "2", "3"], "aaab": ["3", "0", "1", "2"]}


def test_a_small_token_budget_gives_the_same_result() -> None:
    jobs = {f"{i}": request(seed=i) for i in range(3)}
    model = AnalyticModel()
    events = run(engine_of(model, token_budget=1), jobs)
    assert {rows for rows, _ in model.calls} == {2}
    order = [e.job_id for e in events if isinstance(e, ImageReady)]
    for job_id, latents in zip(order, model.latents, strict=True):
        assert torch.equal(latents, alone(jobs[job_id]))


def test_the_images_of_a_job_have_consecutive_seeds() -> None:
    model = AnalyticModel()
    events = run(engine_of(model), {"a": request(num_images=3, seed=7)})
    images = of(ImageReady, events, "a")
    assert [(image.index, image.seed) for image in images] == [(0, 7), (1, 8), (2, 9)]
    torch.testing.assert_close(model.latents[2], alone(request(seed=9)), atol=1e-5, rtol=0)
    assert len(of(Finished, events, "a")) == 1


def test_cancel_takes_effect_at_once() -> None:
    model = AnalyticModel()
    engine = engine_of(model)
    engine.admit("a", request(steps=50))
    engine.admit("b", request(steps=3))
    engine.step()
    engine.cancel("a")
    engine.cancel("unknown")
    events = drain(engine)
    assert not any(e.job_id == "a" for e in events)
    assert len(of(Finished, events, "b")) == 1
    assert len(model.calls) == 3


def test_a_non_finite_velocity_fails_only_its_request() -> None:
    model = AnalyticModel()
    model.poison = 0.05  # the mean of a prompt of five characters
    jobs = {"good": request(prompt="abc"), "bad": request(prompt="abcde"), "fine": request(seed=3)}
    jobs["fine"] = request(prompt="abcdefg", seed=3)
    events = run(engine_of(model), jobs)
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert (failed.job_id, failed.code, failed.is_retryable) == ("bad", "non_finite", False)
    assert {e.job_id for e in events if isinstance(e, Finished)} == {"good", "fine"}


def test_an_invalid_prompt_fails_only_its_request() -> None:
    jobs = {"bad": request(prompt="unreadable"), "good": request()}
    events = run(engine_of(AnalyticModel()), jobs)
    (failed,) = of(Failed, events, "bad")
    assert (failed.code, failed.is_retryable) == ("bad_prompt", False)
    assert "position 3" in failed.detail
    assert of(Finished, events, "good")


def test_a_forward_that_fails_is_retried_image_by_image() -> None:
    model = AnalyticModel()
    model.is_broken = True
    events = run(engine_of(model), {"a": request(), "b": request(seed=2)})
    assert {e.job_id for e in events if isinstance(e, Finished)} == {"a", "b"}
    events = run(engine_of(model), {"c": request(cfg_scale=1, num_images=1), "d": request()})
    assert {e.job_id for e in events if isinstance(e, Finished)} == {"c", "d"}


def test_a_request_that_fails_every_forward_may_be_retried() -> None:
    model = AnalyticModel()

    def broken(x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        raise RuntimeError("secret path /etc")

    engine = Engine(replace(pipeline_of(model), velocity=by_rows(broken)), token_budget=8192)
    (failed,) = of(Failed, run(engine, {"a": request()}), "a")
    assert failed.is_retryable
    assert "secret" not in failed.detail
    assert engine.step() == []


def test_a_memory_shortage_fails_no_request() -> None:
    model = AnalyticModel()
    jobs = {str(n): request(seed=n, steps=5) for n in range(6)}

    def small(x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        if len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model.velocity(x, sigma, context)

    engine = Engine(replace(pipeline_of(model), velocity=by_rows(small)), token_budget=8192)
    events = run(engine, jobs)
    assert len([e for e in events if isinstance(e, Finished)]) == 6
    assert engine.stats.shortages == 2
    assert max(rows for rows, _ in model.calls) <= 5
    latents = {job_id: alone(wanted) for job_id, wanted in jobs.items()}
    found = [e.job_id for e in events if isinstance(e, ImageReady)]
    for job_id, made in zip(found, model.latents, strict=True):
        assert (made - latents[job_id]).abs().max() < 1e-5


def test_an_image_that_never_fits_into_memory_may_be_retried() -> None:
    model = AnalyticModel()

    def none(x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5 GiB")

    engine = Engine(replace(pipeline_of(model), velocity=by_rows(none)), token_budget=8192)
    (failed,) = of(Failed, run(engine, {"a": request()}), "a")
    assert (failed.code, failed.is_retryable) == ("out_of_memory", True)


@pytest.mark.parametrize("where", ["velocity", "decode"])
def test_a_broken_device_ends_the_engine(where: str) -> None:
    model = AnalyticModel()
    is_gone = False

    def illegal(*_: Tensor) -> Any:
        nonlocal is_gone
        is_gone = True
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def check() -> None:
        if is_gone:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    parts: dict[str, Any] = {"check_device": check, where: illegal}
    engine = Engine(replace(pipeline_of(model), **parts), token_budget=8192)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        run(engine, {"a": request(steps=2), "b": request(seed=2, steps=2)})


def test_a_cut_prompt_gives_a_warning() -> None:
    events = run(engine_of(AnalyticModel()), {"a": request(prompt="x" * 10)})
    (started,) = of(Started, events, "a")
    assert [warning.code for warning in started.warnings] == ["prompt_cut"]
    assert "10 T5" in started.warnings[0].detail


@pytest.mark.parametrize(("sampler", "steps"), [("er_sde", 30), ("sa_solver_pece", 4)])
def test_previews_are_sent_on_request_with_their_step(sampler: str, steps: int) -> None:
    wanted = request(sampler=sampler, steps=steps, num_images=2, previews=True)
    silent = wanted.model_copy(update={"previews": False})
    events = run(engine_of(AnalyticModel()), {"shown": wanted, "silent": silent})
    assert of(Preview, events, "silent") == []
    for index in range(2):
        shown = [e for e in of(Preview, events, "shown") if e.index == index]
        assert 3 <= len(shown) <= 10
        assert [e.step for e in shown] == sorted(e.step for e in shown)
        assert all(e.step < steps for e in shown)
        assert {e.pixels.shape for e in shown} == {(8, 8, 3)}


def test_a_known_id_is_refused() -> None:
    engine = engine_of(AnalyticModel())
    engine.admit("a", request())
    with pytest.raises(ValueError, match="in the engine already"):
        engine.admit("a", request())


def tiny_latents(jobs: dict[str, ResolvedRequest]) -> dict[str, Tensor]:
    """Final latents by job from the shipped checkpoint, all jobs at once."""
    engine = load_engine(
        load_card("kirazuri-tiny"),
        None,
        device="cpu",
        precision="float32",
        threads=1,  # more threads change the order of sums: 1.2e-4 between batches
        token_budget=8192,
    )
    decoded: list[Tensor] = []

    def keep(latents: Tensor) -> numpy.ndarray[Any, Any]:
        decoded.append(latents)
        return numpy.zeros((1, 8, 8, 3), numpy.uint8)

    engine._pipeline = replace(engine._pipeline, decode=keep)
    order = [e.job_id for e in run(engine, jobs) if isinstance(e, ImageReady)]
    return dict(zip(order, decoded, strict=True))


def test_the_real_network_gives_the_same_latents_alone_and_in_a_batch() -> None:
    """To 1e-5 of the largest latent, about 4, because rounding depends on the batch size."""
    jobs = {
        "er_sde": request(width=128, height=128, steps=8, seed=1),
        "pece": request(width=128, height=128, steps=5, sampler="sa_solver_pece", seed=2),
        "plain": request(width=128, height=128, steps=6, cfg_scale=1, sampler="euler", seed=3),
        "wide": request(width=144, height=112, steps=4, prompt="1boy, red hair", seed=4),
    }
    together = tiny_latents(jobs)
    for name, wanted in jobs.items():
        alone = tiny_latents({name: wanted})[name]
        difference = (together[name] - alone).abs().max() / alone.abs().max()
        assert difference < 1e-5, (name, float(difference))
        assert together[name].std() > 0.3
