"""A1111 clients against the running service.

webuiapi is the real package. For the other programs, the tests send the requests that they send.
"""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
import webuiapi  # type: ignore[import-untyped]
from PIL import Image

from model.recipes.infotext_syntax import parse_parameters
from tests.support.a1111_clients import TXT2IMG, is_idle, read_progress
from tests.support.images import draw_image, open_image
from tests.support.pending_call import PendingCall
from tests.support.pictures import QUALITY, finished, pixels, submit
from tests.support.service import halted_worker
from tests.support.waiting import wait_until
from training.evaluation.rules import read_colors

pytestmark = pytest.mark.timeout(180)

LOOK = "twintails, red eyes, smile, white serafuku, pink background"
PROMPT = f"{QUALITY}, blue hair, {LOOK}"


def decode(image: str) -> Image.Image:
    return open_image(base64.b64decode(image))


def hair_color(image: Image.Image) -> str:
    return read_colors(image)["hair_color"]


def read_response(response: httpx2.Response) -> dict[str, Any]:
    """The body of a successful response, with `info` parsed."""
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found | {"info": json.loads(found["info"])}


# -- webuiapi --------------------------------------------------------------------------------------


@pytest.fixture
def web_ui(service: httpx2.Client) -> Iterator[Any]:
    api = webuiapi.WebUIApi(host=service.base_url.host, port=service.base_url.port)
    yield api
    api.session.close()


def test_webuiapi_generates_with_its_defaults(service: httpx2.Client, web_ui: Any) -> None:
    result = web_ui.txt2img(prompt=PROMPT, seed=7)
    assert result.image.size == (128, 128), "it always sends 512x512"
    assert (result.info["sampler_name"], result.info["steps"]) == ("Euler a", 20)
    assert result.info["seed"] == result.parameters["seed"] == 7
    assert hair_color(result.image) == "blue hair"
    (infotext,) = result.info["infotexts"]
    assert result.image.text["parameters"] == infotext
    parameters = parse_parameters(infotext)
    assert parameters["Prompt"] == PROMPT
    assert (parameters["Sampler"], parameters["CFG scale"]) == ("Euler a", "7")
    job = service.get(f"/jobs/{result.info['job_id']}").json()
    assert job["status"] == "succeeded"
    assert job["request"]["sampler"] == "euler_ancestral"
    file = service.get(job["images"][0]["url"]).content
    assert base64.b64decode(result.json["images"][0]) == file


def test_infotext_reproduces_its_image(service: httpx2.Client, web_ui: Any) -> None:
    first = web_ui.txt2img(prompt=PROMPT, seed=31, steps=8, cfg_scale=3, sampler_name="DPM++ 2M")
    info = web_ui.png_info(first.image)
    assert info.info == first.info["infotexts"][0]
    assert info.parameters["Seed"] == "31"
    found = read_response(service.post("/sdapi/v1/txt2img", json={"infotext": info.info}))
    assert found["info"]["infotexts"] == first.info["infotexts"]
    again = pixels(decode(found["images"][0]))
    assert numpy.abs(again - pixels(first.image)).max() <= 1


def test_webuiapi_generates_several_images_and_a_second_pass(web_ui: Any) -> None:
    result = web_ui.txt2img(
        prompt=PROMPT, seed=20, steps=4, cfg_scale=1, batch_size=2, n_iter=2, sampler_name="Euler"
    )
    assert len(result.images) == 4
    assert result.info["all_seeds"] == [20, 21, 22, 23]
    assert len({image.tobytes() for image in result.images}) == 4
    result = web_ui.txt2img(
        prompt=PROMPT,
        seed=7,
        steps=6,
        cfg_scale=3,
        width=96,
        height=96,
        enable_hr=True,
        hr_scale=1.5,
        hr_second_pass_steps=4,
        hr_upscaler=webuiapi.HiResUpscaler.ESRGAN_4x,
        denoising_strength=0.5,
    )
    assert result.image.size == (144, 144)
    assert result.info["infotexts"][0].count("Hires upscale: 1.5") == 1
    assert result.info["warnings"][0].startswith(
        "upscaler R-ESRGAN 4x+: not offered; lanczos is used"
    )


