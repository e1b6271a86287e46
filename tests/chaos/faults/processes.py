"""Processes that are killed, asked to end, or stopped for a while."""

import signal
from collections.abc import Iterator, Sequence

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import fault
from tests.chaos.member import Member


def _killed(members: Sequence[Member], how: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    """They stay down while the fault lasts; those that were down before stay down after it."""
    members = [member for member in members if not member.is_kept_down]
    for member in members:
        member.is_kept_down = True
        member.send(how)
    yield
    for member in members:
        member.is_kept_down = False


def _stopped(members: Sequence[Member]) -> Iterator[None]:
    processes = [member.process for member in members]
    for process in processes:
        if process is not None:
            process.send_signal(signal.SIGSTOP)
    yield
    for process in processes:
        if process is not None:
            process.send_signal(signal.SIGCONT)


@fault("worker killed", seconds=(0.1, 2))
def kill_worker(cluster: Cluster) -> Iterator[None]:
    yield from _killed([cluster.any(cluster.workers)])


@fault("API killed", seconds=(0.1, 2))
def kill_api(cluster: Cluster) -> Iterator[None]:
    yield from _killed([cluster.any(cluster.apis)])


@fault("webhook sender killed", seconds=(0.1, 2))
def kill_sender(cluster: Cluster) -> Iterator[None]:
    yield from _killed([cluster.sender])


@fault("Redis killed", seconds=(0.1, 2))
def kill_redis(cluster: Cluster) -> Iterator[None]:
    yield from _killed([cluster.redis])


@fault("worker told to end", seconds=(0.1, 2))
def terminate_worker(cluster: Cluster) -> Iterator[None]:
    yield from _killed([cluster.any(cluster.workers)], signal.SIGTERM)


@fault("worker stopped", seconds=(1, 8))
def stop_worker(cluster: Cluster) -> Iterator[None]:
    yield from _stopped([cluster.any(cluster.workers)])


@fault("API stopped", seconds=(0.5, 3))
def stop_api(cluster: Cluster) -> Iterator[None]:
    yield from _stopped([cluster.any(cluster.apis)])


@fault("Redis stopped", seconds=(0.5, 3))
def stop_redis(cluster: Cluster) -> Iterator[None]:
    yield from _stopped([cluster.redis])


@fault("all workers killed", seconds=(1, 3))
def kill_workers(cluster: Cluster) -> Iterator[None]:
    yield from _killed(cluster.workers)


@fault("everything killed", seconds=(0.1, 1), is_apart=True)
def kill_everything(cluster: Cluster) -> Iterator[None]:
    yield from _killed(cluster.members)
    cluster.await_workers()


@fault("worker and API stopped for a minute", seconds=(60, 60), is_apart=True)
def stop_long(cluster: Cluster) -> Iterator[None]:
    yield from _stopped([cluster.any(cluster.workers), cluster.any(cluster.apis)])


@fault("Redis stopped for a minute", seconds=(60, 60), is_apart=True)
def stop_redis_long(cluster: Cluster) -> Iterator[None]:
    yield from _stopped([cluster.redis])
