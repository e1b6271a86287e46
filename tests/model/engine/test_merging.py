"""LoRAs are merged beside the steps: who waits, what stays in memory, what a failure costs."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from model.engine.beside.side_work import AtOnce, SideThread
from model.engine.engine import Engine
from model.engine.protocol import EngineEvent, Failed, Finished, StepDone
from model.errors import LoraUnusable
from model.files.lora.folder import LoraFolder
from model.network.lora_merge import MergedValues
from model.network.lora_switch import LoraSwitch
from model.resolved_request import LoraSet, ResolvedLora
from tests.support.engines import AnalyticModel, drain, of, pipeline_of, request
from tests.support.waiting import wait_until

CPU = torch.device("cpu")
LONGEST = 60.0


def set_of(name: str) -> LoraSet:
    return (ResolvedLora(name=name, weight=1, sha256=name * 64),)


A, B, C = map(set_of, "abc")


class Loras(LoraSwitch):
    """Sets without weights. Every merge calls `on_merge`; `kept` are the sets in memory then.

    The merge of `slow` waits until it may go on.
    """

    def __init__(self, *, cached_sets: int = 2) -> None:
        super().__init__(None, LoraFolder(None), cached_sets=cached_sets)
        self.on_merge: Callable[[LoraSet], None] = lambda _: None
        self.slow: LoraSet = ()
        self.may_go_on = threading.Event()
        self.merged: list[LoraSet] = []
        self.kept: list[set[LoraSet]] = []
        self.used_in: set[str] = set()

    def knows_hashes(self, loras: LoraSet) -> bool:
        return True

    def split(self, loras: LoraSet) -> tuple[LoraSet, LoraSet]:
        return (), loras

    def merge(self, loras: LoraSet) -> MergedValues:
        self.merged.append(loras)
        self.kept.append(set(self._transformer._sets))
        self.used_in.add(threading.current_thread().name)
        if loras == self.slow:
            assert self.may_go_on.wait(LONGEST)
        self.on_merge(loras)
        return {}


def engine_with(loras: Loras, *, beside: bool = False) -> Engine:
    pipeline = replace(pipeline_of(AnalyticModel()), loras=loras)
    merging = SideThread("merging", CPU) if beside else AtOnce()
    return Engine(pipeline, token_budget=8192, merging=merging)


def wanting(loras: LoraSet, **fields: Any) -> Any:
    return request(**fields).model_copy(update={"loras": loras})


@pytest.fixture
def loras() -> Iterator[Loras]:
    made = Loras()
    made.slow = B
    yield made
    made.may_go_on.set()


def test_steps_go_on_while_a_neighbours_loras_are_merged(loras: Loras) -> None:
    engine = engine_with(loras, beside=True)
    engine.admit("plain", request(steps=30))
    engine.admit("a", wanting(A, steps=30))
    events: list[EngineEvent] = []
    while not of(StepDone, events, "a") or not of(StepDone, events, "plain"):
        events += engine.step()
    engine.admit("b", wanting(B, steps=2))
    while len(of(Finished, events, "a")) + len(of(Finished, events, "plain")) < 2:
        events += engine.step()
    assert loras.merged == [A, B]
    assert not of(StepDone, events, "b")
    loras.may_go_on.set()
    events += drain(engine)
    assert len(of(StepDone, events, "b")) == 2
    assert {name.rpartition("_")[0] for name in loras.used_in} == {"merging"}


def test_the_set_in_use_goes_for_the_next_one_only_if_there_is_room_for_one() -> None:
    for cached_sets in (1, 2, 3):
        loras = Loras(cached_sets=cached_sets)
        engine = engine_with(loras)
        for index, wanted in enumerate((A, B, C)):
            engine.admit(str(index), wanting(wanted, steps=4, seed=index))
        events = drain(engine)
        assert len([event for event in events if isinstance(event, Finished)]) == 3
        # With the one that is being merged, there are never more than the setting says.
        assert max(map(len, loras.kept)) == cached_sets - 1
        assert loras.merged == [A, B, C], "each once"


def test_a_set_is_merged_ahead_for_an_image_whose_turn_is_later(loras: Loras) -> None:
    engine = engine_with(loras, beside=True)
    engine.admit("a", wanting(A, steps=10))
    while not engine.stats.forwards:
        engine.step()
    engine.admit("later", wanting(B, steps=200))  # the first one is far more urgent
    for _ in range(6):
        engine.step()
    wait_until(lambda: B in loras.merged)
    assert engine.stats.forwards < 10


def test_no_set_in_use_goes_for_one_that_is_merged_ahead() -> None:
    loras = Loras(cached_sets=1)
    engine = engine_with(loras)
    engine.admit("a", wanting(A, steps=10))
    engine.step()
    engine.admit("later", wanting(B, steps=200))
    for _ in range(6):
        engine.step()
    assert loras.merged == [A]


def test_a_failed_merge_fails_the_requests_with_its_set_alone() -> None:
    def refuse(wanted: LoraSet) -> None:
        if wanted == B:
            raise LoraUnusable("LoRA b makes weights that are not finite")

    loras = Loras()
    loras.on_merge = refuse
    engine = engine_with(loras)
    jobs = {"plain": (), "a": A, "b": B, "b again": B}
    for job_id, wanted in jobs.items():
        engine.admit(job_id, wanting(wanted))
    events = drain(engine)
    assert {e.job_id: e.code for e in events if isinstance(e, Failed)} == {
        "b": "lora_unusable",
        "b again": "lora_unusable",
    }
    assert len([event for event in events if isinstance(event, Finished)]) == 2
    assert loras.merged.count(B) == 1


@pytest.mark.parametrize(("shortages", "failed"), [(1, []), (2, ["b"])])
def test_without_memory_the_other_sets_go_and_the_merge_is_tried_once_more(
    shortages: int, failed: list[str]
) -> None:
    tries: list[LoraSet] = []

    def short(wanted: LoraSet) -> None:
        tries.append(wanted)
        if wanted == B and tries.count(B) <= shortages:
            raise torch.OutOfMemoryError("simulated")

    loras = Loras()
    engine = engine_with(loras)
    engine.admit("a", wanting(A, steps=9))
    engine.step()
    loras.on_merge = short
    engine.admit("b", wanting(B, steps=2))
    events = drain(engine)
    found = [event for event in events if isinstance(event, Failed)]
    assert [event.job_id for event in found] == failed
    assert all((event.code, event.is_retryable) == ("out_of_memory", True) for event in found)
    assert tries.count(B) == 2
    assert loras.kept[2] == set(), "the second try has all memory"
    assert of(Finished, events, "a")
