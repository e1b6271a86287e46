"""Messages that are no messages, other methods, versions, sizes, hosts and origins."""

import json
from typing import Any

import httpx2
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.mcp.messages import MAX_BODY_BYTES
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.mcp_clients import ACCEPT, error_of, message, notification, post, replies
from tests.support.mcp_clients import tool_call as call
from worker.settings import Settings

PROMPT = "1girl, smile"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
def test_only_post_is_a_call(client: httpx2.Client, method: str) -> None:
    """There are no sessions to listen to or to end."""
    answer = client.request(method, "/mcp", headers={"Accept": "text/event-stream"})
    error = error_of(answer, 405)
    assert method in error["message"]
    assert answer.headers["allow"] == "POST"


def test_a_slash_too_many_in_the_url_is_understood(client: httpx2.Client) -> None:
    for path in ("/mcp/", "/mcp//"):
        head = {"Content-Type": "application/json", **ACCEPT}
        assert client.post(path, json=message("ping"), headers=head).status_code == 200
    assert error_of(client.post("/mcp/other", json=message("ping")), 404)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"", -32700, "at character 0"),
        (b"{", -32700, "at character 1"),
        (b"\xff\xfe", -32700, "JSON"),
        (b"[" * 150, -32600, "100 levels of nesting"),
        (b"[" * 100_000, -32600, "10000 values"),
        (b"1" * 5000, -32700, "number in the body is too long"),
        (b"[]", -32600, "batch"),
        ([message("ping"), call("generate_image", prompt=PROMPT)], -32600, "batch"),
        (5, -32600, "JSON object"),
        ("ping", -32600, "JSON object"),
        ({}, -32600, 'jsonrpc: must be "2.0"; method: must be a text'),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, -32600, 'jsonrpc: must be "2.0"'),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, -32600, "method: must be a text"),
        ({"jsonrpc": "2.0", "id": 1, "method": 5}, -32600, "method: must be a text"),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]}, -32600, "params: must"),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None}, -32600, "params: must"),
        (message("ping", request_id=None), -32600, "id: must be"),
        (message("ping", request_id=True), -32600, "id: must be"),
        (message("ping", request_id=1.5), -32600, "id: must be"),
        (message("ping", request_id={}), -32600, "id: must be"),
        (message("ping", request_id="x" * 257), -32600, "at most 256 characters"),
        (message("ping", request_id=int("9" * 257)), -32600, "at most 256 characters"),
        (message("ping", _meta=5), -32600, "params._meta: must be"),
        (message("ping", _meta={"progressToken": "x" * 257}), -32600, "progressToken: must"),
        (message("ping", _meta={"progressToken": [1]}), -32600, "progressToken: must"),
    ],
)
def test_bodies_that_are_no_message(
    client: httpx2.Client, worker: ManualWorker, body: Any, code: int, reason: str
) -> None:
    for headers in ({}, {"mcp_protocol_version": "2026-07-28"}):
        error = error_of(post(client, body, **headers), 400)
        assert error["code"] == code
        assert reason in error["message"]
        assert len(json.dumps(error)) < 1000
    assert worker.queued_ids() == []


def test_big_bodies_are_refused(client: httpx2.Client, worker: ManualWorker) -> None:
    fitting = call("generate_image", prompt=PROMPT)
    padding = MAX_BODY_BYTES - len(json.dumps(fitting))
    (reply,) = replies(post(client, json.dumps(fitting).encode() + b" " * padding, prefer="wait=0"))
    assert not reply["result"]["isError"]
    for body in (json.dumps(fitting).encode() + b" " * (padding + 1), b'"' + b"x" * 2_000_000):
        error = error_of(post(client, body), 413)
        assert str(MAX_BODY_BYTES) in error["message"]
    assert len(worker.queued_ids()) == 1


