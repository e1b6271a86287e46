"""Forecasts some of the model's predictions from the two before, instead of asking the model."""

from collections import deque
from collections.abc import Sequence

from torch import Tensor

from model.sampling.sampler_protocol import Trajectory


class Forecast:
    """The last values at their noise levels: two are continued along a line in sigma, one stays."""

    def __init__(self, points: int) -> None:
        self._points: deque[tuple[float, Tensor]] = deque(maxlen=points)

    def add(self, sigma: float, value: Tensor) -> None:
        """Add a value. It replaces the last one if that has the same level."""
        if self._points and self._points[-1][0] == sigma:
            self._points.pop()
        self._points.append((sigma, value))

    def at(self, sigma: float) -> Tensor:
        """The value at another level."""
        first, old = self._points[0]
        last, value = self._points[-1]
        if first == last:
            return value
        return value + (sigma - last) / (last - first) * (value - old)


def with_forecasts(
    trajectory: Trajectory, is_asked: Sequence[bool], *, is_stochastic: bool
) -> Trajectory:
    """Yield only the evaluations that `is_asked` of a trajectory; the others are forecast.

    Predictions of the noiseless latents go on along a line, or stay as they are if the sampler
    `is_stochastic`: two of them differ mostly by noise, which a line would double. Raises
    ValueError if the trajectory has more evaluations.
    """
    forecast = Forecast(1 if is_stochastic else 2)
    x, sigma = next(trajectory)
    try:
        for asks in is_asked:
            if asks:
                denoised = yield x, sigma
                forecast.add(sigma, denoised)
            else:
                denoised = forecast.at(sigma)
            try:
                x, sigma = trajectory.send(denoised)
            except StopIteration as end:
                latents: Tensor = end.value
                return latents
    finally:
        trajectory.close()
    raise ValueError(f"the trajectory has more than {len(is_asked)} evaluations")
