"""Input images of requests: accepted forms, refusals by field, and what is stored."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from PIL import Image

from api.submit.images.decoding import MAX_SCANS
from tests.support.api_calls import PROMPT, read_problem
from tests.support.images import SIZE, draw_image, encode_file, to_base64
from tests.support.manual_worker import ManualWorker
from worker.images.size_limits import MAX_PIXELS
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


@pytest.fixture
def store(settings: Settings) -> LocalImageStore:
    return LocalImageStore(settings.data_dir / "images")


@pytest.fixture
def submit(client: httpx2.Client) -> Callable[..., dict[str, Any]]:
    def post(**fields: Any) -> dict[str, Any]:
        answer = client.post("/generate", json={"prompt": PROMPT, **fields})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    return post


def refused(client: httpx2.Client, **fields: Any) -> list[dict[str, Any]]:
    body = json.dumps({"prompt": PROMPT, **fields})  # a lone surrogate goes as an escape
    answer = client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert len(answer.text) < 4000
    errors: list[dict[str, Any]] = read_problem(answer)["errors"]
    return errors


def stored(store: LocalImageStore, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(store.read(name)))
    image.load()
    return image


def test_every_format_is_accepted_and_stored_under_a_name(
    submit: Callable[..., Any], store: LocalImageStore
) -> None:
    formats: dict[str, dict[str, Any]] = {
        "PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {},
    }  # fmt: skip
    for kind, options in formats.items():
        request = submit(init_image=to_base64(encode_file(draw_image(), kind, **options)))[
            "request"
        ]
        assert request["strength"] == 0.6
        assert (request["width"], request["height"], request["mask"]) == (*SIZE, None)
        kept = stored(store, request["init_image"])
        assert (kept.format, kept.mode, kept.size) == ("PNG", "RGB", SIZE), kind
        red, blue = kept.getpixel((100, 100)), kept.getpixel((10, 10))
        assert isinstance(red, tuple)
        assert isinstance(blue, tuple)
        assert red[0] > 200 > 60 > red[2], kind
        assert blue[2] > 200 > 60 > blue[0], kind


def test_a_progressive_jpeg_is_accepted(submit: Callable[..., Any]) -> None:
    assert submit(init_image=to_base64(encode_file(draw_image(), "JPEG", progressive=True)))
    assert submit(init_image=to_base64(many_scans(10)))


def test_every_text_form_gives_the_same_input(submit: Callable[..., Any]) -> None:
    code = to_base64(draw_image())
    wrapped = "\n".join(code[i : i + 76] for i in range(0, len(code), 76))
    forms = (
        code, wrapped, f"data:image/png;base64,{code}", f"  data:image/png;x=y;base64,{code}\n",
    )  # fmt: skip
    assert len({submit(init_image=form)["request"]["init_image"] for form in forms}) == 1


def test_a_stored_image_is_accepted_by_name_path_or_url_and_keeps_its_name(
    client: httpx2.Client, submit: Callable[..., Any], store: LocalImageStore
) -> None:
    name = store.put(encode_file(draw_image(), "WEBP", lossless=True), "webp")
    own, other = f"{client.base_url}/images/{name}", f"https://art.example/api/images/{name}"
    for form in (name, f"/images/{name}", own, other):
        assert submit(init_image=form)["request"]["init_image"] == name


def test_without_a_resolution_the_image_determines_the_size(
    client: httpx2.Client, submit: Callable[..., Any]
) -> None:
    sizes = {(144, 112): (144, 112), (150, 110): (144, 112), (400, 400): (256, 256),
             (10, 10): (96, 96), (2000, 20): (256, 96)}  # fmt: skip
    for own, expected in sizes.items():
        job = submit(init_image=to_base64(draw_image(own)))
        assert (job["request"]["width"], job["request"]["height"]) == expected
        codes = {warning["code"] for warning in job["warnings"]}
        assert ("picture_fitted" in codes) == (own != expected)
        client.delete(f"/jobs/{job['id']}")


def test_a_resolution_crops_the_middle(submit: Callable[..., Any], store: LocalImageStore) -> None:
    wide = Image.new("RGB", (384, 128), "red")
    wide.paste("lime", (128, 0, 256, 128))
    job = submit(init_image=to_base64(wide), resolution="square")
    kept = stored(store, job["request"]["init_image"])
    assert kept.size == SIZE
    assert kept.getextrema() == ((0, 0), (255, 255), (0, 0))
    (warning,) = [w for w in job["warnings"] if w["code"] == "picture_fitted"]
    assert "384x128" in warning["detail"]
    assert "cropped to 128x128" in warning["detail"]


def test_the_exif_orientation_is_applied(
    submit: Callable[..., Any], store: LocalImageStore
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    sideways = encode_file(draw_image((144, 112)), "PNG", exif=exif)
    job = submit(init_image=to_base64(sideways))
    kept = stored(store, job["request"]["init_image"])
    assert kept.size == (112, 144)
    assert kept.getpixel((105, 5)) == (20, 40, 230)


def test_every_pixel_mode_becomes_eight_bit_rgb(
    client: httpx2.Client, submit: Callable[..., Any], store: LocalImageStore
) -> None:
    for mode in ("L", "P", "LA", "RGBA", "1", "I;16"):
        image = Image.new("I;16", SIZE, 40_000) if mode == "I;16" else draw_image(mode=mode)
        job = submit(init_image=to_base64(image))
        client.delete(f"/jobs/{job['id']}")
        kept = stored(store, job["request"]["init_image"])
        assert kept.mode == "RGB", mode
        if mode == "I;16":
            assert kept.getpixel((0, 0)) == (155, 155, 155)


def test_transparent_pixels_become_white_and_are_kept_by_a_mask(
    submit: Callable[..., Any], store: LocalImageStore
) -> None:
    clear = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 64, 128))
    request = submit(init_image=to_base64(clear), mask=to_base64(clear))["request"]
    kept, mask = stored(store, request["init_image"]), stored(store, request["mask"])
    assert (kept.getpixel((10, 10)), kept.getpixel((100, 10))) == ((0, 0, 0), (255, 255, 255))
    assert (mask.mode, mask.getextrema()) == ("L", (0, 0))


def test_the_mask_is_cropped_alike(submit: Callable[..., Any], store: LocalImageStore) -> None:
    mask = Image.new("L", (300, 200))
    mask.paste(255, (0, 0, 150, 200))
    picture = Image.merge("RGB", [mask] * 3)
    request = submit(init_image=to_base64(picture), mask=to_base64(mask), resolution="portrait")[
        "request"
    ]
    kept, cut = stored(store, request["init_image"]), stored(store, request["mask"])
    assert kept.size == cut.size == (112, 144)
    for x in (0, 40, 70, 111):
        assert (kept.getpixel((x, 70)), cut.getpixel((x, 70))) in (
            ((255, 255, 255), 255), ((0, 0, 0), 0),
        )  # fmt: skip


# -- refusals ----------------------------------------------------------------------------------


def png_of_size(width: int, height: int) -> bytes:
    """A tiny PNG file that declares this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * min(width * 3 * height, 3_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    return encode_file(
        draw_image(), kind, save_all=True, append_images=[Image.new("RGB", SIZE)], duration=50
    )


def many_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = encode_file(draw_image(), "JPEG", progressive=True)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:last] + data[last:end] * count + data[end:]


