"""The sampler UniPC, arXiv 2302.04867."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from model.sampling.sampler_protocol import (
    Noise,
    Trajectory,
    check_between,
    check_choice,
    noisy_levels,
)

LAST_LEVEL = 0.0009765629656615094
"""The end of the last step, because -ln(0) is infinite: the authors' 0.001 after their float32
computation of sqrt(1 - 1 / (1 + sigma^2))."""

LEFT_OVER = 0.001
"""The result is divided by 1 - LEFT_OVER, its share of the signal."""


def sample_uni_pc(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    variant: Literal["bh1", "bh2"] = "bh1",
    max_order: int = 3,
) -> Trajectory:
    """UniPC, arXiv 2302.04867 algorithms 5 and 6 for data prediction, on the time -ln(sigma).

    x_t = t/s x_s + (1 - t/s) D + sum of weights times slopes of D towards other predictions. The
    evaluation at a predicted point also corrects it; only the last point, the result, is not
    corrected. `variant` is the paper's B(h): h for "bh1", e^h - 1 for "bh2", taken at -h as for
    data prediction. `max_order` limits the number of predictions; the first and last steps have
    lower order.
    """
    check_choice(("bh1", "bh2"), variant=variant)
    check_between(1, 3, max_order=max_order)
    grid = [*noisy_levels(sigmas), LAST_LEVEL]
    if grid[-2] <= LAST_LEVEL:
        raise ValueError(f"the last noisy sigma is {grid[-2]}, must be above {LAST_LEVEL}")
    steps = len(grid) - 1
    history: list[tuple[float, Tensor]] = []  # time and prediction, newest first
    base, slopes, corrector = x, list[Tensor](), list[float]()
    predicted = x
    for i, (s, t) in enumerate(pairwise(grid)):
        denoised = yield predicted, s
        if history:  # corrector: repeat the last step with the prediction at its end
            x = _sum(base, corrector, [*slopes, denoised - history[0][1]])
        history = [(-math.log(s), denoised), *history[: max_order - 1]]
        now, h = history[0][0], math.log(s / t)
        earlier = history[1 : steps - i]
        ratios = [(time - now) / h for time, _ in earlier]
        slopes = [(d - denoised) / ratio for (_, d), ratio in zip(earlier, ratios, strict=True)]
        base = (t / s) * x + (1 - t / s) * denoised
        scale = h if variant == "bh1" else -math.expm1(-h)
        corrector = _weights([*ratios, 1.0], h, scale)
        predicted = _sum(base, _weights(ratios, h, scale), slopes)
    return predicted / (1 - LEFT_OVER)


def _sum(base: Tensor, weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    for weight, part in zip(weights, parts, strict=True):
        base = base + weight * part
    return base


def _weights(ratios: Sequence[float], h: float, scale: float) -> list[float]:
    """Weights of the slopes. `ratios` are the times of their predictions, in steps from the newest.

    Exact if the prediction is a polynomial in time. A single weight is half of `scale`, which is
    the paper's B(h), by its proposition on order 2. With more weights B(h) cancels.
    """
    if len(ratios) < 2:
        return [scale / 2 for _ in ratios]
    moments, phi = [], -math.expm1(-h)
    for k in range(1, len(ratios) + 1):
        phi = 1 / math.factorial(k) - phi / h
        moments.append(math.factorial(k) * phi)
    r = torch.tensor(ratios, dtype=torch.float64)
    powers = r ** torch.arange(len(ratios), dtype=torch.float64).unsqueeze(1)
    weights: list[float] = torch.linalg.solve(powers, r.new_tensor(moments)).tolist()
    return weights
