"""Chooses among all running requests: the images of the next step, and those to prepare."""

from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import Future

from model.engine.batching import Candidate, select_batch
from model.engine.beside.merging import MergesBeside
from model.engine.running_request import RunningRequest, UnfinishedImage
from model.network.lora_switch import LoraSwitch

_MERGE_FORWARDS = 2
"""Cost of merging LoRAs into the transformer, in full forwards, for selecting a batch."""

_ImageKey = tuple[str, int]


def preparable(
    running: Mapping[str, RunningRequest], hashes: Mapping[str, Future[None]]
) -> list[str]:
    """The requests that wait for nothing but their preparation: not for hashes of LoRA files."""
    return [
        job_id
        for job_id, one in running.items()
        if not one.is_preparing and (job_id not in hashes or hashes[job_id].done())
    ]


def request_of(
    image: UnfinishedImage, running: Mapping[str, RunningRequest]
) -> RunningRequest | None:
    """The request of an image; None if it was cancelled or begun anew since."""
    one = running.get(image.job_id)
    return one if one and one.images.get(image.index) is image else None


def next_batch(
    running: Mapping[str, RunningRequest],
    loras: LoraSwitch,
    merges: MergesBeside,
    *,
    token_budget: int,
) -> list[UnfinishedImage]:
    """The images that take part in this step. The others grow more urgent.

    A set of LoRAs that is not merged is merged beside the steps: at once if it is that of the most
    urgent image, else when no set in use must go for it. Its images wait, the others go on.
    """
    waiting = dict(_waiting(running))
    candidates = [
        _candidate(key, image, running[image.job_id], loras, token_budget)
        for key, image in waiting.items()
    ]
    selected = select_batch(candidates, token_budget=token_budget)
    in_use = {running[job_id].loras for job_id, _ in waiting}
    if selected and not loras.is_merged(wanted := running[selected[0].key[0]].loras):
        merges.begin(wanted, beside=in_use)
    for wanted in (running[one.key[0]].loras for one in candidates):
        if not loras.is_merged(wanted):
            merges.begin_ahead(wanted, beside=in_use)
    if selected and not can_run(running[selected[0].key[0]], loras):
        ready = [one for one in candidates if can_run(running[one.key[0]], loras)]
        selected = select_batch(ready, token_budget=token_budget)
    batch = [waiting.pop(candidate.key) for candidate in selected]
    if batch:
        for image in waiting.values():
            image.waited += 1
    return batch


def can_run(running: RunningRequest, loras: LoraSwitch) -> bool:
    """Whether the weights for a request, and what the transformer makes of its prompts, are there.

    They are computed beside the steps.
    """
    return bool(running.texts) and loras.is_merged(running.loras)


def has_work(running: Mapping[str, RunningRequest], loras: LoraSwitch) -> bool:
    """Whether an image can be evaluated now."""
    return any(can_run(running[job_id], loras) for (job_id, _), _ in _waiting(running))


def _waiting(
    running: Mapping[str, RunningRequest],
) -> Iterable[tuple[_ImageKey, UnfinishedImage]]:
    """The images that wait for an evaluation."""
    for job_id, one in running.items():
        for image in one.images.values():
            if not image.is_beside:
                yield (job_id, image.index), image


def _candidate(
    key: _ImageKey,
    image: UnfinishedImage,
    running: RunningRequest,
    loras: LoraSwitch,
    token_budget: int,
) -> Candidate[_ImageKey]:
    return Candidate(
        key=key,
        shape=(image.x.shape[-2], image.x.shape[-1]),
        rows=running.rows,
        remaining=image.remaining,
        waited=image.waited,
        group=_batch_group(running, key),
        setup=0 if loras.is_merged(running.loras) else _MERGE_FORWARDS * token_budget,
        owner=running.owner,
        weight=running.weight,
    )


def _batch_group(running: RunningRequest, key: _ImageKey) -> Hashable:
    """Images of equal groups may share a forward. A deterministic image has its own group.

    A forward has one set of weights. The size of a batch selects kernels, and these round
    differently in the last bits.
    """
    return running.loras, running.path, key if running.request.deterministic else None
