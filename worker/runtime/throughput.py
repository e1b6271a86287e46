"""Measures how fast a worker's engine works, for clients' waiting times."""

_DECAY = 0.9


class ThroughputMeter:
    """Megapixel-steps per second that the engine was busy; older work counts less and less."""

    def __init__(self) -> None:
        self._new_work = 0.0
        self._work, self._seconds = 0.0, 0.0
        self._busy_seconds = 0.0

    def add(self, work: float) -> None:
        """Count finished work, in megapixel-steps."""
        self._new_work += work

    def update(self, busy_seconds: float) -> float:
        """The throughput now, given the engine's total busy time; 0 before any work."""
        if self._new_work > 0:
            self._work = _DECAY * self._work + self._new_work
            self._seconds = _DECAY * self._seconds + busy_seconds - self._busy_seconds
            self._new_work, self._busy_seconds = 0.0, busy_seconds
        return round(self._work / self._seconds, 4) if self._seconds else 0.0