GONE = "a" * 40 + ".png"
BAD_IMAGES: dict[str, tuple[str, Any]] = {
    "empty": ("", 1),
    "blank": ("   ", None),
    "not base64": ("not a picture!", None),
    "bad padding": ("abcde", None),
    "not ASCII": ("絵" * 100, None),
    "a lone surrogate": ("\udfff" * 4, None),
    "text in base64": (to_base64(b"hello, this is text" * 20), None),
    "a GIF": (to_base64(encode_file(draw_image(), "GIF")), None),
    "a TIFF": (to_base64(encode_file(draw_image(), "TIFF")), None),
    "an SVG": (to_base64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), None),
    "half a file": (to_base64(encode_file(draw_image())[:200]), None),
    "a head alone": (to_base64(encode_file(draw_image(), "JPEG")[:30]), None),
    "animated WebP": (to_base64(animated("WEBP")), None),
    "animated PNG": (to_base64(animated("PNG")), None),
    "animated AVIF": (to_base64(animated("AVIF")), None),
    "too many pixels": (to_base64(png_of_size(5000, 5000)), MAX_PIXELS),
    "a bomb": (to_base64(png_of_size(60_000, 60_000)), MAX_PIXELS),
    "too many scans": (to_base64(many_scans(1000)), MAX_SCANS),
    "a huge side": (to_base64(png_of_size(2**31 - 1, 1)), MAX_PIXELS),
    "no such image": (GONE, None),
    "a path": ("../" + GONE, None),
    "a path to a secret": ("/images/../../etc/passwd", None),
    "a file URL": ("file:///etc/passwd", None),
    "another place": ("https://example.org/cat.png", None),
    "an unknown data URL": ("data:image/png,%89PNG", None),
}