def test_webuiapi_repaints_the_masked_area(web_ui: Any) -> None:
    start = web_ui.txt2img(prompt=PROMPT, seed=7, steps=12, cfg_scale=4, sampler_name="ER SDE")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 128, 64))
    result = web_ui.img2img(
        images=[start.image],
        mask_image=mask,
        mask_blur=0,
        prompt=PROMPT.replace("blue", "green"),
        denoising_strength=0.9,
        steps=12,
        cfg_scale=4,
        seed=8,
        sampler_name="ER SDE",
    )
    assert result.image.size == (128, 128)
    below = (0, 64, 128, 128)
    before, after = (image.convert("RGB") for image in (start.image, result.image))
    assert before.crop(below).tobytes() == after.crop(below).tobytes(), "black areas stay"
    assert hair_color(after) == "green hair"
    assert "Denoising strength: 0.9" in result.info["infotexts"][0]


def test_webuiapi_enlarges_an_image(web_ui: Any) -> None:
    start = draw_image((96, 64))
    enlarged = web_ui.extra_single_image(start, upscaler_1="Lanczos", upscaling_resize=3)
    assert enlarged.image.size == (288, 192)
    assert "96x64 to 288x192" in enlarged.info
    with pytest.raises(RuntimeError, match="upscaler not found"):
        web_ui.extra_single_image(start, upscaler_1=webuiapi.Upscaler.ESRGAN_4x)


def test_webuiapi_reads_all_lists(web_ui: Any) -> None:
    assert web_ui.util_get_model_names() == ["kirazuri-tiny.safetensors"]
    assert web_ui.util_get_current_model() == "kirazuri-tiny.safetensors"
    web_ui.util_set_model("kirazuri")
    assert {"Euler a", "ER SDE", "DPM++ 2M"} <= set(web_ui.util_get_sampler_names())
    assert {"automatic", "karras", "beta"} <= set(web_ui.util_get_scheduler_names())
    (model,) = web_ui.get_sd_models()
    assert len(model["sha256"]) == 64, "a worker is running"
    assert web_ui.get_scripts() == {"txt2img": [], "img2img": []}
    for call in (
        web_ui.get_cmd_flags, web_ui.get_sd_vae, web_ui.get_upscalers, web_ui.get_loras,
        web_ui.get_latent_upscale_modes, web_ui.get_hypernetworks, web_ui.get_face_restorers,
        web_ui.get_realesrgan_models, web_ui.get_prompt_styles, web_ui.refresh_checkpoints,
        web_ui.get_embeddings, web_ui.get_memory, web_ui.interrupt, web_ui.skip,
    ):  # fmt: skip
        assert isinstance(call(), dict | list)
    web_ui.set_options(web_ui.get_options() | {"CLIP_stop_at_last_layers": 2})
    web_ui.util_wait_for_ready()


def test_webuiapi_raises_our_errors(web_ui: Any) -> None:
    with pytest.raises(RuntimeError) as caught:
        web_ui.txt2img(prompt=PROMPT, sampler_name="LMS", steps=20)
    status, text = caught.value.args
    assert status == 422
    assert "Sampler not found" in json.loads(text)["errors"]


def test_webuiapi_watches_and_interrupts_its_own_job(service: httpx2.Client, web_ui: Any) -> None:
    other = submit(service, prompt=PROMPT, steps=30, seed=1)
    failures: list[tuple[int, str]] = []

    def make() -> None:
        try:
            web_ui.txt2img(prompt=PROMPT, steps=100, width=192, height=192, batch_size=2)
        except RuntimeError as exc:
            failures.append(exc.args)

    making = threading.Thread(target=make)
    making.start()
    watcher = webuiapi.WebUIApi(host=service.base_url.host, port=service.base_url.port)
    seen: dict[str, Any] = {}

    def has_preview() -> bool:
        seen.update(watcher.get_progress())
        return seen["current_image"] is not None

    try:
        wait_until(has_preview)
        assert decode(seen["current_image"]).size == (24, 24)
        assert 0 < seen["progress"] < 1
        assert seen["state"]["sampling_steps"] >= 100
        watcher.interrupt()
        making.join(60)
    finally:
        watcher.session.close()
    ((status, text),) = failures
    assert (status, json.loads(text)["error"]) == (409, "job_cancelled")
    assert service.get(f"/jobs/{seen['current_task']}").json()["status"] == "cancelled"
    assert finished(service, other)["status"] == "succeeded"


