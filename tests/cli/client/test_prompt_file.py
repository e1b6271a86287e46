"""Reading a file of prompts and its results; the run itself is tried in tests/e2e."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.client.errors import ClientError, ServiceAway, WrongUsage
from cli.client.images import Target
from cli.client.prompt_file import RESULTS, PromptLine, PromptRun, Results, read_prompts
from tests.support.scripted_transport import ScriptedTransport

JOB: dict[str, Any] = {
    "id": "J",
    "status": "succeeded",
    "request": {"prompt": "p"},
    "warnings": [],
    "error": None,
}


def _line(number: int = 1) -> PromptLine:
    return PromptLine(number, {"prompt": "p"}, f"digest-{number}")


def _result(path: Path, status: str = "succeeded") -> str:
    files = [{"path": str(path), "seed": 1, "url": ""}]
    return json.dumps({"status": status, "files": files, "id": "digest-1"})


def test_lines_are_prompts_or_objects() -> None:
    text = [
        "\ufeff1girl, smile",
        "",
        " # note",
        '{"prompt": "1boy", "steps": 9}',
        "{b}, 1girl",
        "7",
    ]
    lines = read_prompts(text, {"steps": 4})
    assert [(line.number, dict(line.body)) for line in lines] == [
        (1, {"steps": 4, "prompt": "1girl, smile"}),
        (4, {"steps": 9, "prompt": "1boy"}),
        (5, {"steps": 4, "prompt": "{b}, 1girl"}),
        (6, {"steps": 4, "prompt": "7"}),
    ]


def test_equal_lines_are_told_apart_and_others_keep_their_digest() -> None:
    before = read_prompts(["a", "b", "a"], {})
    after = read_prompts(["new", "a", "b", "a"], {})
    digests = [line.digest for line in before]
    assert len(set(digests)) == 3
    assert [line.digest for line in after[1:]] == digests
    assert digests[0] != read_prompts(["a"], {"steps": 2})[0].digest


def test_an_object_without_a_prompt_is_named() -> None:
    with pytest.raises(WrongUsage, match="line 2 of the prompts"):
        read_prompts(["a", '{"steps": 3}'], {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"prompt": "1girl",}', "begins like an object, but is no JSON"),
        ("{'prompt': '1girl'}", "begins like an object, but is no JSON"),
        ('{ "prompt": "1girl', "begins like an object, but is no JSON"),
        ('{"prompt": "1girl", "cfg_scale": NaN}', "cfg_scale: nan and infinity"),
        ('{"prompt": "1girl \\ud800"}', "prompt: it is not UTF-8 text"),
    ],
)
def test_a_line_that_cannot_be_sent_is_told_before_any_other_is(text: str, told: str) -> None:
    with pytest.raises(WrongUsage, match=f"line 2 of the prompts: .*{told}"):
        read_prompts(["a", text], {})


def test_a_result_with_another_end_of_line_in_its_prompt_is_found_again(tmp_path: Path) -> None:
    result = {**json.loads(_result(tmp_path)), "prompt": "a\u2028b\x85c\x0b\x1cd"}
    Results(tmp_path).add(result)
    assert Results(tmp_path).is_done(_line())


def test_results_that_are_no_text_are_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_bytes(b"\xff\xfe{\0")
    with pytest.raises(ClientError, match="is not UTF-8 text; move it away"):
        Results(tmp_path)
    assert (tmp_path / RESULTS).read_bytes() == b"\xff\xfe{\0"


def test_a_line_is_done_while_its_files_are_there(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    (tmp_path / RESULTS).write_text(_result(picture) + "\n")
    assert Results(tmp_path).is_done(_line())
    picture.unlink()
    assert not Results(tmp_path).is_done(_line())
    (tmp_path / RESULTS).write_text(_result(picture, "failed") + "\n")
    assert not Results(tmp_path).is_done(_line())


def test_the_key_changes_only_when_the_line_has_ended(tmp_path: Path) -> None:
    first = Results(tmp_path).idempotency_key(_line())
    assert Results(tmp_path).idempotency_key(_line()) == first
    (tmp_path / RESULTS).write_text(_result(tmp_path, "cancelled") + "\n")
    assert Results(tmp_path).idempotency_key(_line()) != first


def test_a_line_that_was_cut_off_swallows_nothing(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"status": "succ')
    results = Results(tmp_path)
    results.add(json.loads(_result(tmp_path)))
    assert Results(tmp_path).is_done(_line())


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClientError, match="cannot use"):
        Results(tmp_path / "file")


def _run(folder: Path, transport: ScriptedTransport, **options: Any) -> PromptRun:
    client = httpx2.Client(base_url="http://service", transport=transport)
    settings = {"at_once": 2, "timeout": 30.0, **options}
    return PromptRun(client, Results(folder), Target(folder), **settings)


def _json(status: int, value: Any, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=value, headers=headers)


def _end() -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx2.Response(200, headers=headers, text="id: 1\nevent: succeeded\ndata: {}\n\n")


def test_a_busy_service_is_asked_again_with_the_same_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = _json(429, {"title": "Queue full", "detail": "1000"}, **{"Retry-After": "0"})
    done = {**JOB, "images": []}
    transport = ScriptedTransport(full, _json(202, JOB), _end(), _json(200, done))
    (result,) = _run(tmp_path, transport).run([_line()])
    assert result["status"] == "succeeded"
    keys = [request.headers["Idempotency-Key"] for request in transport.requests[:2]]
    assert keys[0] == keys[1]
    assert "Queue full" in capsys.readouterr().err


def test_a_full_queue_waits_for_the_oldest_job_first(tmp_path: Path) -> None:
    full = _json(429, {"title": "Queue full"})
    done = {**JOB, "images": []}
    transport = ScriptedTransport(
        _json(202, JOB), full, _end(), _json(200, done), _json(202, JOB), _end(), _json(200, done)
    )
    results = list(_run(tmp_path, transport).run([_line(1), _line(2)]))
    assert [result["line"] for result in results] == [1, 2]


def test_a_refused_line_does_not_stop_the_others(tmp_path: Path) -> None:
    refused = _json(422, {"title": "Invalid request", "detail": "steps"})
    done = {**JOB, "images": []}
    transport = ScriptedTransport(refused, _json(202, JOB), _end(), _json(200, done))
    results = list(_run(tmp_path, transport).run([_line(1), _line(2)]))
    assert [result["status"] for result in results] == ["refused", "succeeded"]
    assert results[0]["error"] == "Invalid request: steps"


def test_jobs_are_cancelled_when_the_service_goes_away(tmp_path: Path) -> None:
    transport = ScriptedTransport(_json(202, JOB), httpx2.ConnectError("gone"), _json(202, JOB))
    with pytest.raises(ServiceAway):
        list(_run(tmp_path, transport).run([_line(1), _line(2)]))
    assert transport.requests[-1].method == "DELETE"
    assert json.loads((tmp_path / RESULTS).read_text())["status"] == "cancelled"
