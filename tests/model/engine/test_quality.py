"""Requests of another quality than exact: forecasts of their own, in forwards that all share."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.engine.protocol import Finished, ImageReady, StepDone
from model.resolved_request import ResolvedHires, ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG
from model.workload import sampling_passes
from tests.support.engines import (
    FIELDS,
    AnalyticModel,
    digest,
    engine_of,
    of,
    request,
    run,
    tiny_engine,
)


def alone(wanted: ResolvedRequest) -> Tensor:
    model = AnalyticModel()
    run(engine_of(model), {"job": wanted})
    return model.latents[0]


@pytest.mark.parametrize("sampler", sorted(SAMPLER_CATALOG))
def test_the_model_is_asked_for_the_planned_evaluations_only(sampler: str) -> None:
    model = AnalyticModel()
    wanted = request(sampler=sampler, steps=9, quality="fast")
    events = run(engine_of(model), {"a": wanted})
    (only,) = sampling_passes(wanted)
    assert len(model.calls) == only.evaluations < SAMPLER_CATALOG[sampler].evaluations(9)
    levels = [sigmas[0] for _, sigmas in model.calls]
    assert levels == sorted(levels, reverse=True)
    steps = [event.step for event in of(StepDone, events, "a")]
    assert steps == sorted(steps)
    assert steps[-1] == 9
    assert isinstance(events[-1], Finished)


def test_a_forecast_differs_from_the_exact_image_but_little() -> None:
    exact, fast = (
        alone(request(sampler="euler", steps=20, quality=name)) for name in ("exact", "fast")
    )
    assert torch.equal(exact, alone(request(sampler="euler", steps=20)))
    assert 1e-5 < float((exact - fast).abs().max()) < 0.1


def test_qualities_share_forwards_and_each_image_keeps_its_own_forecasts() -> None:
    samplers = ("euler", "er_sde", "heun", "dpmpp_2m", "euler_ancestral", "sa_solver_pece")
    jobs = {
        f"{quality} {sampler}": request(
            sampler=sampler, quality=quality, steps=7, seed=10 + index, prompt="x" * index
        )
        for index, sampler in enumerate(samplers)
        for quality in ("exact", "fast")
    }
    model = AnalyticModel()
    engine = engine_of(model)
    events = run(engine, jobs)
    order = [event.job_id for event in events if isinstance(event, ImageReady)]
    assert engine.stats.evaluations / engine.stats.forwards > 4
    for job_id, latents in zip(order, model.latents, strict=True):
        torch.testing.assert_close(latents, alone(jobs[job_id]), atol=1e-5, rtol=0)


def test_each_pass_begins_with_answers_of_the_model() -> None:
    hires = ResolvedHires(
        scale=1.5, width=96, height=96, steps=6, strength=0.5, upscaler="latent"
    )  # fmt: skip
    model = AnalyticModel()
    wanted = request(sampler="euler", steps=6, quality="fast", hires=hires)
    run(engine_of(model), {"a": wanted})
    first, second = sampling_passes(wanted)
    assert first.is_asked == second.is_asked == (True, True, True, False, True, True)
    levels = [sigmas[0] for _, sigmas in model.calls]
    assert len(levels) == 10
    assert levels[5] > levels[4]  # the second pass begins at a higher level


def test_a_deterministic_fast_image_has_the_same_bytes_alone_and_in_company() -> None:
    engine = tiny_engine()
    fields: dict[str, Any] = {**FIELDS, "steps": 8, "quality": "fast"}
    expected = digest(run(engine, {"it": request(**fields)}), "it")
    company = {
        "exact": request(**{**fields, "quality": "exact"}),
        "plain": request(width=128, height=128, steps=5, quality="fast", seed=2),
        "twin": request(**fields),
    }
    events = run(engine, {**company, "it": request(**fields)})
    assert digest(events, "it") == digest(events, "twin") == expected
    assert digest(events, "exact") != expected
