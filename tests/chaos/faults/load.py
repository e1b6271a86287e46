"""Many clients at once: storms of cancels, and many that wait for their pictures."""

from collections.abc import Iterator

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import fault


@fault("storm of cancels", seconds=(0, 0), is_apart=True)
def storm(cluster: Cluster) -> Iterator[None]:
    """Nobody else gets 503 meanwhile; the clients notice that."""
    cluster.clients.storm(200)
    yield


@fault("a thousand waiting clients", seconds=(0, 0), is_apart=True)
def wait_all(cluster: Cluster) -> Iterator[None]:
    """Each gets its picture, or 202 and its job."""
    cluster.clients.wait_together(1_000)
    yield
