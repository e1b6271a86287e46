"""Which work of a submission runs in threads."""

import asyncio
from typing import Any

import httpx2
import pytest

from api.submit.cpu_work import MAX_CHARS_AT_ONCE
from api.submit.policy_check import chars_to_check
from worker.queue.scripts.lua_script import LuaScript

THINGS = ("red hat", "blue bow", "long hair", "green eyes")
TAGS = [f"{thing} {number}" for thing in THINGS for number in range(20)]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that ran in threads."""
    used: list[str] = []
    to_thread = asyncio.to_thread

    async def note(function: Any, /, *args: Any, **options: Any) -> Any:
        used.append(getattr(function, "__qualname__", repr(function)))
        return await to_thread(function, *args, **options)

    monkeypatch.setattr("asyncio.to_thread", note)
    return used


@pytest.mark.parametrize("path", ["/generate", "/generate?dry_run=true"])
def test_an_ordinary_prompt_needs_no_thread(
    client: httpx2.Client, threads: list[str], path: str
) -> None:
    prompt = ", ".join(TAGS)
    assert len(TAGS) == 80
    assert len(prompt) < MAX_CHARS_AT_ONCE
    assert client.post(path, json={"prompt": prompt}).status_code < 300
    assert threads == []
    long = ", ".join([*TAGS, "x " * MAX_CHARS_AT_ONCE])
    assert client.post(path, json={"prompt": long}).status_code < 300
    assert len(threads) == 2, "the policy and the advice"


def test_names_of_loras_count_for_each_way_to_read_them() -> None:
    assert chars_to_check(["red", "blue"], {}) == 7
    words = {f"lora_{number}": ["trigger word"] * 10 for number in range(8)}
    assert chars_to_check(["red"], words) == 3 + 5 * 8 * (6 + 10 * 12)
    assert chars_to_check(["red"], words) > MAX_CHARS_AT_ONCE


def test_a_submission_registers_no_script(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[str] = []
    register = LuaScript.__init__

    def note(self: LuaScript, owner: Any, name: str) -> None:
        registered.append(name)
        register(self, owner, name)

    monkeypatch.setattr(LuaScript, "__init__", note)
    assert client.post("/generate", json={"prompt": "1girl, smile"}).status_code == 202
    assert registered == []
