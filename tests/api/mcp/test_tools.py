"""The tools with the official client, in both generations of the protocol."""

import base64
import io
import json
from collections.abc import Iterator

import httpx2
import jsonschema_rs
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ImageContent, ResourceLink
from PIL import Image

from model.card import load_card
from tests.support.api_calls import read_metrics
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.mcp_clients import ERAS, Era, mcp_client, message, post, replies, text_of
from tests.support.mcp_clients import tool_call as call
from tests.support.openai_clients import fake_worker
from tests.support.waiting import async_wait_until
from worker.queue.job_queue import JobQueue
from worker.settings import Settings

PROMPT = "1girl, smile"
TOOLS = ["generate_image", "get_job", "cancel_job", "list_presets"]


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    chosen: Era = request.param
    return chosen


@pytest.fixture
def fake(settings: Settings, redis_url: str) -> Iterator[None]:
    with fake_worker(settings):
        yield


@pytest.mark.usefixtures("fake")
async def test_an_image_with_progress_link_and_preview(
    server: ApiServer, client: httpx2.Client, era: Era
) -> None:
    seen: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert message
        seen.append((progress, total))

    async with mcp_client(server.url, era) as mcp:
        result = await mcp.call_tool(
            "generate_image",
            {"prompt": PROMPT, "steps": 5, "seed": 7, "num_images": 2},
            progress_callback=on_progress,
        )
    assert not result.is_error, text_of(result)
    steps = [progress for progress, _ in seen]
    assert steps == sorted(set(steps))
    assert len(steps) > 2
    assert {total for _, total in seen} == {5}
    (job,) = client.get("/jobs").json()["items"]
    assert job["status"] == "succeeded"
    assert job["request"]["seed"] == 7
    assert f"Job {job['id']} succeeded with 2 images." in text_of(result)
    links = [part for part in result.content if isinstance(part, ResourceLink)]
    assert [str(link.uri) for link in links] == [image["url"] for image in job["images"]]
    for link in links:
        assert str(link.uri) in text_of(result)
        file = client.get(str(link.uri))
        assert file.headers["content-type"] == link.mime_type == "image/png"
        assert len(file.content) == link.size
    previews = [part for part in result.content if isinstance(part, ImageContent)]
    assert len(previews) == 2
    for preview in previews:
        assert preview.mime_type == "image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(preview.data))) as image:
            assert max(image.size) <= 512


async def test_the_tools_have_the_fields_and_limits_of_the_card(
    server: ApiServer, era: Era
) -> None:
    card = load_card("kirazuri-tiny")
    async with mcp_client(server.url, era) as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
    assert list(tools) == TOOLS
    schema = tools["generate_image"].input_schema
    fields = schema["properties"]
    assert fields["sampler"]["enum"] == list(card.samplers)
    assert fields["scheduler"]["enum"] == list(card.schedulers)
    assert fields["steps"]["maximum"] == card.limits.max_steps
    assert card.resolutions[0].name in fields["resolution"]["description"]
    assert "base64" not in fields["init_image"]["description"]
    assert not {"webhook", "previews"} & set(fields)
    for tool in tools.values():
        jsonschema_rs.meta.validate(tool.input_schema)
        assert tool.description
        text = json.dumps(tool.input_schema)
        assert not [word for word in ("$ref", "$defs", '"null"', '"title"') if word in text]
    accepts = jsonschema_rs.validator_for(schema).is_valid
    assert accepts({"prompt": PROMPT, "tags": {"general": ["smile"]}, "steps": 5})
    assert not accepts({"prompt": PROMPT, "steps": 5000})
    assert not accepts({"prompt": PROMPT, "webhook": None})


async def test_wrong_arguments_are_told_with_field_value_and_limit(
    server: ApiServer, client: httpx2.Client, era: Era
) -> None:
    before = read_metrics(client).get(("kirazuri_http_problems_total", "validation_failed"), 0)
    wrong = {"steps": 5000, "sampler": "magic", "webhook": {"url": "https://x.test"}, "colour": 1}
    async with mcp_client(server.url, era) as mcp:
        result = await mcp.call_tool("generate_image", wrong)
        other = await mcp.call_tool("get_job", {"job_id": 5, "wait_seconds": 100})
        more = await mcp.call_tool("list_presets", {"page": 2})
    assert result.is_error
    text = text_of(result)
    for part in ("prompt: required", "5000", "100", '"magic"', "webhook: unknown", "colour: unk"):
        assert part in text
    assert other.is_error
    assert "job_id: " in text_of(other)
    assert "equal to 50; got 100" in text_of(other)
    assert more.is_error
    assert "page: unknown field" in text_of(more)
    assert client.get("/jobs").json()["items"] == []
    after = read_metrics(client)["kirazuri_http_problems_total", "validation_failed"]
    assert after - before == 3


