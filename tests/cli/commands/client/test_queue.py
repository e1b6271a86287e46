"""`kirazuri queue` while the service is not ready; tests/e2e has the other client commands."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.client import api
from tests.support.cli import kirazuri_inline
from tests.support.scripted_transport import ScriptedTransport

CAPABILITIES: dict[str, Any] = {
    "name": "tiny",
    "samplers": [],
    "schedulers": [],
    "loras": [],
    "workers": [],
    "prompting": {"example": "1girl"},
}
REASON = "redis: does not answer"


def _answers() -> ScriptedTransport:
    away = {"title": "Not ready", "detail": REASON, "code": "queue_unavailable"}
    return ScriptedTransport(
        httpx2.Response(200, json=CAPABILITIES),
        httpx2.Response(200, text="# TYPE kirazuri_queue_up gauge\nkirazuri_queue_up 0\n"),
        httpx2.Response(503, json=away),
        httpx2.Response(503, json={**away, "reasons": [REASON]}),
    )


def test_a_service_that_is_not_ready_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in ((), ("--json",)):
        transport = _answers()
        monkeypatch.setattr(
            api,
            "open_client",
            lambda url: httpx2.Client(base_url=url, transport=transport),  # noqa: B023
        )
        run = kirazuri_inline("queue", *options, folder=tmp_path)
        assert run.returncode == 5
        if options:
            state = json.loads(run.stdout)
            assert (state["reasons"], state["waiting"], state["workers"]) == ([REASON], None, [])
        else:
            assert run.stdout.startswith(f"not ready        {REASON}\n")
            assert "None" not in run.stdout
            assert run.stderr == "no worker is up\n"
