"""Prompts and tags at submission: refusals by field, token counts, warnings."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from model.card import load_card
from model.prompting.tokens import count_tokens, load_tokenizers
from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from worker.job import JobWarning
from worker.settings import Settings

GOOD = "masterpiece, best quality, 1girl, blue hair, red eyes, smile"
CARD = load_card("kirazuri-tiny")
LONG = ("blue hair, " * 60).strip()


def wrong(client: httpx2.Client, body: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Detail and limit of each wrong field."""
    answer = client.post("/generate", json=body)
    assert answer.status_code == 422, answer.text
    return {
        error["pointer"]: (error["detail"], error["limit"])
        for error in read_problem(answer)["errors"]
    }


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_weights_and_nesting_out_of_bounds_name_the_field(
    client: httpx2.Client, field: str
) -> None:
    for text, shown, limit in (
        ("a, (cat:nan)", "nan of the bracket at position 3", 10),
        ("(cat:inf)", "inf of the bracket at position 0", 10),
        ("(cat:-inf)", "-inf", 10),
        ("(cat:1e9)", "1e+09", 10),
        ("(cat:-10.5)", "-10.5", 10),
        ("(" * 10_000, "deeper than 20", 20),
        ("(" * 5_000 + ")" * 5_000, "deeper than 20", 20),
    ):
        ((pointer, (detail, found)),) = wrong(client, {"prompt": GOOD, field: text}).items()
        assert (pointer, found) == (f"/{field}", limit), text[:20]
        assert shown in detail
    body = {"prompt": GOOD, field: "((((a:9.9)))"}
    assert client.post("/generate", json=body).status_code == 202


def test_wrong_tags_are_named_by_place(client: httpx2.Client) -> None:
    tags = {"general": ["hat", "a,b", "(smile:1.2)"], "mood": ["sad"], "artist": "wlop"}
    found = wrong(client, {"tags": tags, "steps": 0})
    assert set(found) == {
        "/tags/general/1", "/tags/general/2", "/tags/mood", "/tags/artist", "/steps"
    }  # fmt: skip
    assert "comma" in found["/tags/general/1"][0]
    assert "tags are literal" in found["/tags/general/2"][0]


def test_a_prompt_is_required_unless_there_are_tags(client: httpx2.Client) -> None:
    no_tags: list[Any] = [None, {}, {"general": []}]
    for tags in no_tags:
        assert wrong(client, {"tags": tags}) == {"/prompt": ("required", None)}
        assert wrong(client, {"tags": tags, "prompt": ""})["/prompt"][1] == 1


def test_tags_become_the_prompt_that_the_job_shows(client: httpx2.Client) -> None:
    tags = {
        "general": ["long_hair", "^_^"],
        "artist": ["wlop"],
        "subject": ["1girl"],
        "quality": ["masterpiece"],
        "character": ["ganyu_(genshin_impact)"],
    }
    body = {"tags": tags, "prompt": "She waves (happily:1.1)."}
    job = client.post("/generate", json=body).json()
    request = client.get(f"/jobs/{job['id']}").json()["request"]
    assert request["prompt"] == (
        r"masterpiece, 1girl, ganyu \(genshin impact\), @wlop, long hair, ^_^, "
        "She waves (happily:1.1)."
    )
    assert "tags" not in request


