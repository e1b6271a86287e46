"""Paths that clients build from a base URL with too few or too many parts."""

import httpx2
from openai import OpenAI

from api.middleware.client_paths import meant_path
from tests.support.api_server import ApiServer
from tests.support.cases import check_all
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import read_openai_error

BODY = {"prompt": "1girl, blue hair, smile"}
NO_WAIT = {"prefer": "wait=0"}


def test_paths_of_the_other_apis_are_understood() -> None:
    wrong = {
        "/v1/models/": "/v1/models",
        "/models": "/v1/models",
        "/models/": "/v1/models",
        "/models/kirazuri-tiny": "/v1/models/kirazuri-tiny",
        "/v1/v1/models": "/v1/models",
        "/v1/v1/v1/models/": "/v1/models",
        "//v1//models//": "/v1/models",
        "/images/generations": "/v1/images/generations",
        "/images/edits/": "/v1/images/edits",
        "/openai/v1/images/generations": "/v1/images/generations",
        "/api/v1/chat/completions/": "/v1/chat/completions",
        "/V1/models": "/v1/models",
        "/openai/v1/v1/models": "/v1/models",
        "/openai/responses": "/v1/responses",
        "/openai/deployments/kirazuri-tiny/images/edits": "/v1/images/edits",
        "/openai/v1": "/v1",
        "/api/v1/nothing": "/v1/nothing",
        "//images/generations": "/v1/images/generations",
        "/v1/": "/v1",
        "/sdapi/v1/txt2img/": "/sdapi/v1/txt2img",
        "//sdapi/v1/txt2img": "/sdapi/v1/txt2img",
        "/sdapi/v1/sdapi/v1/options": "/sdapi/v1/options",
        "/internal/ping/": "/internal/ping",
        "/login/": "/login",
        "http://art.example/livez": "/livez",
        "HTTPS://art.example:8443/models/": "/v1/models",
        "http://art.example": "/",
    }
    assert {path: meant_path(path) for path in wrong} == wrong


def test_other_paths_stay_as_they_are() -> None:
    for path in (
        "/", "//", "/generate/", "/jobs//x", "/images/x.png/", "/images/generations.png",
        "/modelsx", "/v1x/", "/v10/v1/", "/loginx/", "/static-offline-docs//", "/livez/",
        "/v1/models", "/sdapi/v1/txt2img", "/x/v1/models/",
        "/api/jobs/", "/openai", "/openaix/v1/", "/apis/v1/",
    ):  # fmt: skip
        assert meant_path(path) == path


def test_any_base_url_lists_the_models(server: ApiServer, client: httpx2.Client) -> None:
    listed = client.get("/v1/models").json()
    for base in ("", "/", "/v1", "/v1/", "/v1/v1", "//v1/", "/openai/v1", "/api/v1", "/V1"):
        with OpenAI(base_url=server.url + base, api_key="unused", max_retries=0) as openai:
            assert [m.id for m in openai.models.list()] == [listed["data"][0]["id"]], base
    assert client.get("/v1/models/").json() == listed
    assert client.get("/models/kirazuri-tiny").json()["id"] == "kirazuri-tiny"


def test_image_calls_below_any_base_url(client: httpx2.Client, worker: ManualWorker) -> None:
    paths = ("/images/generations", "/v1/v1/images/generations", "/v1/images/generations/")
    answers = [
        client.post(path, json=BODY | {"seed": seed}, headers=NO_WAIT)
        for seed, path in enumerate(paths)
    ]
    ids = [read_openai_error(answer, 504)["job_id"] for answer in answers]
    assert ids == worker.queued_ids()
    form = {"image": ("a.png", b"no image")}
    assert read_openai_error(client.post("/images/edits", files=form), 400)["param"]


def test_calls_without_v1_need_the_same_key(
    public_server: ApiServer, public_client: httpx2.Client
) -> None:
    for path in ("/images/generations", "//v1/images/generations"):
        url = f"{public_server.url}{path}"
        error = read_openai_error(public_client.post(url, json=BODY), 401)
        assert error["code"] == "invalid_api_key"
    for path in ("//sdapi/v1/txt2img", "/sdapi/v1/txt2img/"):
        answer = public_client.post(f"{public_server.url}{path}", json=BODY)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_unknown_paths_say_what_the_base_url_must_be(client: httpx2.Client) -> None:
    def check(method: str, path: str) -> None:
        error = read_openai_error(client.request(method, path), 404)
        assert error["code"] == "not_found"
        assert "base URL must end with /v1" in error["message"]

    check_all(
        check,
        [
            ("POST", "/v1/images/generations/images/generations"),
            ("POST", "/openai/deployments/a/b/chat/completions"),
            ("GET", "/v1"),
            ("GET", "/v1/"),
            ("GET", "/v1/v2/models"),
        ],
    )


def test_unknown_calls_say_which_there_are(client: httpx2.Client) -> None:
    def check(path: str) -> None:
        error = read_openai_error(client.post(path), 404)
        assert "base URL" not in error["message"]
        assert "below /v1 there are /images/generations, /images/edits" in error["message"]

    paths = ("/v1/embeddings", "/embeddings", "/images/variations", "/v1/audio/speech")
    check_all(check, [(path,) for path in (*paths, "/openai/v1/embeddings", "/v1/files")])


def test_azure_calls_are_served(client: httpx2.Client, worker: ManualWorker) -> None:
    path = "/openai/deployments/kirazuri-tiny/images/generations?api-version=2025-04-01-preview"
    answer = client.post(path, json=BODY, headers=NO_WAIT)
    assert [read_openai_error(answer, 504)["job_id"]] == worker.queued_ids()


def test_slashes_too_many_in_a1111_paths(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker
) -> None:
    for path in ("/sdapi/v1/options/", "//sdapi/v1//samplers", "/internal/ping/"):
        assert client.get(f"{server.url}{path}").status_code == 200, path
    answer = client.post("/sdapi/v1/txt2img/", json=BODY, headers=NO_WAIT)
    assert [answer.json()["job_id"]] == worker.queued_ids()
