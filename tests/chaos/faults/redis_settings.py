"""A Redis without memory, one that may forget, one that keeps no file."""

from collections.abc import Iterator

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import fault


def _configured(cluster: Cluster, **settings: tuple[str, str]) -> Iterator[None]:
    """Each setting has a value while the fault lasts, and one from then on."""
    cluster.redis_settings.update({name: bad for name, (bad, _) in settings.items()})
    yield
    cluster.redis_settings.update({name: good for name, (_, good) in settings.items()})


@fault("Redis out of memory", seconds=(0.5, 3))
def fill_memory(cluster: Cluster) -> Iterator[None]:
    yield from _configured(cluster, maxmemory=("1", "0"))


@fault("Redis may forget", seconds=(1, 4), is_apart=True)
def allow_eviction(cluster: Cluster) -> Iterator[None]:
    """Every client connects again, because the policy is checked then."""
    for _ in _configured(cluster, **{"maxmemory-policy": ("allkeys-lru", "noeviction")}):
        cluster.await_redis_settings()
        cluster.proxy.cut()
        yield


@fault("Redis keeps no file", seconds=(1, 4), is_apart=True)
def switch_off_file(cluster: Cluster) -> Iterator[None]:
    for _ in _configured(cluster, appendonly=("no", "yes")):
        cluster.await_redis_settings()
        cluster.proxy.cut()
        yield


@fault("Redis out of memory while jobs run", seconds=(15, 15), is_apart=True)
def fill_memory_during_jobs(cluster: Cluster) -> Iterator[None]:
    """New jobs are refused, and those accepted before end, or can be cancelled."""
    accepted = cluster.clients.submit_probes(20)
    for _ in _configured(cluster, maxmemory=("1", "0")):
        cluster.await_redis_settings()
        yield
        if cluster.clients.submit_probe():
            cluster.complaints.append("a full Redis accepted a job")
        unfinished = cluster.unfinished(accepted)
        if unfinished:
            cluster.complaints.append(f"{len(unfinished)} of 20 jobs wait in a full Redis")
