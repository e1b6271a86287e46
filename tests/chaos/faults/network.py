"""A network between the processes and Redis that cuts, refuses, delays and stalls."""

from collections.abc import Iterator

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import fault


@fault("connections to Redis cut", seconds=(0, 0))
def cut_connections(cluster: Cluster) -> Iterator[None]:
    cluster.proxy.cut()
    yield


@fault("Redis unreachable", seconds=(0.5, 3))
def refuse_connections(cluster: Cluster) -> Iterator[None]:
    cluster.proxy.shut()
    yield
    cluster.proxy.open()


@fault("Redis unreachable for long", seconds=(30, 30), is_apart=True)
def refuse_long(cluster: Cluster) -> Iterator[None]:
    """Five leases: workers continue, and their jobs are not retried when Redis is back."""
    yield from refuse_connections(cluster)


@fault("slow Redis", seconds=(3, 8))
def delay(cluster: Cluster) -> Iterator[None]:
    cluster.proxy.delay_seconds = 0.3
    yield
    cluster.proxy.delay_seconds = 0.0


@fault("Redis stalls", seconds=(1, 8))
def stall(cluster: Cluster) -> Iterator[None]:
    """Connections stay open, and nothing passes."""
    cluster.proxy.is_stalled = True
    yield
    cluster.proxy.is_stalled = False