async def test_many_errors_are_told_in_a_short_text(server: ApiServer) -> None:
    async with mcp_client(server.url, "legacy") as mcp:
        result = await mcp.call_tool("generate_image", {f"field{i}": i for i in range(2000)})
    assert result.is_error
    assert "more" in text_of(result)
    assert len(text_of(result)) < 2000


async def test_unknown_tools_are_a_protocol_error(server: ApiServer, era: Era) -> None:
    async with mcp_client(server.url, era) as mcp:
        with pytest.raises(MCPError, match="unknown tool 'draw'; the tools are generate_image"):
            await mcp.call_tool("draw", {})
        with pytest.raises(MCPError) as refused:
            await mcp.call_tool("x" * 10_000, {})
    assert len(str(refused.value)) < 500


async def test_a_long_job_is_answered_with_its_id_and_then_by_get_job(
    server: ApiServer, worker: ManualWorker, client: httpx2.Client, era: Era
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(file, "png")
    async with mcp_client(server.url, era, waits=False) as mcp:
        first = await mcp.call_tool("generate_image", {"prompt": PROMPT, "steps": 4})
        (job_id,) = worker.queued_ids()
        assert not first.is_error
        assert f"Job {job_id} is queued" in text_of(first)
        assert "get_job" in text_of(first)
        worker.claim(job_id)
        worker.step(job_id, 3, 4)
        running = await mcp.call_tool("get_job", {"job_id": job_id})
        assert "is running, step 3 of 4" in text_of(running)
        worker.finish(job_id, file.getvalue())
        done = await mcp.call_tool("get_job", {"job_id": job_id, "wait_seconds": 50})
    assert f"Job {job_id} succeeded with 1 image." in text_of(done)
    assert [part.type for part in done.content] == ["text", "resource_link", "image"]


async def test_get_job_waits_and_reports(server: ApiServer, worker: ManualWorker) -> None:
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total == 4
        assert message
        seen.append(progress)
        if progress == 0:
            worker.claim(job_id)
            # A retry starts again: progress must not go back.
            for step in (1, 2, 1, 3):
                worker.step(job_id, step, 4)
            worker.finish(job_id)

    async with mcp_client(server.url, "auto", waits=False) as mcp:
        await mcp.call_tool("generate_image", {"prompt": PROMPT, "steps": 4})
        (job_id,) = worker.queued_ids()
        result = await mcp.call_tool(
            "get_job", {"job_id": job_id, "wait_seconds": 50}, progress_callback=on_progress
        )
    assert "succeeded" in text_of(result)
    assert seen == [0, 1, 2, 3]


async def test_cancelling(server: ApiServer, worker: ManualWorker, era: Era) -> None:
    async with mcp_client(server.url, era, waits=False) as mcp:
        await mcp.call_tool("generate_image", {"prompt": PROMPT})
        (job_id,) = worker.queued_ids()
        result = await mcp.call_tool("cancel_job", {"job_id": job_id})
        again = await mcp.call_tool("cancel_job", {"job_id": job_id})
        unknown = await mcp.call_tool("cancel_job", {"job_id": "nonsense"})
        shown = await mcp.call_tool("get_job", {"job_id": job_id})
    assert text_of(result) == f"Job {job_id} is cancelled."
    assert again.is_error
    assert "already" in text_of(again)
    assert unknown.is_error
    assert "no such job" in text_of(unknown)
    assert not shown.is_error
    assert f"Job {job_id} cancelled." in text_of(shown)


async def test_a_running_job_stops_within_a_step(server: ApiServer, worker: ManualWorker) -> None:
    async with mcp_client(server.url, "auto", waits=False) as mcp:
        await mcp.call_tool("generate_image", {"prompt": PROMPT, "steps": 4})
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        result = await mcp.call_tool("cancel_job", {"job_id": job_id})
    assert text_of(result) == f"Job {job_id} stops within one step."
    assert worker.step(job_id, 1, 4) == "cancel"


async def test_a_full_queue_is_told_with_the_time_to_wait(
    server: ApiServer, worker: ManualWorker, settings: Settings
) -> None:
    async with mcp_client(server.url, "auto", waits=False) as mcp:
        for _ in range(settings.max_queue):
            assert not (await mcp.call_tool("generate_image", {"prompt": PROMPT})).is_error
        result = await mcp.call_tool("generate_image", {"prompt": PROMPT})
    assert result.is_error
    assert str(settings.max_queue) in text_of(result)
    assert "Try again in" in text_of(result)
    assert len(worker.queued_ids()) == settings.max_queue


async def test_a_cancelled_job_is_an_error_for_the_call_that_waits(
    server: ApiServer, worker: ManualWorker, client: httpx2.Client
) -> None:
    async def cancel(progress: float, total: float | None, message: str | None) -> None:
        await async_wait_until(worker.queued_ids)
        (job_id,) = worker.queued_ids()
        assert client.delete(f"/jobs/{job_id}").status_code == 202

    async with mcp_client(server.url, "auto") as mcp:
        result = await mcp.call_tool("generate_image", {"prompt": PROMPT}, progress_callback=cancel)
    assert result.is_error
    assert "cancelled" in text_of(result)


async def test_unexpected_errors_tell_nothing(
    server: ApiServer, era: Era, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("/a/path and a host")

    monkeypatch.setattr(JobQueue, "get", broken)
    async with mcp_client(server.url, era) as mcp:
        result = await mcp.call_tool("get_job", {"job_id": "x"})
    assert result.is_error
    assert "/a/path" not in text_of(result)
    assert "/a/path" in caplog.text


async def test_presets(server: ApiServer, era: Era) -> None:
    card = load_card("kirazuri-tiny")
    async with mcp_client(server.url, era) as mcp:
        presets = json.loads(text_of(await mcp.call_tool("list_presets", {})))
    assert list(presets["samplers"]) == list(card.samplers)
    assert presets["resolutions"][card.resolutions[0].name]
    assert presets["defaults"]["sampler"] == card.defaults.sampler
    assert presets["limits"]["steps"] == card.limits.max_steps


def test_older_protocols_get_no_links_but_urls(
    client: httpx2.Client, worker: ManualWorker, redis_url: str
) -> None:
    post(client, call("generate_image", prompt=PROMPT), prefer="wait=0")
    (job_id,) = worker.queued_ids()
    worker.claim(job_id)
    (image,) = worker.finish(job_id, b"no picture")
    kinds = {}
    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        answer = post(client, call("get_job", job_id=job_id), mcp_protocol_version=version)
        (reply,) = replies(answer)
        assert image.url in reply["result"]["content"][0]["text"]
        kinds[version] = [part["type"] for part in reply["result"]["content"]]
    # The file is no picture, so there is no preview.
    assert kinds == {
        "2024-11-05": ["text"],
        "2025-03-26": ["text"],
        "2025-06-18": ["text", "resource_link"],
        "2025-11-25": ["text", "resource_link"],
    }


def test_any_process_answers_any_call(
    client: httpx2.Client, settings: Settings, worker: ManualWorker
) -> None:
    """A handshake with one process, a submission at the second, the rest at the first again."""
    hello = message(
        "initialize",
        protocolVersion="2025-11-25",
        capabilities={},
        clientInfo={"name": "test", "version": "1"},
    )
    with (
        ApiServer(settings) as second,
        httpx2.Client(base_url=second.url, timeout=60) as other,
    ):
        answer = post(client, hello)
        assert "mcp-session-id" not in answer.headers
        assert (
            post(client, {"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code
            == 202
        )
        (made,) = replies(post(other, call("generate_image", prompt=PROMPT), prefer="wait=0"))
        (job_id,) = worker.queued_ids()
        assert job_id in made["result"]["content"][0]["text"]
        (ended,) = replies(post(client, call("cancel_job", job_id=job_id)))
        assert "is cancelled" in ended["result"]["content"][0]["text"]
        (seen,) = replies(post(other, call("get_job", job_id=job_id)))
        assert "cancelled" in seen["result"]["content"][0]["text"]
