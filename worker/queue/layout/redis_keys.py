"""Names the Redis keys of this service; the Lua scripts get them from here.

docs/queue.md describes the content of each key. RQ's own keys are in `rq_layout`.
"""

WAKE = "kirazuri:wake"
QUEUED = "kirazuri:queued"
RUNNING = "kirazuri:running"
COUNTERS = "kirazuri:totals"
IMAGES = "kirazuri:images"
REMOVALS = "kirazuri:removals"
INDEXED = "kirazuri:indexed"
ORPHAN_SEARCH = "kirazuri:orphans"
MEAN_COST = "kirazuri:pace"
DEADLINES = "kirazuri:deadlines"
OLD_TURNS = "kirazuri:turns"
OLD_LINES = "kirazuri:lines"
NEXT_TURNS = "kirazuri:shares"
VIRTUAL_TIME = "kirazuri:clock"
SOLO_TURN = "kirazuri:solo"
CHECKPOINTS = "kirazuri:checkpoints"
WORKERS = "kirazuri:workers"
OUTBOX = "kirazuri:outbox"

HEARTBEAT_TTL_SECONDS = 15
"""A worker's heartbeat is kept for this long."""

WAITER_MS = 3000
"""An API process that waits for jobs counts as alive for this long after it last said so."""

MAX_CALLS = 20
"""Calls alike and of one caller that are recorded at once."""

PREFIXES = {
    "job": "kirazuri:job:",
    "events": "kirazuri:events:",
    "fair": "kirazuri:fair:",
    "holders": "kirazuri:holders:",
    "maker": "kirazuri:maker:",
    "jobs": "kirazuri:jobs:",
    "unfinished": "kirazuri:unfinished:",
    "spent": "kirazuri:spent:",
    "owners": "kirazuri:owners:",
    "old_line": "kirazuri:line:",
    "delivery": "kirazuri:delivery:",
    "claimed": "kirazuri:claimed:",
    "worker": "kirazuri:worker:",
    "waiter": "kirazuri:waiter:",
}
"""Keys that the scripts complete by an id or a name, which they find in a record."""


def job_key(job_id: str) -> str:
    """The hash with the record of a job."""
    return PREFIXES["job"] + job_id


def events_key(job_id: str) -> str:
    """The stream of a job's events."""
    return PREFIXES["events"] + job_id


def holders_key(name: str) -> str:
    """The set of unfinished jobs that start from a stored image; it is not removed before them."""
    return PREFIXES["holders"] + name


def maker_key(owner: str, name: str) -> str:
    """The id of the owner's job that last made an image. Owners contain no colon."""
    return f"{PREFIXES['maker']}{owner}:{name}"


def jobs_key(owner: str) -> str:
    """The sorted set of an owner's jobs, in the order of their ids."""
    return PREFIXES["jobs"] + owner


def unfinished_key(owner: str) -> str:
    """The set of an owner's queued and running jobs."""
    return PREFIXES["unfinished"] + owner


def spent_key(owner: str, day: int) -> str:
    """The hash with the work accepted from an owner on a day, counted from 1970."""
    return f"{PREFIXES['spent']}{owner}:{day}"


def owners_key(name: str) -> str:
    """The sorted set of owners who may see a stored image, by the time until which they may."""
    return PREFIXES["owners"] + name


def idempotency_key(owner: str, key: str | None) -> str:
    """The hash with the job of an owner's `Idempotency-Key`; "" for None."""
    return f"kirazuri:idem:{owner}:{key}" if key else ""


def calls_key(caller: str, fingerprint: str) -> str:
    """The hash of jobs whose calls, alike and of one caller, have not had their answer yet."""
    return f"kirazuri:calls:{caller}:{fingerprint}"


def waiter_key(process: str) -> str:
    """Exists while an API process that waits for jobs is alive."""
    return PREFIXES["waiter"] + process


def client_key(client: str) -> str:
    """The sorted set of jobs of a client whose API has no job ids."""
    return f"kirazuri:client:{client}"


def worker_key(name: str) -> str:
    """The last heartbeat of a worker."""
    return PREFIXES["worker"] + name


def worker_metrics_key(name: str) -> str:
    """The last metrics of a worker."""
    return f"kirazuri:worker-metrics:{name}"
