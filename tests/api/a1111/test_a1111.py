"""The A1111 surface behind a real server: lists, whose jobs are whose, waiting, and its errors."""

import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from PIL import Image

from model.recipes.aliases import find_sampler, find_schedule
from model.recipes.recipe import Recipe
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from worker.auth.api_keys import ApiKey, new_secret, secret_hash
from worker.auth.key_store import add_key
from worker.images.metadata import exif, png_chunks
from worker.job_errors import job_error
from worker.settings import Settings

PICTURE = b"\x89PNG not really"
TEXT = "/sdapi/v1/txt2img"
BRIEF = {"prefer": "wait=0"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """Of a service that is open to all; with keys it is told apart by them, see below."""
    return settings.model_copy(update={"auth": "off"})


def basic(name: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(name.encode()).decode()}


def picture(size: tuple[int, int] = (128, 128), mode: str = "RGB", colour: Any = "red") -> str:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Call:
    """A call on its way, in a thread of its own; `hang_up` drops its connection."""

    def __init__(self, url: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        sent = json.dumps(body), {"content-type": "application/json"} | headers
        self._connection.request("POST", TEXT, *sent)
        self._socket = self._connection.sock
        self._answer: http.client.HTTPResponse | None = None
        self._body = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            self._answer = self._connection.getresponse()
            self._body = self._answer.read()

    def hang_up(self) -> None:
        if self._answer is None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._connection.close()

    def wait(self) -> httpx2.Response:
        self._thread.join(20)
        assert self._answer is not None
        headers = dict(self._answer.headers)
        return httpx2.Response(self._answer.status, headers=headers, content=self._body)


@pytest.fixture
def call(server: ApiServer, worker: ManualWorker) -> Iterator[Callable[..., tuple[Call, str]]]:
    """Begins a call, and tells the job that it made."""
    calls: list[Call] = []

    def is_told_apart(job_id: str) -> bool:
        keys = worker.redis.scan_iter("kirazuri:client:*")
        return any(worker.redis.zscore(key, job_id) is not None for key in keys)

    def begin(
        headers: dict[str, str] | None = None, *, is_anybody: bool = False, **body: Any
    ) -> tuple[Call, str]:
        known = set(worker.queued_ids())
        one = Call(server.url, {"prompt": "1girl", **body}, headers or {})
        calls.append(one)
        deadline = time.monotonic() + 10
        while not (new := set(worker.queued_ids()) - known):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (job_id,) = new
        while not is_anybody and not is_told_apart(job_id):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return one, job_id

    yield begin
    for one in calls:
        one.hang_up()


def progress(client: httpx2.Client, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = client.get("/sdapi/v1/progress", headers=headers or {})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def status(client: httpx2.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["status"])


def is_idle(found: dict[str, Any]) -> bool:
    return bool(found["progress"] == 0 and found["state"]["job_count"] == 0)


# -- pictures ----------------------------------------------------------------------------------


def test_a_call_waits_for_its_pictures(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    waiting, job_id = call(seed=7, batch_size=2, auth="user:secret", width=600, height=600)
    worker.claim(job_id)
    worker.finish(job_id, PICTURE, PICTURE + b"2")
    answer = waiting.wait()
    assert answer.status_code == 200
    assert (answer.headers["x-job-id"], answer.headers["location"]) == (job_id, f"/jobs/{job_id}")
    found = answer.json()
    assert [base64.b64decode(image) for image in found["images"]] == [PICTURE, PICTURE + b"2"]
    info = json.loads(found["info"])
    assert (info["job_id"], info["seed"], info["all_seeds"]) == (job_id, 7, [0, 1])
    assert len(info["infotexts"]) == len(info["all_prompts"]) == 2
    assert info["infotexts"][1].startswith("1girl\nNegative prompt: \nSteps: 20, Sampler: ER SDE")
    assert (info["width"], info["height"]) == (128, 128)
    assert (
        "size 600x600: using 192x192, the nearest size that the checkpoint supports"
        in info["warnings"]
    )
    assert found["parameters"]["seed"] == 7
    assert "secret" not in answer.text
    assert is_idle(progress(client))


def test_pictures_that_nobody_wants_are_not_sent(
    worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    waiting, job_id = call(send_images=False)
    worker.claim(job_id)
    worker.finish(job_id, PICTURE)
    found = waiting.wait().json()
    assert found["images"] == []
    assert json.loads(found["info"])["all_seeds"] == [0]


def test_a_call_that_cannot_wait_names_its_job(client: httpx2.Client, worker: ManualWorker) -> None:
    answer = client.post(TEXT, json={"prompt": "1girl"}, headers=BRIEF)
    assert answer.status_code == 504
    (job_id,) = worker.queued_ids()
    error = answer.json()
    assert set(error) == {"error", "detail", "body", "errors", "job_id"}
    assert (error["error"], error["job_id"]) == ("job_unfinished", job_id)
    assert job_id in error["detail"]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    worker.claim(job_id)
    images = worker.finish(job_id, PICTURE)
    job = client.get(answer.headers["location"]).json()
    assert job["status"] == "succeeded"
    assert client.get(images[0].url).content == PICTURE


def test_the_same_idempotency_key_is_the_same_job(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    headers = BRIEF | {"idempotency-key": "once"}
    answers = [client.post(TEXT, json={"prompt": "1girl"}, headers=headers) for _ in range(2)]
    assert {answer.json()["job_id"] for answer in answers} == set(worker.queued_ids())


def middle_row(client: httpx2.Client, name: str) -> bytes:
    """Levels of a stored mask of 128x128 pixels."""
    stored = Image.open(io.BytesIO(client.get(f"/images/{name}").content))
    assert (stored.size, stored.mode) == ((128, 128), "L")
    return stored.tobytes()[64 * 128 : 65 * 128]


def test_a_mask_becomes_one_of_ours(client: httpx2.Client, worker: ManualWorker) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 32, 64))  # black, but opaque: repainted
    file = io.BytesIO()
    mask.save(file, "PNG")
    body = {
        "prompt": "1girl",
        "init_images": ["data:image/png;base64," + picture()],
        "mask": base64.b64encode(file.getvalue()).decode(),
        "mask_blur": 0,
        "denoising_strength": 0.5,
    }
    found = []
    for invert in (0, 1):
        answer = client.post(
            "/sdapi/v1/img2img", json=body | {"inpainting_mask_invert": invert}, headers=BRIEF
        )
        request = client.get(answer.headers["location"]).json()["request"]
        assert (request["width"], request["height"], request["strength"]) == (128, 128, 0.5)
        row = middle_row(client, request["mask"])
        found.append((row[8], row[120]))
    assert found == [(255, 0), (0, 255)]
    assert len(worker.queued_ids()) == 2


def test_a_soft_mask_has_a_soft_edge(client: httpx2.Client, worker: ManualWorker) -> None:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    file = io.BytesIO()
    mask.save(file, "PNG")
    body = {
        "prompt": "1girl",
        "init_images": [picture()],
        "mask": base64.b64encode(file.getvalue()).decode(),
    }
    answer = client.post("/sdapi/v1/img2img", json=body, headers=BRIEF)
    request = client.get(answer.headers["location"]).json()["request"]
    row = middle_row(client, request["mask"])
    assert (row[40], row[88]) == (255, 0)
    assert 255 > row[62] > row[66] > 0
    assert worker.queued_ids()


# -- progress and interrupt ----------------------------------------------------------------------


def test_progress_is_that_of_the_own_job(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    assert is_idle(progress(client))
    waiting, job_id = call(steps=20)
    found = progress(client)
    assert (found["progress"], found["state"]["job_count"]) == (0, 1)
    assert (found["current_task"], found["textinfo"]) == (job_id, "0 jobs ahead")
    worker.claim(job_id)
    worker.step(job_id, 5, 20)
    image = "data:image/webp;base64," + base64.b64encode(b"older").decode()
    worker.report(job_id, "preview", {"image": image, "step": 5, "index": 0})
    image = "data:image/webp;base64," + base64.b64encode(b"newer").decode()
    worker.report(job_id, "preview", {"image": image, "step": 5, "index": 0})
    worker.step(job_id, 6, 20)
    found = progress(client)
    assert found["progress"] == 0.3
    assert (found["state"]["sampling_step"], found["state"]["sampling_steps"]) == (6, 20)
    assert base64.b64decode(found["current_image"]) == b"newer"
    assert found["textinfo"] is None
    without = client.get("/sdapi/v1/progress?skip_current_image=true").json()
    assert without["current_image"] is None
    assert client.get(f"/jobs/{job_id}").json()["request"]["previews"] is True
    worker.finish(job_id, PICTURE)
    waiting.wait()
    assert is_idle(progress(client))


def test_nobody_sees_or_stops_the_job_of_another(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    alice, bob, other_bob = basic("alice:1"), basic("bob:2"), basic("bob:3")
    _, hers = call(alice)
    _, his = call(bob)
    for job_id in (hers, his):
        worker.claim(job_id)
        worker.step(job_id, 4, 20)
    assert progress(client, alice)["current_task"] == hers
    assert progress(client, bob)["current_task"] == his
    for stranger in (other_bob, {}, basic(":")):
        assert is_idle(progress(client, stranger))
        assert client.post("/sdapi/v1/interrupt", headers=stranger).json() == {}
        assert client.post("/sdapi/v1/skip", headers=stranger).json() == {}
    assert worker.step(hers, 5, 20) == worker.step(his, 5, 20) == "ok"
    assert client.post("/sdapi/v1/interrupt", headers=bob).json() == {}
    assert (worker.step(hers, 6, 20), worker.step(his, 6, 20)) == ("ok", "cancel")


def test_jobs_of_other_surfaces_are_no_business_of_this_one(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = client.post("/generate", json={"prompt": "1girl"}).json()["id"]
    assert is_idle(progress(client))
    client.post("/sdapi/v1/interrupt")
    assert status(client, job_id) == "queued"
    assert worker.queued_ids() == [job_id]


def test_behind_a_proxy_that_nobody_trusts_there_is_no_telling(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    """The proxy's address would be everybody's; a name and password of one's own tell again."""
    through = {"via": "1.1 proxy"}
    call(through, is_anybody=True)
    assert is_idle(progress(client, through))
    client.post("/sdapi/v1/interrupt", headers=through)
    named = through | basic("alice:1")
    _, job_id = call(named)
    assert progress(client, named)["current_task"] == job_id
    assert is_idle(progress(client, through | basic("bob:1")))
    assert len(worker.queued_ids()) == 2


def test_a_trusted_proxy_tells_whose_call_it_is(
    client: httpx2.Client, call: Callable[..., tuple[Call, str]]
) -> None:
    """uvicorn trusts this machine's own, as it does by default."""
    here, there = {"x-forwarded-for": "203.0.113.7"}, {"x-forwarded-for": "203.0.113.70"}
    _, job_id = call(here)
    assert progress(client, here)["current_task"] == job_id
    assert is_idle(progress(client, there))


def test_interrupt_ends_the_oldest_and_its_call(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    first, older = call()
    _, newer = call()
    assert progress(client)["state"]["job_count"] == 2
    assert progress(client)["current_task"] == older
    client.post("/sdapi/v1/interrupt")
    answer = first.wait()
    assert (answer.status_code, answer.json()["error"]) == (409, "job_cancelled")
    assert answer.json()["job_id"] == older
    assert status(client, newer) == "queued"
    assert progress(client)["current_task"] == newer
    client.post("/sdapi/v1/skip")
    assert status(client, newer) == "cancelled"
    assert is_idle(progress(client))
    assert worker.queued_ids() == []


def test_a_server_of_many_people_interrupts_for_the_one_who_left(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    """SillyTavern calls interrupt and drops the call of the person at the same time."""
    _, older = call()
    second, newer = call()
    _, newest = call()
    for job_id in (older, newer, newest):
        worker.claim(job_id)
        worker.step(job_id, 1, 20)
    second.hang_up()
    (key,) = worker.redis.scan_iter("kirazuri:client:*")
    deadline = time.monotonic() + 10
    while float(str(worker.redis.zscore(key, newer))) > 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert progress(client)["current_task"] == older
    client.post("/sdapi/v1/interrupt")
    steps = {job_id: worker.step(job_id, 2, 20) for job_id in (older, newer, newest)}
    assert steps == {older: "ok", newer: "cancel", newest: "ok"}


def test_a_call_that_is_dropped_cancels_nothing(
    client: httpx2.Client, worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    one, job_id = call()
    one.hang_up()
    time.sleep(0.6)
    assert status(client, job_id) == "queued"
    assert progress(client)["current_task"] == job_id
    worker.claim(job_id)
    worker.finish(job_id, PICTURE)
    assert is_idle(progress(client))


# -- png-info ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "avif"])
def test_what_other_web_uis_wrote_is_read(client: httpx2.Client, file_format: str) -> None:
    text = "1girl, 笑顔\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 512x768"
    image, file = Image.new("RGB", (16, 16)), io.BytesIO()
    if file_format == "png":
        image.save(file, "PNG", pnginfo=png_chunks(text, '{"schema": 1}'))
    else:
        image.save(file, file_format.upper(), exif=exif(text))
    sent = {"image": base64.b64encode(file.getvalue()).decode()}
    found = client.post("/sdapi/v1/png-info", json=sent).json()
    assert found["info"] == text
    assert found["parameters"] == {
        "Prompt": "1girl, 笑顔",
        "Negative prompt": "bad",
        "Steps": "20",
        "Sampler": "Euler a",
        "Seed": "5",
        "Size-1": "512",
        "Size-2": "768",
    }
    assert found["items"] == ({"kirazuri": '{"schema": 1}'} if file_format == "png" else {})


def test_a_picture_that_says_nothing(client: httpx2.Client) -> None:
    found = client.post("/sdapi/v1/png-info", json={"image": picture()}).json()
    assert found == {"info": "", "items": {}, "parameters": {}}
    for image in ("", "nothing", "http://127.0.0.1/a.png", base64.b64encode(b"GIF89a").decode()):
        answer = client.post("/sdapi/v1/png-info", json={"image": image})
        error = error_of(answer, 422, "validation_failed")
        assert [entry["loc"] for entry in error["detail"]] == [["body", "image"]]


# -- lists and settings --------------------------------------------------------------------------


def test_options_may_be_sent_back_whole_and_change_nothing(client: httpx2.Client) -> None:
    options = client.get("/sdapi/v1/options").json()
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert options["sd_model_checkpoint"] == model["title"] == "kirazuri-tiny.safetensors"
    assert "forge_preset" not in options, "this is what tells Forge from the web UI"
    changed = options | {"samples_format": "jpg", "CLIP_stop_at_last_layers": 2, "new": [None]}
    assert client.post("/sdapi/v1/options", json=changed).json() == {}
    assert client.get("/sdapi/v1/options").json() == options


def test_hashes_are_those_of_a_worker(client: httpx2.Client, worker: ManualWorker) -> None:
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert (model["hash"], model["sha256"]) == (None, None)
    worker.heartbeat(recipe=Recipe(card="kirazuri-tiny", checkpoint="0123456789abcdef" * 4))
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert (model["hash"], model["sha256"]) == ("0123456789", "0123456789abcdef" * 4)
    assert model["filename"] == "diffusion_models/kirazuri-tiny.safetensors"


def test_every_listed_name_is_understood(client: httpx2.Client, worker: ManualWorker) -> None:
    samplers = client.get("/sdapi/v1/samplers").json()
    assert samplers[0] == {"name": "ER SDE", "aliases": ["er_sde"], "options": {}}
    for sampler in samplers:
        found = find_sampler(sampler["name"])
        assert found is not None
        assert [found.sampler] == sampler["aliases"]
    first, *schedulers = client.get("/sdapi/v1/schedulers").json()
    assert first["name"] == "automatic"
    for scheduler in schedulers:
        found_schedule = find_schedule(scheduler["label"])
        assert found_schedule == find_schedule(scheduler["name"]) == scheduler["name"]
    upscalers = [entry["name"] for entry in client.get("/sdapi/v1/upscalers").json()]
    assert upscalers == ["None", "Lanczos"]
    assert client.get("/sdapi/v1/latent-upscale-modes").json() == [{"name": "Latent (bicubic)"}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("prompt-styles", []),
        ("hypernetworks", []),
        ("face-restorers", []),
        ("realesrgan-models", []),
        ("loras", []),
        ("embeddings", {"loaded": {}, "skipped": {}}),
        ("scripts", {"txt2img": [], "img2img": []}),
        ("cmd-flags", {"api": True, "nowebui": True}),
        ("memory", {"ram": {"error": "unavailable"}, "cuda": {"error": "unavailable"}}),
        ("sd-vae", [{"model_name": "qwen-image-vae-tiny.safetensors",
                     "filename": "vae/qwen-image-vae-tiny.safetensors"}]),
    ],
)  # fmt: skip
def test_lists(client: httpx2.Client, path: str, expected: Any) -> None:
    assert client.get(f"/sdapi/v1/{path}").json() == expected


@pytest.mark.parametrize(
    "path",
    [
        "/sdapi/v1/refresh-checkpoints",
        "/sdapi/v1/refresh-vae",
        "/sdapi/v1/refresh-loras",
        "/sdapi/v1/refresh-embeddings",
        "/login",
    ],
)
def test_calls_that_change_nothing(client: httpx2.Client, path: str) -> None:
    answer = client.post(path, data={"username": "u", "password": "p"})
    assert (answer.status_code, answer.json()) == (200, {})


def test_what_is_called_outside(client: httpx2.Client) -> None:
    assert client.get("/internal/ping").json() == {}
    assert client.get("/internal/sysinfo").json()["Checkpoint"] == "kirazuri-tiny.safetensors"


# -- errors ----------------------------------------------------------------------------------------


def error_of(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()
    assert set(error) == {"error", "detail", "body", "errors", "job_id"}
    assert error["error"] == code
    return error


@pytest.mark.parametrize(
    ("body", "places", "text"),
    [
        ({"steps": 500, "batch_size": 100}, ["steps", "batch_size"], "less than or equal to 100"),
        ({"steps": "many"}, ["steps"], "valid integer"),
        ({"hr_scale": False}, ["hr_scale"], "must be a number"),
        ({"sampler_name": "LMS"}, ["sampler_name"], "Sampler not found. Available: ER SDE"),
        ({"cfg_scale": 99, "width": 0}, ["width"], "greater than or equal to 1"),
        ({"cfg_scale": 99}, ["cfg_scale"], "less than or equal to 30"),
        ({"prompt": "<lora:none:1>"}, ["prompt"], "there is no LoRA of this name"),
        ({"prompt": "(" * 500}, ["prompt"], "nest"),
        ({"enable_hr": True, "denoising_strength": 3}, ["denoising_strength"], "equal to 1"),
        ({"script_name": "X/Y/Z plot"}, ["script_name"], "Script not found"),
        ({"infotext": "x" * 200_001}, ["infotext"], "at most 200000 characters"),
        ([], [], "object"),
    ],
)
def test_wrong_fields(client: httpx2.Client, body: Any, places: list[str], text: str) -> None:
    request = {"prompt": "1girl"} | body if isinstance(body, dict) else body
    error = error_of(client.post(TEXT, json=request), 422, "validation_failed")
    assert [entry["loc"][:2] for entry in error["detail"]] == [
        ["body", *([place] if place else [])] for place in places or [""]
    ]
    assert text in error["errors"]


def test_pictures_that_cannot_be_used(client: httpx2.Client) -> None:
    path = "/sdapi/v1/img2img"
    error = error_of(client.post(path, json={"prompt": "x"}), 422, "validation_failed")
    assert error["errors"] == "init_images: Init image not found"
    for image in ("no picture", "http://example.com/a.png", "/images/" + "0" * 40 + ".png"):
        body = {"prompt": "x", "init_images": [image], "mask": "neither"}
        error = error_of(client.post(path, json=body), 422, "validation_failed")
        assert {entry["loc"][1] for entry in error["detail"]} == {"init_images", "mask"}


def test_other_refusals(client: httpx2.Client, worker: ManualWorker) -> None:
    other = {"sd_model_checkpoint": "v1-5-pruned.safetensors"}
    error = error_of(client.post("/sdapi/v1/options", json=other), 404, "model_not_found")
    assert error["detail"].startswith("model 'v1-5-pruned.safetensors' not found")
    body = {"prompt": "x", "override_settings": other}
    error_of(client.post(TEXT, json=body), 404, "model_not_found")
    error_of(client.post(TEXT, content=b"{", headers={"content-type": "application/json"}),
             400, "malformed_json")  # fmt: skip
    error_of(client.get("/sdapi/v1/nothing"), 404, "not_found")
    error_of(client.get(TEXT), 405, "method_not_allowed")
    assert worker.queued_ids() == []
    for _ in range(5):
        client.post(TEXT, json={"prompt": "x"}, headers=BRIEF)
    answer = client.post(TEXT, json={"prompt": "x"}, headers=BRIEF)
    assert error_of(answer, 429, "queue_full")["job_id"] is None
    assert int(answer.headers["retry-after"]) >= 1


def test_a_job_that_fails_says_why(
    worker: ManualWorker, call: Callable[..., tuple[Call, str]]
) -> None:
    waiting, job_id = call()
    worker.claim(job_id)
    worker.end(job_id, "failed", error=job_error("non_finite", "NaN in the latents"))
    error = error_of(waiting.wait(), 500, "non_finite")
    assert error["job_id"] == job_id
    assert "NaN in the latents" in error["detail"]


# -- keys ------------------------------------------------------------------------------------------


def test_keys_tell_clients_apart(settings: Settings, redis_url: str, worker: ManualWorker) -> None:
    hers, his = new_secret(), new_secret()
    for name, secret in (("alice", hers), ("bob", his)):
        add_key(worker.redis, ApiKey(name=name, hash=secret_hash(secret)))
    with (
        ApiServer(settings.model_copy(update={"auth": "required"})) as running,
        httpx2.Client(base_url=running.url, timeout=20) as client,
    ):
        refused = client.get("/sdapi/v1/options")
        assert error_of(refused, 401, "unauthorized")["detail"].startswith("an API key is")
        assert refused.headers["www-authenticate"].startswith("Basic ")
        alice, bob = basic(f"any:{hers}"), basic(f"any:{his}")
        answer = client.post(TEXT, json={"prompt": "x"}, headers=BRIEF | alice)
        job_id = answer.json()["job_id"]
        assert is_idle(progress(client, bob))
        client.post("/sdapi/v1/interrupt", headers=bob)
        assert client.get(f"/jobs/{job_id}", headers=bob).status_code == 404
        # Behind whatever proxy: the key says who it is.
        assert progress(client, alice | {"via": "1.1 proxy"})["current_task"] == job_id
        client.post("/sdapi/v1/interrupt", headers=alice)
        job = client.get(f"/jobs/{job_id}", headers=alice).json()
        assert job["status"] == "cancelled"
