"""Clocks that jump."""

from collections.abc import Iterator

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import fault


@fault("clock of a worker ahead", seconds=(2, 6))
def jump_ahead(cluster: Cluster) -> Iterator[None]:
    yield from _shifted(cluster, 3600)


@fault("clock of a worker behind", seconds=(2, 6))
def jump_back(cluster: Cluster) -> Iterator[None]:
    yield from _shifted(cluster, -3600)


def _shifted(cluster: Cluster, seconds: int) -> Iterator[None]:
    clock = cluster.any(cluster.clocks)
    clock.shift(seconds)
    yield
    clock.shift(0)