def test_other_tags_are_another_body(client: httpx2.Client) -> None:
    headers = {"idempotency-key": "tags"}
    bodies = [{"tags": {"general": [tag]}} for tag in ("hat", "hat", "cap")]
    answers = [client.post("/generate", json=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [202, 202, 422]


def test_a_cut_prompt_gets_a_warning(client: httpx2.Client) -> None:
    body = {"prompt": LONG, "negative_prompt": LONG}
    warnings = client.post("/generate", json=body).json()["warnings"]
    cut = [warning["detail"] for warning in warnings if warning["code"] == "prompt_cut"]
    tokens = count_tokens(LONG, load_tokenizers(CARD, None), 80)
    told = f"has {tokens.t5} T5 and {tokens.qwen} Qwen tokens; the text path reads the first 80"
    assert cut == [f"prompt {told}", f"negative_prompt {told}"]
    without_guidance = client.post("/generate", json={**body, "cfg_scale": 1}).json()["warnings"]
    assert [w["detail"] for w in without_guidance if w["code"] == "prompt_cut"] == [cut[0]]


def test_the_shortest_cut_prompt_gets_a_warning(client: httpx2.Client) -> None:
    def codes(words: int) -> set[str]:
        job = client.post("/generate", json={"prompt": "夜" * words}).json()
        return {warning["code"] for warning in job["warnings"]}

    tokenizers = load_tokenizers(CARD, None)
    longest = max(n for n in range(1, 100) if not count_tokens("夜" * n, tokenizers, 80).is_cut)
    assert "prompt_cut" not in codes(longest)
    assert "prompt_cut" in codes(longest + 1)


def test_without_tokenizers_only_token_counts_are_missing(
    settings: Settings, redis_url: str, tmp_path: Path
) -> None:
    with (
        ApiServer(settings.model_copy(update={"checkpoint_dir": tmp_path})) as bare,
        httpx2.Client(base_url=bare.url, timeout=20) as client,
    ):
        job = client.post("/generate", json={"prompt": LONG}).json()
        assert "prompt_cut" not in {warning["code"] for warning in job["warnings"]}
        assert "duplicate_tags" in {warning["code"] for warning in job["warnings"]}
        assert set(wrong(client, {"prompt": "(a:nan)"})) == {"/prompt"}
        plan = client.post("/generate?dry_run=true", json={"prompt": LONG}).json()
        assert plan["tokens"] == {"prompt": None, "negative_prompt": None}
        assert not client.get("/capabilities").json()["features"]["token_counts"]


def test_the_engines_own_warning_has_the_same_text(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    """The worker merges the engine's warnings with those of the submission by their text."""
    job = client.post("/generate", json={"prompt": LONG}).json()
    claim = worker.claim(job["id"])
    (mine,) = [warning for warning in claim.warnings if warning.code == "prompt_cut"]
    assert dict.fromkeys([*claim.warnings, JobWarning(code=mine.code, detail=mine.detail)]) == (
        dict.fromkeys(claim.warnings)
    )


def test_invisible_characters_are_dropped_in_every_dialect(client: httpx2.Client) -> None:
    marked, clean = "\ufeff1girl,\u200b hat \r\n", "1girl, hat"
    prompts = {"prompt": marked, "negative_prompt": marked}
    infotext = f"{marked}Negative prompt: {marked}Steps: 2, Sampler: Euler, CFG scale: 4"
    wrong = {}
    for name, path, body in (
        ("native", "/generate", prompts),
        ("A1111", "/sdapi/v1/txt2img", prompts),
        ("A1111 infotext", "/sdapi/v1/txt2img", {"infotext": infotext}),
        ("OpenAI", "/v1/images/generations", prompts),
    ):
        answer = client.post(path, json=body, headers={"Prefer": "wait=0"})
        job = client.get(answer.headers["location"]).json()
        found = job["request"]["prompt"], job["request"]["negative_prompt"]
        told = [w["detail"] for w in job["warnings"] if w["code"] == "characters_dropped"]
        if found != (clean, clean) or len(told) != 1 or "U+200B" not in told[0]:
            wrong[name] = (found, told)
    assert wrong == {}


def test_a_dry_run_and_a_replay_have_the_clean_prompt(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    body = {"prompt": "1girl, hat\u200b", "tags": {"general": ["cap\ufeff"]}}
    plan = client.post("/generate?dry_run=true", json=body).json()
    assert plan["request"]["prompt"] == "cap, 1girl, hat"
    assert plan["warnings"][0]["code"] == "characters_dropped"
    job = client.post("/generate", json=body).json()
    worker.claim(job["id"])
    worker.finish(job["id"], b"file")
    replay = client.post(f"/jobs/{job['id']}/replay").json()
    assert client.get(f"/jobs/{replay['id']}").json()["request"]["prompt"] == "cap, 1girl, hat"
