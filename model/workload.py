"""Plans the sampling passes of a request and computes their steps and cost.

Does not import torch. The engine runs the passes, the API and the job records use the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model.resolved_request import ResolvedRequest
from model.sampler_catalog import QUALITY_CATALOG, SAMPLER_CATALOG
from model.timesteps import TABLE_LENGTH, schedule_length


@dataclass(frozen=True, slots=True)
class SamplingPass:
    """One run of the sampler down to sigma 0, at `width` x `height` pixels.

    The schedule is built for `built` steps; the sampler runs its last `levels` noisy levels. From
    noise these are all levels, and 0 if the picture does not change. Clients see `steps`.
    `is_asked` says of each evaluation of one picture whether the model is asked; the others are
    forecast.
    """

    width: int
    height: int
    built: int
    levels: int
    steps: int
    is_asked: tuple[bool, ...]

    @property
    def evaluations(self) -> int:
        """Evaluations of one picture that the model is asked for."""
        return sum(self.is_asked)


def sampling_passes(request: ResolvedRequest) -> tuple[SamplingPass, ...]:
    """The passes of a request, in order; all its pictures have the same passes."""
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
    built, run = shorten_schedule(steps, strength, max_steps=TABLE_LENGTH - skipped)
    levels = schedule_length(request.scheduler, built + skipped) - skipped
    if strength < 1:
        levels = min(levels, run)
    evaluations = sampler.evaluations(levels) if levels else 0
    quality = QUALITY_CATALOG[request.quality]
    is_asked = tuple(quality.asks(index, evaluations) for index in range(evaluations))
    return SamplingPass(width, height, built, levels, run, is_asked)


def shorten_schedule(
    steps: int, strength: float, *, max_steps: int = TABLE_LENGTH
) -> tuple[int, int]:
    """Return the steps to build a schedule for, at most `max_steps`, and the last steps to run.

    A strength below 1 runs the last `steps` of int(steps / strength) steps, so it starts at a
    lower noise level. If that exceeds `max_steps`, fewer steps at the end of the longest schedule
    run. At strength 0 no step runs.
    """
    if strength == 0:
        return steps, 0
    if steps / strength <= max_steps:
        return int(steps / strength), steps
    return max_steps, max(1, int(max_steps * strength))


def total_steps(request: ResolvedRequest) -> int:
    """Total steps over all passes, for progress; at least 1."""
    return max(1, sum(part.steps for part in sampling_passes(request)))


def completed_steps(parts: Sequence[SamplingPass], evaluations: int) -> int:
    """Number of complete steps after this many evaluations of one picture."""
    steps, left = 0, evaluations
    for part in parts:
        if left < part.evaluations:
            return steps + left * part.steps // part.evaluations
        steps, left = steps + part.steps, left - part.evaluations
    return max(1, steps)


def megapixel_steps(request: ResolvedRequest, steps: int | None = None) -> float:
    """Megapixels that pass through the transformer in `steps` steps of every picture.

    Guidance counts twice. None means all steps of all passes.
    """
    rows = request.num_images * (1 if request.cfg_scale == 1 else 2)
    left = total_steps(request) if steps is None else steps
    megapixels = 0.0
    for part in sampling_passes(request):
        run = min(left, part.steps)
        left -= run
        if run:
            share = run / part.steps
            megapixels += share * part.evaluations * part.width * part.height / 1e6
    return megapixels * rows
