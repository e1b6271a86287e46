"""A request as passes through the model: which sizes, how many steps, how much work.

Free of torch, for the API and the records of jobs; the engine walks what is planned here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model.resolved_request import ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG
from model.timesteps import TABLE_LENGTH, schedule_length


@dataclass(frozen=True, slots=True)
class SamplingPass:
    """One walk down to sigma 0, at `width` x `height` pixels.

    The schedule is built for `built` steps, of whose noisy levels the last `levels` are walked:
    all of them from noise, 0 where a picture is left as it is. `steps` is what clients count.
    """

    width: int
    height: int
    built: int
    levels: int
    steps: int
    evaluations: int


def sampling_passes(request: ResolvedRequest) -> tuple[SamplingPass, ...]:
    """What a request runs through, in order; every picture of it alike."""
    strength = 1.0 if request.strength is None else request.strength
    planned = [_pass(request, request.width, request.height, request.steps, strength)]
    if request.hires:
        hires = request.hires
        planned.append(_pass(request, hires.width, hires.height, hires.steps, hires.strength))
    return tuple(planned)


def _pass(
    request: ResolvedRequest, width: int, height: int, steps: int, strength: float
) -> SamplingPass:
    sampler = SAMPLER_CATALOG[request.sampler]
    skipped = int(sampler.skips_last_level)
    built, walked = shorten_schedule(steps, strength, most=TABLE_LENGTH - skipped)
    levels = schedule_length(request.scheduler, built + skipped) - skipped
    if strength < 1:
        levels = min(levels, walked)
    evaluations = sampler.evaluations(levels) if levels else 0
    return SamplingPass(width, height, built, levels, walked, evaluations)


def shorten_schedule(steps: int, strength: float, *, most: int = TABLE_LENGTH) -> tuple[int, int]:
    """How many steps a schedule is built for, at most `most`, and how many last ones are walked.

    `steps` are walked whatever the strength, from a level that falls with it: the last ones of
    int(steps / strength). Where that is more than `most`, fewer are walked from the end of the
    longest schedule; at strength 0 none.
    """
    if strength == 0:
        return steps, 0
    if steps / strength <= most:
        return int(steps / strength), steps
    return most, max(1, int(most * strength))


def total_steps(request: ResolvedRequest) -> int:
    """Steps that progress is counted in, over all passes; at least 1."""
    return max(1, sum(part.steps for part in sampling_passes(request)))


def completed_steps(parts: Sequence[SamplingPass], evaluations: int) -> int:
    """How many steps are complete after so many evaluations of one picture."""
    steps, left = 0, evaluations
    for part in parts:
        if left < part.evaluations:
            return steps + left * part.steps // part.evaluations
        steps, left = steps + part.steps, left - part.evaluations
    return max(1, steps)


def megapixel_steps(request: ResolvedRequest, steps: int | None = None) -> float:
    """Megapixels through the transformer after `steps` steps of every picture; None means all."""
    rows = request.num_images * (1 if request.cfg_scale == 1 else 2)
    left = total_steps(request) if steps is None else steps
    megapixels = 0.0
    for part in sampling_passes(request):
        walked = min(left, part.steps)
        left -= walked
        if walked:
            share = walked / part.steps
            megapixels += share * part.evaluations * part.width * part.height / 1e6
    return megapixels * rows