# -- SillyTavern -----------------------------------------------------------------------------------


def silly_tavern(service: httpx2.Client, auth: str = "") -> httpx2.Client:
    """SillyTavern's server: it always sends Basic authentication, even without credentials."""
    coded = f"Basic {base64.b64encode(auth.encode()).decode()}".strip()
    headers = {"user-agent": "node-fetch", "accept": "*/*", "authorization": coded}
    return httpx2.Client(base_url=service.base_url, headers=headers, timeout=90)


def test_silly_tavern_connects_and_generates(service: httpx2.Client) -> None:
    with silly_tavern(service) as client:
        assert client.get("/sdapi/v1/options").is_success  # ping
        for path in ("samplers", "schedulers", "upscalers", "latent-upscale-modes"):
            assert [entry["name"] for entry in client.get(f"/sdapi/v1/{path}").json()]
        for path in ("sd-vae", "sd-modules"):
            assert [entry["model_name"] for entry in client.get(f"/sdapi/v1/{path}").json()]
        titles = [model["title"] for model in client.get("/sdapi/v1/sd-models").json()]
        current = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
        assert titles == [current]
        assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": current}).is_success
        assert is_idle(read_progress(client))

        assert "forge_preset" not in client.get("/sdapi/v1/options").json()
        body = {
            "url": str(service.base_url),
            "auth": "user:secret",
            "prompt": PROMPT,
            "negative_prompt": "lowres, bad anatomy",
            "sampler_name": "Euler a",
            "scheduler": "automatic",
            "steps": 20,
            "cfg_scale": 7,
            "width": 512,
            "height": 512,
            "restore_faces": False,
            "enable_hr": False,
            "hr_upscaler": "Latent",
            "hr_scale": 1,
            "hr_additional_modules": [],
            "denoising_strength": 0.7,
            "hr_second_pass_steps": 0,
            "override_settings": {"CLIP_stop_at_last_layers": 1},
            "override_settings_restore_afterwards": True,
            "clip_skip": 1,
            "save_images": True,
            "send_images": True,
            "do_not_save_grid": False,
            "do_not_save_samples": False,
        }
        response = client.post("/sdapi/v1/txt2img", json=body)
        assert hair_color(decode(read_response(response)["images"][0])) == "blue hair"
        assert "secret" not in response.text


def test_silly_tavern_interrupts_for_the_user_who_leaves(
    service: httpx2.Client, service_folder: Path
) -> None:
    """Two users of one server. When one closes the page, it interrupts and drops the call."""
    body = {"prompt": PROMPT, "steps": 40, "width": 512, "height": 512}
    url = str(service.base_url).rstrip("/")
    with silly_tavern(service) as server:
        headers = {"authorization": server.headers["authorization"]}

        def start(number: int, **fields: Any) -> PendingCall:
            call = PendingCall(url, TXT2IMG, body | fields, headers)
            wait_until(lambda: read_progress(server)["state"]["job_count"] == number)
            return call

        with halted_worker(service_folder):
            staying = start(1)
            leaving = start(2, batch_size=8)
        leaving.disconnect()
        assert server.post("/sdapi/v1/interrupt").json() == {}
        assert len(read_response(staying.response())["images"]) == 1
        staying.disconnect()
        assert is_idle(read_progress(server))


# -- Open WebUI, LibreChat, AIYABot ----------------------------------------------------------------


