"""The arguments of the script that admits a job."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from worker.auth.api_keys import KeyLimits
from worker.queue.eta import Throughput
from worker.queue.layout import rq_layout
from worker.settings import Settings

_UNLIMITED = KeyLimits()
_UNKNOWN = Throughput()
NO_CALL = ("", "", "", 0)


def admit_arguments(
    record: Mapping[str, Any],
    settings: Settings,
    *,
    idempotency: tuple[str, str, str] = ("", "", ""),
    inputs: Sequence[str] = (),
    limits: KeyLimits = _UNLIMITED,
    throughput: Throughput = _UNKNOWN,
    refused_faults: Sequence[str] = (),
    call: tuple[str, str, str, int] = NO_CALL,
) -> list[Any]:
    """The arguments of `admit.lua` after the job's id, for a record of `new_record`.

    `idempotency` is the name of its key, the fingerprint, and "1" if the key is renewed. `inputs`
    are the stored images that the job starts from. `call` is the key of the calls like this one,
    its process, its id, and the seconds for which the key is kept.
    """
    key, fingerprint, is_renewed = idempotency
    pairs = [part for pair in record.items() for part in pair]
    return [
        settings.max_queue,
        key,
        fingerprint,
        settings.idempotency_ttl_seconds,
        is_renewed,
        json.dumps(inputs),
        settings.result_ttl_seconds,
        record["owner"],
        "" if limits.concurrency is None else limits.concurrency,
        "" if limits.quota is None else limits.quota,
        record["cost"],
        throughput.cost_per_second,
        throughput.workers,
        " ".join(refused_faults),
        *call,
        len(pairs),
        *pairs,
        *rq_layout.job_fields(),
    ]