def test_other_content_types_are_refused(client: httpx2.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        error = error_of(post(client, message("ping"), content_type=kind), 415)
        assert "application/json" in error["message"]


def test_a_client_must_accept_both_kinds_of_answers(client: httpx2.Client) -> None:
    answer = post(client, message("ping"), accept="application/json")
    assert "text/event-stream" in error_of(answer, 406)["message"]


def test_malformed_calls_of_a_tool(client: httpx2.Client, worker: ManualWorker) -> None:
    for params, pointers in (
        ({"name": 5}, ["/params/name"]),
        ({}, ["/params/name"]),
        ({"name": "generate_image", "arguments": [1]}, ["/params/arguments"]),
        ({"name": "generate_image", "arguments": 0}, ["/params/arguments"]),
        ({"name": None, "arguments": ""}, ["/params/name", "/params/arguments"]),
    ):
        error = error_of(post(client, message("tools/call", **params)), 400)
        assert (error["code"], error["data"]["code"]) == (-32602, "validation_failed")
        assert [wrong["pointer"] for wrong in error["data"]["errors"]] == pointers
    (reply,) = replies(post(client, call("draw")))
    data = reply["error"]["data"]
    assert (reply["error"]["code"], data["code"]) == (-32602, "validation_failed")
    assert "generate_image" in data["errors"][0]["limit"]
    assert worker.queued_ids() == []


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_half_characters_are_no_server_error(
    client: httpx2.Client, worker: ManualWorker, version: str
) -> None:
    half = "\ud800"
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    for body in (
        message("tools/call", name="generate_image", arguments={"prompt": half}, _meta=meta),
        message("tools/call", name="generate_image", arguments={half: half}, _meta=meta),
        message("tools/call", name="get_job", arguments={"job_id": half}, _meta=meta),
        message("tools/call", name=half, _meta=meta),
        message("tools/call", name="list_presets", request_id=half, _meta=meta),
        message(half, _meta=meta),
    ):
        headers = {"mcp_protocol_version": version, "mcp_method": body["method"]}
        headers |= {"mcp_name": str(body["params"].get("name"))}
        if half in "".join(headers.values()):
            headers = {"mcp_protocol_version": version}
        answer = post(client, body, **headers)
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
    assert worker.queued_ids() == []


def test_unknown_methods(client: httpx2.Client) -> None:
    for method in ("tools/draw", "resources/list", "x" * 10_000, "initialize/../ping"):
        (reply,) = replies(post(client, message(method)))
        assert reply["error"]["code"] in (-32601, -32602)


def test_notifications_are_accepted_and_do_nothing(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    """A call runs in one process, a later message may reach another: cancel_job is for all."""
    post(client, call("generate_image", prompt=PROMPT), prefer="wait=0")
    for body in (
        notification("notifications/initialized"),
        notification("notifications/cancelled", requestId=1),
        notification("notifications/cancelled", requestId={"odd": 1}),
        notification("notifications/progress", progressToken="x", progress=1e308),
        notification("notifications/unknown"),
        notification("tools/call", name="cancel_job", arguments={"job_id": worker.newest_id()}),
    ):
        for headers in ({}, {"mcp_protocol_version": "2026-07-28"}):
            answer = post(client, body, **headers)
            assert answer.status_code == 202, answer.text
            assert answer.content in (b"", b"null")
    assert len(worker.queued_ids()) == 1


def _initialize(version: Any) -> dict[str, Any]:
    client = {"name": "test", "version": "1"}
    return message("initialize", protocolVersion=version, capabilities={}, clientInfo=client)


def test_versions_are_negotiated(client: httpx2.Client) -> None:
    agreed = {}
    for version in ("2024-11-05", "2025-06-18", "2025-11-25", "1999-01-01", "x" * 10_000):
        (reply,) = replies(post(client, _initialize(version)))
        agreed[version[:10]] = reply["result"]["protocolVersion"]
        assert reply["result"]["capabilities"] == {"tools": {"listChanged": False}}
        assert reply["result"]["serverInfo"]["name"] == "kirazuri-server"
    newest = "2025-11-25"
    assert agreed == {
        **{version: version for version in ("2024-11-05", "2025-06-18", newest)},
        "1999-01-01": newest,
        "x" * 10: newest,
    }
    (reply,) = replies(post(client, _initialize(5)))
    assert reply["error"]["code"] == -32602


def test_an_unknown_version_in_the_header_is_refused(client: httpx2.Client) -> None:
    for version in ("1999-01-01", "2999-01-01", "x" * 5000):
        answer = post(client, message("tools/list"), mcp_protocol_version=version)
        error = error_of(answer, 400)
        assert len(answer.content) < 10_000
        assert error["code"] < -32000


def test_host_and_origin_are_checked_once_and_by_the_service(
    client: httpx2.Client, settings: Settings, worker: ManualWorker
) -> None:
    body = call("generate_image", prompt=PROMPT)
    foreign = {"sec_fetch_site": "cross-site", "origin": "https://evil.test"}
    assert error_of(post(client, body, **foreign), 403)["data"]["code"] == "foreign_page"
    # The package would compare hosts and origins with lists of its own.
    assert post(client, message("ping"), host="pictures.localhost").status_code == 200
    allowed = {"allowed_hosts": "pictures.localhost", "cors_origins": "https://page.test"}
    with (
        ApiServer(settings.model_copy(update=allowed)) as strict,
        httpx2.Client(base_url=strict.url, timeout=60) as other,
    ):
        assert error_of(post(other, body), 421)["data"]["code"] == "wrong_host"
        head = {"host": "pictures.localhost", "sec_fetch_site": "cross-site"}
        answer = post(other, message("ping"), origin="https://page.test", **head)
        assert answer.status_code == 200
    assert worker.queued_ids() == []


def test_bad_headers_of_a_submission_are_refused(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    answer = post(client, call("generate_image", prompt=PROMPT), cancel_after="soon")
    assert "cancel-after" in error_of(answer, 400)["message"]
    assert worker.queued_ids() == []


def test_the_headers_of_a_submission_apply(client: httpx2.Client, worker: ManualWorker) -> None:
    body = call("generate_image", prompt=PROMPT)
    for _ in range(2):
        post(client, body, prefer="wait=0", idempotency_key="once", cancel_after="90s")
    (job_id,) = worker.queued_ids()
    assert client.get(f"/jobs/{job_id}").json()["cancel_at"]


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_ANY = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_NAMES = st.sampled_from(["generate_image", "get_job", "cancel_job", "list_presets", "draw"])
_FIELDS = st.sampled_from(
    ["prompt", "steps", "seed", "loras", "tags", "init_image", "hires", "job_id", "wait_seconds"]
)
_PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": _NAMES | _ANY,
        "arguments": st.dictionaries(_FIELDS | st.text(max_size=8), _ANY, max_size=4) | _ANY,
        "_meta": st.fixed_dictionaries({}, optional={"progressToken": _ANY}) | _ANY,
        "cursor": _ANY,
        "protocolVersion": _ANY,
    },
)
_MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0"),
        "id": st.integers() | st.text(max_size=20) | _ANY,
        "method": st.sampled_from(["tools/call", "tools/list", "initialize", "ping"])
        | st.text(max_size=20),
        "params": _PARAMS | _ANY,
    },
)
_CALLS = st.builds(
    lambda name, arguments: message("tools/call", name=name, arguments=arguments),
    _NAMES,
    st.dictionaries(_FIELDS | st.text(max_size=8), _ANY, max_size=4),
)


@given(body=_CALLS | _MESSAGES | _ANY, version=st.sampled_from(["", "2025-11-25", "2026-07-28"]))
@hypothesis.settings(
    max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_no_message_breaks_the_server(client: httpx2.Client, body: Any, version: str) -> None:
    headers = {"mcp_protocol_version": version} if version else {}
    answer = post(client, body, prefer="wait=0", **headers)
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code != 202:
        (reply,) = replies(answer)
        assert reply["jsonrpc"] == "2.0"
        assert ("error" in reply) != ("result" in reply)
        error = reply.get("error", {"code": -32600})
        assert error["code"] not in (0, -32603), reply
