"""LoRAs over HTTP: the list, the names in requests, and warnings."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.lora_files import write
from tests.support.manual_worker import ManualWorker
from tests.support.paths import DATA
from worker.settings import Settings

PROMPT = "masterpiece, best quality, 1girl, blue hair, red eyes, smile"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module")
def with_loras(settings: Settings, folder: Path) -> Iterator[ApiServer]:
    with ApiServer(settings.model_copy(update={"lora_dir": folder})) as running:
        yield running


@pytest.fixture
def client(with_loras: ApiServer, redis_url: str, folder: Path) -> Iterator[httpx2.Client]:
    """A client of a service with an empty folder of LoRAs."""
    for path in folder.rglob("*.[sS]*"):
        path.unlink()
    with httpx2.Client(base_url=with_loras.url, timeout=20) as opened:
        yield opened


def listed(client: httpx2.Client) -> dict[str, Any]:
    return {lora["name"]: lora for lora in client.get("/capabilities").json()["loras"]}


def submit(client: httpx2.Client, *loras: dict[str, Any]) -> httpx2.Response:
    return client.post("/generate", json={"prompt": PROMPT, "loras": list(loras)})


def test_the_list_describes_the_files(client: httpx2.Client, folder: Path) -> None:
    assert listed(client) == {}
    metadata = {
        "ss_sd_model_name": "anima-preview.safetensors",
        "modelspec.trigger_phrase": "ink",
        "ss_output_name": "my_ink",
    }
    sha256 = write(folder / "style/ink.safetensors", metadata=metadata)
    (folder / "notes.safetensors").write_bytes(b"none")
    assert listed(client) == {
        "style/ink": {
            "name": "style/ink",
            "alias": "my_ink",
            "sha256": sha256,
            "bytes": (folder / "style/ink.safetensors").stat().st_size,
            "method": "lora",
            "rank": 2,
            "parts": ["transformer"],
            "base": "anima-preview",
            "architecture": None,
            "trigger_words": ["ink"],
            "warning": "style/ink was trained on anima-preview, not on Kirazuri tiny.",
        }
    }
    sha256 = write(folder / "style/ink.safetensors", value=1.0)
    assert listed(client)["style/ink"]["sha256"] == sha256
    (folder / "style/ink.safetensors").unlink()
    assert listed(client) == {}


def test_a_request_is_resolved_with_the_files_hashes(
    client: httpx2.Client, folder: Path, worker: ManualWorker
) -> None:
    """The files are newer than the service, and nobody has requested the list."""
    hats, ink = (write(folder / f"{n}.safetensors", value=v) for n, v in (("hats", 1), ("ink", 2)))
    answer = submit(client, {"name": "ink", "weight": -0.25}, {"name": "hats"})
    assert answer.status_code == 202, answer.text
    expected = [
        {"name": "ink", "weight": -0.25, "sha256": ink},
        {"name": "hats", "weight": 1.0, "sha256": hats},
    ]
    assert answer.json()["request"]["loras"] == expected
    job_id = answer.json()["id"]
    assert client.get(f"/jobs/{job_id}").json()["request"]["loras"] == expected
    claimed = worker.claim(job_id).request
    assert [(lora.name, lora.weight, lora.sha256) for lora in claimed.loras] == [
        ("ink", -0.25, ink),
        ("hats", 1.0, hats),
    ]


def test_a_replaced_file_gives_the_next_request_its_own_hash(
    client: httpx2.Client, folder: Path
) -> None:
    hashes = [write(folder / "a.safetensors", value=1.0)]
    first = submit(client, {"name": "a"}).json()["request"]["loras"][0]["sha256"]
    hashes.append(write(folder / "a.safetensors", value=2.0))
    second = submit(client, {"name": "a"}).json()["request"]["loras"][0]["sha256"]
    assert [first, second] == hashes
    assert first != second


def test_wrong_loras_are_named_with_the_other_wrong_fields(
    client: httpx2.Client, folder: Path
) -> None:
    for name in ("hats", "style/ink"):
        write(folder / f"{name}.safetensors")
    body = {
        "prompt": PROMPT,
        "steps": 0,
        "loras": [{"name": "hats", "weight": 9}, {"name": "../hats"}],
    }
    answer = client.post("/generate", json=body)
    assert answer.status_code == 422
    errors = {error["pointer"]: error for error in read_problem(answer)["errors"]}
    assert set(errors) == {"/steps", "/loras/0/weight", "/loras/1/name"}
    assert errors["/loras/0/weight"]["limit"] == 4
    assert errors["/loras/1/name"]["limit"] == ["hats", "style/ink"]
    assert '"../hats"' in errors["/loras/1/name"]["detail"]


def test_refused_files_are_listed_and_named_with_the_reason(
    client: httpx2.Client, folder: Path
) -> None:
    """What a worker would refuse is refused at submission, also as a dry run."""
    for name in ("alpha-2d", "fp8-weights", "onetrainer-bundle-emb", "lycoris-norm"):
        shutil.copy(DATA / f"field/lora/{name}.safetensors", folder)
    shutil.copy(DATA / "field/lora/dora-cols.safetensors", folder / "good.safetensors")
    found = client.get("/capabilities").json()
    assert [lora["name"] for lora in found["loras"]] == ["good"]
    reasons = {lora["name"]: lora["reason"] for lora in found["refused_loras"]}
    expected = {
        "alpha-2d": "has shape (1, 1)",
        "fp8-weights": "F8_E4M3",
        "lycoris-norm": "w_norm (32,)",
        "onetrainer-bundle-emb": "bundle_emb.mytoken.qwen_out",
    }
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name], name
        for query in ("", "?dry_run=true"):
            answer = client.post(
                f"/generate{query}", json={"prompt": PROMPT, "loras": [{"name": name}]}
            )
            (error,) = read_problem(answer)["errors"]
            assert (error["pointer"], answer.status_code) == ("/loras/0/name", 422)
            assert reason in error["detail"], (name, query)
    assert submit(client, {"name": "good"}).status_code == 202


def test_other_spellings_of_a_name_are_accepted(client: httpx2.Client, folder: Path) -> None:
    shutil.copy(DATA / "field/lora/UPPER.SAFETENSORS", folder)
    shutil.copy(DATA / "field/lora/【画风】wlop.safetensors", folder)
    write(folder / "sub/a～b.safetensors")
    for name, wanted in (
        ("UPPER.safetensors", "UPPER"),
        ("【画风】wlop.safetensors", "【画风】wlop"),
        ("sub\\a~b", "sub/a～b"),
    ):
        answer = submit(client, {"name": name})
        assert answer.status_code == 202, answer.text
        assert answer.json()["request"]["loras"][0]["name"] == wanted


MALFORMED = [
    ("[{}]", "/loras/0/name"),
    ("[1]", "/loras/0"),
    ("{}", "/loras"),
    ("null", "/loras"),
    ('[{"name": "a", "weight": NaN}]', "/loras/0/weight"),
    ('[{"name": "a", "weight": 1e999}]', "/loras/0/weight"),
    ('[{"name": "a"}, {"name": "a"}]', "/loras"),
    ('[{"name": "\\ud800"}]', "/loras/0/name"),
    ('[{"name": "a\\u0000"}]', "/loras/0/name"),
    ("[" + ",".join(['{"name": "a"}'] * 9) + "]", "/loras"),
]


def test_malformed_loras_are_named_by_field(client: httpx2.Client, folder: Path) -> None:
    write(folder / "a.safetensors")
    for loras, pointer in MALFORMED:
        answer = client.post(
            "/generate",
            content=f'{{"prompt": "1girl", "loras": {loras}}}',
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 422, loras
        assert pointer in {error["pointer"] for error in read_problem(answer)["errors"]}, loras


def test_a_lora_of_another_base_gets_a_warning(client: httpx2.Client, folder: Path) -> None:
    write(folder / "other.safetensors", metadata={"ss_sd_model_name": "anima-preview.safetensors"})
    write(folder / "own.safetensors", metadata={"ss_sd_model_name": "kirazuri-tiny.safetensors"})
    job = submit(client, {"name": "other"}, {"name": "own"}).json()
    found = [warning for warning in job["warnings"] if warning["code"].startswith("lora_")]
    assert found == [
        {
            "code": "lora_other_base",
            "detail": "other was trained on anima-preview, not on Kirazuri tiny.",
        }
    ]
    assert client.get(f"/jobs/{job['id']}").json()["warnings"] == job["warnings"]


def test_a_service_without_a_folder_has_none(server: ApiServer, redis_url: str) -> None:
    with httpx2.Client(base_url=server.url, timeout=20) as plain:
        assert plain.get("/capabilities").json()["loras"] == []
        (error,) = read_problem(submit(plain, {"name": "a"}))["errors"]
        assert (error["pointer"], error["limit"]) == ("/loras/0/name", [])