def test_open_webui(service: httpx2.Client) -> None:
    headers = {"authorization": "", "user-agent": "Python/3.11 aiohttp/3.13", "accept": "*/*"}
    with httpx2.Client(base_url=service.base_url, headers=headers, timeout=90) as client:
        assert client.get("/sdapi/v1/options").is_success  # verify
        (model,) = client.get("/sdapi/v1/sd-models").json()
        assert model["model_name"] == "kirazuri-tiny"
        options = client.get("/sdapi/v1/options").json()
        options["sd_model_checkpoint"] = model["title"]
        assert client.post("/sdapi/v1/options", json=options).is_success
        body = {"prompt": PROMPT, "batch_size": 1, "width": 512, "height": 512, "steps": 20}
        found = client.post("/sdapi/v1/txt2img", json=body).json()
        assert json.loads(found["info"])["sampler_name"] == "ER SDE"
        (image,) = found["images"]
        assert "," not in image, "it takes a text with a comma for a data URL"
        assert hair_color(decode(image)) == "blue hair"


def test_libre_chat(service: httpx2.Client) -> None:
    body = {
        "prompt": PROMPT,
        "negative_prompt": "ugly",
        "cfg_scale": 4.5,
        "steps": 22,
        "width": 1024,
        "height": 1024,
    }
    found = read_response(service.post("/sdapi/v1/txt2img", json=body))
    image, info = decode(found["images"][0]), found["info"]
    assert (info["width"], info["height"]) == image.size == (192, 192)
    last = info["infotexts"][0].split("\n").pop()
    assert last.startswith("Steps: 22, Sampler: ER SDE")
    assert f"Seed: {info['seed']}" in last


def test_aiyabot(service: httpx2.Client) -> None:
    with httpx2.Client(base_url=service.base_url, timeout=90) as client:
        assert client.get("/sdapi/v1/cmd-flags").status_code == 200, "401 would ask for a key"
        assert client.post("/login").is_success
        for path in (
            "samplers", "prompt-styles", "face-restorers", "hypernetworks", "upscalers", "sd-models"
        ):  # fmt: skip
            assert isinstance(client.get(f"/sdapi/v1/{path}").json(), list)
        embeddings = client.get("/sdapi/v1/embeddings").json()
        assert (embeddings["loaded"], embeddings["skipped"]) == ({}, {})
        assert isinstance(client.get("/config").json(), dict), "it reads any JSON"

        (model,) = client.get("/sdapi/v1/sd-models").json()
        choice = {"sd_model_checkpoint": model["title"]}
        assert client.post("/sdapi/v1/options", json=choice).is_success
        body = {
            "prompt": PROMPT,
            "negative_prompt": "",
            "steps": 12,
            "width": 512,
            "height": 512,
            "cfg_scale": "7.0",
            "sampler_index": "Euler a",
            "seed": 4_294_967_295,
            "seed_resize_from_h": 0,
            "seed_resize_from_w": 0,
            "denoising_strength": None,
            "n_iter": 2,
            "styles": ["None"],
            "override_settings": {"CLIP_stop_at_last_layers": 1} | choice,
        }
        found = read_response(client.post("/sdapi/v1/txt2img", json=body))
        assert found["info"]["all_seeds"] == [4_294_967_295, 4_294_967_296]
        body |= {
            "init_images": ["data:image/png;base64," + found["images"][0]],
            "denoising_strength": "0.75",
            "n_iter": 1,
        }
        found = read_response(client.post("/sdapi/v1/img2img", json=body))
        assert decode(found["images"][0]).size == (128, 128)
        save(client, found)


def save(client: httpx2.Client, found: dict[str, Any]) -> None:
    """AIYABot reads the parameters of each image and saves the image with them."""
    for image, infotext in zip(found["images"], found["info"]["infotexts"], strict=True):
        sent = {"image": "data:image/png;base64," + image}
        info = client.post("/sdapi/v1/png-info", json=sent).json()
        assert info["info"] == infotext
        assert info["parameters"]["Prompt"] == PROMPT
