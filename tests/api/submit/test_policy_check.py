"""The policy over HTTP: a refusal names its rule and repeats no words of the prompt."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import api
from api.main import create_app
from model.rating import RATINGS
from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.evasions import EVASIONS
from tests.support.images import draw_image, to_base64
from tests.support.lora_files import write
from tests.support.manual_worker import ManualWorker
from worker.auth.api_keys import new_secret, secret_hash
from worker.settings import Settings
from worker.wrong_settings import WrongSettings

WORD = "zebra"
MINOR_SEXUAL = f"1girl, {WORD}, child, naked"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "rules.toml").write_text(
        '[[rules]]\nname = "no_moons"\nreason = "moons are out"\nblocked = ["moon"]\n'
    )
    write(folder / "loras" / "little child.safetensors")
    write(folder / "loras" / "style.safetensors", metadata={"modelspec.trigger_phrase": "naked"})
    return folder


@pytest.fixture(scope="module")
def guarded(settings: Settings, folder: Path) -> Iterator[ApiServer]:
    """A service with the default rating limit, its own rules, and LoRAs."""
    own = {
        "max_rating": "safe",
        "policy_file": folder / "rules.toml",
        "lora_dir": folder / "loras",
    }
    with ApiServer(settings.model_copy(update=own)) as running:
        yield running


@pytest.fixture
def client(guarded: ApiServer, redis_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url, timeout=20) as opened:
        yield opened


def refusals(client: httpx2.Client) -> dict[str, float]:
    """Refusals by rule."""
    lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("kirazuri_policy_refusals_total{")]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in found}


def assert_refused(answer: httpx2.Response, rule: str) -> None:
    assert answer.status_code == 403, answer.text
    problem = read_problem(answer)
    assert (problem["code"], problem["rule"]) == ("policy_blocked", rule)
    assert rule in problem["detail"]
    assert WORD not in answer.text


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"prompt": MINOR_SEXUAL}, "minor_sexual"),
        ({"tags": {"general": [WORD, "child", "naked"]}}, "minor_sexual"),
        ({"tags": {"safety": ["nsfw"]}, "prompt": f"{WORD}, child"}, "minor_sexual"),
        ({"prompt": f"{WORD}, child", "negative_prompt": "clothes"}, "minor_sexual"),
        ({"prompt": f"{WORD}, nsfw", "negative_prompt": "(child:-1)"}, "minor_sexual"),
        ({"prompt": f"{WORD}, naked", "loras": [{"name": "little child"}]}, "minor_sexual"),
        ({"prompt": f"{WORD}, child", "loras": [{"name": "style"}]}, "minor_sexual"),
        ({"prompt": f"{WORD}, school uniform, nsfw"}, "youth_sexual"),
        ({"prompt": f"{WORD} at the m.o.o.n"}, "no_moons"),
        ({"prompt": f"{WORD}, nude"}, "max_rating"),
        ({"prompt": WORD, "loras": [{"name": "style", "weight": 0.1}]}, "max_rating"),
        ({"prompt": f"{WORD}, nude", "init_image": to_base64(draw_image())}, "max_rating"),
    ],
    ids=str,
)
def test_refusals(
    client: httpx2.Client, worker: ManualWorker, body: dict[str, Any], rule: str
) -> None:
    before = refusals(client).get(rule, 0)
    assert_refused(client.post("/generate", json=body), rule)
    assert_refused(client.post("/generate", params={"dry_run": "true"}, json=body), rule)
    assert refusals(client)[rule] == before + 2
    assert worker.queued_ids() == []


def test_evasive_spellings_are_refused(client: httpx2.Client) -> None:
    for way in ("full width", "cyrillic", "zero-width spaces", "two weights", "not"):
        body = {"prompt": f"1girl, {EVASIONS[way]('child')}, {EVASIONS[way]('naked')}"}
        assert_refused(client.post("/generate", json=body), "minor_sexual")


def test_images_of_refused_requests_are_not_stored(
    client: httpx2.Client, settings: Settings, worker: ManualWorker
) -> None:
    images = settings.data_dir / "images"
    before = sorted(images.rglob("*"))
    body = {"prompt": "nude", "init_image": to_base64(draw_image((48, 80)))}
    assert_refused(client.post("/generate", json=body), "max_rating")
    assert sorted(images.rglob("*")) == before


def test_the_rating_limit_adds_a_safety_tag_and_a_warning(client: httpx2.Client) -> None:
    job = client.post("/generate", json={"prompt": "1girl, smile, blue hair"}).json()
    assert job["request"]["prompt"] == "safe, 1girl, smile, blue hair"
    (warning,) = [found for found in job["warnings"] if found["code"] == "rating_held"]
    assert "added safe to the prompt" in warning["detail"]
    plan = client.post(
        "/generate", params={"dry_run": "true"}, json={"prompt": "safe, 1girl, smile, blue hair"}
    ).json()
    assert plan["request"]["prompt"] == "safe, 1girl, smile, blue hair"
    assert "rating_held" not in [found["code"] for found in plan["warnings"]]


def test_the_log_has_the_rule_and_no_prompt(
    client: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post("/generate", json={"prompt": MINOR_SEXUAL}, headers={"X-Request-Id": "find-me"})
    assert "event=refused rule=minor_sexual owner=- request=find-me" in caplog.text
    assert WORD not in caplog.text


def test_the_log_has_the_prompt_if_configured(
    settings: Settings, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ApiServer(settings.model_copy(update={"policy_log_prompts": True})) as running:
        body = {"prompt": f"{MINOR_SEXUAL}\nforged=1", "negative_prompt": "lowres"}
        with caplog.at_level(logging.INFO):
            assert_refused(
                httpx2.post(f"{running.url}/generate", json=body, timeout=60), "minor_sexual"
            )
    (line,) = [entry.getMessage() for entry in caplog.records if "event=refused" in entry.message]
    assert repr(body["prompt"]) in line
    assert "\n" not in line
    assert "negative_prompt='lowres'" in line


def test_a_job_is_replayed_only_if_the_policy_still_allows_it(
    settings: Settings, client: httpx2.Client, worker: ManualWorker
) -> None:
    with ApiServer(settings) as free:
        done = {}
        for prompt in ("1girl, nude", "1girl", "safe, 1girl"):
            body = {"prompt": prompt, "negative_prompt": "sensitive, nsfw, explicit"}
            job = httpx2.post(f"{free.url}/generate", json=body, timeout=60).json()["id"]
            worker.claim(job)
            worker.finish(job, b"picture")
            done[prompt] = job
    assert_refused(client.post(f"/jobs/{done['1girl, nude']}/replay"), "max_rating")
    answer = client.post(f"/jobs/{done['1girl']}/replay")
    assert_refused(answer, "max_rating")
    detail = read_problem(answer)["detail"]
    assert "limit images to safe. The operator allows more with KIRAZURI_MAX_RATING" in detail
    assert client.post(f"/jobs/{done['safe, 1girl']}/replay").status_code == 202


def test_a_key_has_its_own_rating_limit(settings: Settings, redis_url: str, tmp_path: Path) -> None:
    secrets = {rating: new_secret() for rating in (*RATINGS, None)}
    file = tmp_path / "keys.toml"
    file.write_text(
        "".join(
            f'[key-{rating}]\nhash = "{secret_hash(secret)}"\n'
            + (f'max_rating = "{rating}"\n' if rating else "")
            for rating, secret in secrets.items()
        )
    )
    own = {"max_rating": "sensitive", "keys_file": file, "auth": "required"}
    with ApiServer(settings.model_copy(update=own)) as running:
        statuses = {
            rating: [
                httpx2.post(
                    f"{running.url}/generate",
                    params={"dry_run": "true"},
                    json={"prompt": f"1girl, {asked}"},
                    headers={"Authorization": f"Bearer {secret}"},
                    timeout=60,
                ).status_code
                for asked in RATINGS
            ]
            for rating, secret in secrets.items()
        }
    assert statuses == {
        "safe": [200, 403, 403, 403],
        "sensitive": [200, 200, 403, 403],
        "nsfw": [200, 200, 200, 403],
        "explicit": [200, 200, 200, 200],
        None: [200, 200, 403, 403],
    }


def test_a_refusal_names_the_limit_and_how_to_raise_it(
    client: httpx2.Client, settings: Settings, redis_url: str, tmp_path: Path
) -> None:
    answer = client.post("/generate", json={"prompt": f"{WORD}, nude"})
    assert_refused(answer, "max_rating")
    detail = read_problem(answer)["detail"]
    assert "it asks for nsfw; the highest allowed rating is safe." in detail
    for way in ("KIRAZURI_MAX_RATING", "kirazuri up --max-rating", "kirazuri keys add"):
        assert way in detail, way
    secret = new_secret()
    file = tmp_path / "keys.toml"
    file.write_text(f'[key]\nhash = "{secret_hash(secret)}"\nmax_rating = "sensitive"\n')
    own = {"max_rating": "explicit", "keys_file": file, "auth": "required"}
    with ApiServer(settings.model_copy(update=own)) as running:
        answer = httpx2.post(
            f"{running.url}/generate",
            json={"prompt": f"{WORD}, sex"},
            headers={"Authorization": f"Bearer {secret}"},
            timeout=60,
        )
    assert_refused(answer, "max_rating")
    detail = read_problem(answer)["detail"]
    assert "it asks for explicit; the highest allowed rating is sensitive." in detail
    assert "belongs to the API key" in detail
    assert "KIRAZURI_MAX_RATING" not in detail


def test_an_invalid_policy_file_prevents_the_start(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rules]]\nname = "x"\n')
    with pytest.raises(WrongSettings, match=r"^KIRAZURI_POLICY_FILE: .*either blocked or when"):
        create_app(settings.model_copy(update={"policy_file": file}))


@pytest.mark.parametrize(
    ("path", "body", "rule"),
    [
        ("/v1/images/generations", {"prompt": MINOR_SEXUAL}, "minor_sexual"),
        (
            "/v1/images/generations",
            {"prompt": f"{WORD}, child", "negative_prompt": "clothes"},
            "minor_sexual",
        ),
        ("/v1/images/generations", {"prompt": f"{WORD}, nude", "moderation": "low"}, "max_rating"),
        ("/sdapi/v1/txt2img", {"prompt": MINOR_SEXUAL, "steps": 2}, "minor_sexual"),
        ("/sdapi/v1/txt2img", {"prompt": f"{WORD}, naked <lora:little child:1>"}, "minor_sexual"),
        (
            "/sdapi/v1/txt2img",
            {"prompt": f"{WORD}, school uniform", "negative_prompt": "(nsfw:-1)"},
            "youth_sexual",
        ),
        (
            "/sdapi/v1/img2img",
            {"prompt": f"{WORD}, the moon", "init_images": [to_base64(draw_image())]},
            "no_moons",
        ),
    ],
)
def test_the_policy_applies_to_every_dialect(
    client: httpx2.Client, worker: ManualWorker, path: str, body: dict[str, Any], rule: str
) -> None:
    before = refusals(client).get(rule, 0)
    answer = client.post(path, json=body)
    assert answer.status_code == 403, answer.text
    assert rule in answer.text
    assert WORD not in answer.text
    assert refusals(client)[rule] == before + 1
    assert worker.queued_ids() == []


def test_only_the_submitter_queues_jobs() -> None:
    """Only the submitter queues requests, after the policy check."""
    (folder,) = api.__path__
    calling = {
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*.py")
        if re.search(r"queue\.(?:admit|replay)\(", path.read_text(encoding="utf-8"))
    }
    assert calling == {"submit/submitter.py"}
