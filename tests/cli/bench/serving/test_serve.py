"""`kirazuri bench start`, and the parts of `bench serve` that need no server."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.bench.serving import serve, start
from cli.bench.serving.one_job import Outcome
from tests.support.torch_free import needs_a_worker


def test_goodput_counts_jobs_within_three_times_their_time_alone() -> None:
    def outcome(latency: float, status: str = "succeeded") -> Outcome:
        timings = {"encode": 0.1, "denoise": 0.5, "decode": None}
        return Outcome("a", 0.01, 0.2, latency, {"status": status, "timings": timings})

    found = [outcome(1.0), outcome(3.0), outcome(3.1), outcome(1.0, "failed")]
    (row,) = serve._rows("50%", found, {"a": 1.0}, ["a"], 2.0)
    assert (row["jobs"], row["failed"], row["within 3x alone"]) == (4, 1, "50%")
    assert found[0].added == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("127.0.0.1:9", 1, "error: http://127.0.0.1:9: "),
        ("ftp://127.0.0.1", 2, "'ftp://127.0.0.1' is not an address"),
    ],
)
def test_a_service_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    code: int,
    told: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["kirazuri bench serve", "--url", url])
    with pytest.raises(SystemExit) as ended:
        serve.main()
    assert (ended.value.code, told in capsys.readouterr().err) == (code, True)


def test_the_mean_batch_is_that_of_all_workers_between_two_readings() -> None:
    def metrics(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/metrics"
        names = ("evaluations", "forwards")
        lines = [
            f'kirazuri_engine_{name}_total{{worker="{worker}"}} {value}'
            for name in names
            for worker, value in work[name]
        ]
        return httpx2.Response(200, text="\n".join(lines))

    async def read() -> tuple[float, float]:
        transport = httpx2.MockTransport(metrics)
        async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
            return await serve._model_calls(client)

    work = {"evaluations": [("a", 10.0), ("b", 20.0)], "forwards": [("a", 10.0), ("b", 10.0)]}
    before = asyncio.run(read())
    assert list(before) == [30, 20]
    work = {"evaluations": [("a", 50.0), ("b", 40.0)], "forwards": [("a", 20.0), ("b", 15.0)]}
    assert serve._mean_batch(before, asyncio.run(read())) == "4.0 images"
    assert serve._mean_batch((0, 0), (0, 0)) == "unknown size"


def test_a_class_names_preset_steps_and_sampler() -> None:
    named = [serve._body(kind, 1) for kind in ("square", "square:20", "square:20:euler")]
    parts = [
        {name: body.get(name) for name in ("resolution", "steps", "sampler")} for body in named
    ]
    assert parts == [
        {"resolution": "square", "steps": None, "sampler": None},
        {"resolution": "square", "steps": 20, "sampler": None},
        {"resolution": "square", "steps": 20, "sampler": "euler"},
    ]


def test_clients_that_never_pause_share_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    running_now, most = 0, 0

    async def job(client: object, kind: str, body: object) -> tuple[str, object]:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0)
        running_now -= 1
        return kind, body

    monkeypatch.setattr(serve, "run_job", job)
    bodies = ((str(n), n) for n in range(100))
    client = argparse.Namespace()
    found: Any = asyncio.run(serve._closed_loop(client, bodies, 3, 10))  # type: ignore[arg-type]
    assert sorted(body for _, body in found) == list(range(10))
    assert most == 3


@needs_a_worker
def test_the_start_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "start.json"
    monkeypatch.setattr(sys, "argv", ["start", "--rounds", "1", f"--json={path}"])
    start.main()
    assert "| a worker is warm |" in capsys.readouterr().out
    seconds = [row["s"] for row in json.loads(path.read_text())["rows"]]
    assert seconds[1:] == sorted(seconds[1:])
