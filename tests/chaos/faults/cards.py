"""Workers of another checkpoint on the same Redis."""

import signal
from collections.abc import Iterator

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import fault


@fault("worker of another card", seconds=(2, 6))
def add_stranger(cluster: Cluster) -> Iterator[None]:
    """It takes none of the jobs; the check at the end looks at who made the pictures."""
    cluster.stranger.is_kept_down = False
    yield
    cluster.stranger.is_kept_down = True
    cluster.stranger.send(signal.SIGTERM)


@fault("only workers of another card", seconds=(8, 8), is_apart=True)
def leave_stranger(cluster: Cluster) -> Iterator[None]:
    for worker in cluster.workers:
        worker.is_kept_down = True
        worker.send(signal.SIGTERM)
    yield from add_stranger(cluster)
    for worker in cluster.workers:
        worker.is_kept_down = False