@pytest.mark.parametrize("field", ["init_image", "mask"])
def test_unusable_images_are_named_by_field(client: httpx2.Client, field: str) -> None:
    wrong = []
    for name, (text, limit) in BAD_IMAGES.items():
        errors = refused(client, **{"init_image": to_base64(draw_image()), field: text})
        found = [(error["pointer"], error["limit"]) for error in errors]
        if found != [(f"/{field}", limit)]:
            wrong.append((name, found))
    assert wrong == []


def test_an_expired_image_is_named(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(encode_file(draw_image()), "png")
    store.delete(name)
    (error,) = refused(client, init_image=name)
    assert error["pointer"] == "/init_image"
    assert "expired" in error["detail"]


BAD_COMBINATIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({"strength": 0.5}, ["/strength"]),
    ({"mask": to_base64(draw_image(mode="L"))}, ["/mask"]),
    ({"strength": 0.5, "mask": "x"}, ["/strength", "/mask"]),
    ({"init_image": None, "strength": 0.5}, ["/strength"]),
    ({"init_image": to_base64(draw_image()), "strength": 1.1}, ["/strength"]),
    ({"init_image": to_base64(draw_image()), "strength": -0.1}, ["/strength"]),
    ({"init_image": to_base64(draw_image()), "strength": "0.5"}, ["/strength"]),
    ({"init_image": 3}, ["/init_image"]),
    ({"init_image": ["a"]}, ["/init_image"]),
    ({"init_image": "?", "mask": "!"}, ["/init_image", "/mask"]),
    ({"hires": {}}, ["/hires/scale"]),
    ({"hires": {"scale": 1}}, ["/hires/scale"]),
    ({"hires": {"scale": 9}}, ["/hires/scale"]),
    ({"hires": {"scale": 1.5, "steps": 0}}, ["/hires/steps"]),
    ({"hires": {"scale": 1.5, "steps": 101}}, ["/hires/steps"]),
    ({"hires": {"scale": 1.5, "strength": 2}}, ["/hires/strength"]),
    ({"hires": {"scale": 1.5, "upscaler": "esrgan"}}, ["/hires/upscaler"]),
    ({"hires": {"scale": 1.5, "width": 8}}, ["/hires/width"]),
    ({"hires": 2}, ["/hires"]),
    ({"hires": {"scale": 2.5}, "steps": 0}, ["/steps", "/hires/scale"]),
    ({"init_image": to_base64(draw_image()), "hires": {"scale": 2.5}}, ["/hires/scale"]),
    (
        {
            "init_image": to_base64(draw_image()),
            "mask": to_base64(draw_image((64, 64))),
            "hires": {"scale": 4},
        },
        ["/hires/scale", "/mask"],
    ),
]


def test_wrong_combinations_of_fields_are_named(client: httpx2.Client) -> None:
    wrong = []
    for fields, pointers in BAD_COMBINATIONS:
        found = [error["pointer"] for error in refused(client, **fields)]
        if found != pointers:
            wrong.append((pointers, found))
    assert wrong == []


def test_a_mask_of_another_size_names_the_right_one(client: httpx2.Client) -> None:
    (error,) = refused(
        client, init_image=to_base64(draw_image()), mask=to_base64(draw_image((64, 64)))
    )
    assert (error["pointer"], error["limit"]) == ("/mask", "128x128")
    assert "64x64" in error["detail"]


def test_a_second_pass_that_is_too_large_names_the_largest_scale(client: httpx2.Client) -> None:
    for resolution, limit in (("square", 2.0), ("square_hd", 1.33), ("256x256", 1.0)):
        (error,) = refused(client, resolution=resolution, hires={"scale": 2.2})
        assert (error["pointer"], error["limit"]) == ("/hires/scale", limit)
        if limit > 1:
            body = {"prompt": PROMPT, "resolution": resolution, "hires": {"scale": limit}}
            assert client.post("/generate", json=body).status_code == 202


def test_broken_files_are_accepted_or_refused(client: httpx2.Client) -> None:
    files = [
        encode_file(draw_image(), "PNG"), encode_file(draw_image(), "JPEG"),
        encode_file(draw_image(), "WEBP"), encode_file(draw_image(), "AVIF"),
    ]  # fmt: skip
    chance = random.Random(4)
    for number in range(60):
        data = bytearray(files[number % 4])
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        body = {"prompt": PROMPT, "init_image": to_base64(bytes(data)) or "x"}
        answer = client.post("/generate", json=body)
        assert answer.status_code in (202, 422), answer.text
        if answer.status_code == 202:
            client.delete(f"/jobs/{answer.json()['id']}")


# -- accepted jobs -----------------------------------------------------------------------------


def test_a_second_pass_is_resolved(submit: Callable[..., Any]) -> None:
    job = submit(resolution="landscape", steps=9, hires={"scale": 1.5})
    assert job["request"]["hires"] == {
        "scale": 1.5, "width": 224, "height": 176, "steps": 9, "strength": 0.5,
        "upscaler": "lanczos",
    }  # fmt: skip
    assert (job["request"]["width"], job["request"]["height"]) == (144, 112)
    assert job["progress"]["steps"] == 18


def test_no_image_is_stored_in_redis(submit: Callable[..., Any], worker: ManualWorker) -> None:
    noise = Image.effect_noise((256, 256), 90).convert("RGB")
    job = submit(init_image=to_base64(noise))
    record: Any = worker.redis.hgetall(f"kirazuri:job:{job['id']}")
    assert sum(map(len, record.values())) < 5000


def test_a_large_image_is_accepted(submit: Callable[..., Any]) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((1536, 1024), 90) for _ in range(3)])
    code = to_base64(noise)
    assert len(code) > 5_000_000
    assert submit(init_image=code)["request"]["width"] == 256


def test_an_idempotency_key_belongs_to_one_image(client: httpx2.Client) -> None:
    headers = {"idempotency-key": "abc"}
    blue = Image.new("RGB", SIZE, "blue")

    def post(image: Image.Image, **fields: Any) -> httpx2.Response:
        body = {"prompt": PROMPT, "init_image": to_base64(image), **fields}
        return client.post("/generate", json=body, headers=headers)

    first = post(draw_image())
    assert post(draw_image()).json()["id"] == first.json()["id"]
    for other in (
        post(blue),
        post(draw_image(), strength=0.5),
        post(draw_image(), hires={"scale": 1.5}),
    ):
        assert other.status_code == 422
        assert read_problem(other)["code"] == "idempotency_conflict"


def test_the_manual_of_the_service_tells_what_is_taken(client: httpx2.Client) -> None:
    features = client.get("/capabilities").json()["features"]
    assert features["input_formats"] == ["png", "jpeg", "webp", "avif"]
    assert features["max_input_pixels"] == MAX_PIXELS
    assert (features["max_input_side"], features["max_input_ratio"]) == (16_384, 100)
    assert features["upscalers"] == ["latent", "lanczos"]


def test_a_dry_run_looks_at_pictures_and_keeps_none(
    client: httpx2.Client, store: LocalImageStore
) -> None:
    before = {name for name, _ in store.list_images()}
    picture = to_base64(draw_image((146, 114)))
    body = {"prompt": PROMPT, "init_image": picture, "mask": picture, "hires": {"scale": 1.5}}
    answer = client.post("/generate?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert {name for name, _ in store.list_images()} == before
    assert (plan["request"]["width"], plan["request"]["height"]) == (144, 112)
    assert "picture_fitted" in {warning["code"] for warning in plan["warnings"]}
    assert client.post("/generate?dry_run=true", json={**body, "mask": "?"}).status_code == 422
    job = client.post("/generate", json=body).json()
    assert job["request"]["init_image"] == plan["request"]["init_image"]
