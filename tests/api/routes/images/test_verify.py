"""Verifying images: own jobs, signatures, marks, recipes of other programs, hostile files."""

import io
import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from api.http.errors import UnreadableImage
from api.routes.images.evidence import Evidence
from api.routes.service.capabilities import capabilities
from api.webhooks.schemas import submission_type
from model.card import load_card
from model.recipes.recipe import Recipe
from model.request import ImageFormat
from tests.support.api_calls import read_problem, submit_job
from tests.support.api_server import ApiServer
from tests.support.foreign_images import FIELD_IMAGES
from tests.support.manual_worker import ManualWorker
from tests.support.requests import make_request
from worker.images.c2pa_manifest import C2paReader
from worker.images.c2pa_signer import open_signer
from worker.images.encode import encode_image
from worker.images.metadata import COMPOSITE, TRAINED
from worker.settings import Settings

FORMATS: tuple[ImageFormat, ...] = ("png", "webp", "jpeg", "avif")
MEDIA = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg", "avif": "image/avif"}
PIXELS = numpy.random.default_rng(5).integers(0, 255, (48, 64, 3), dtype=numpy.uint8)


@pytest.fixture(scope="module")
def settings(settings: Settings, authority: Path) -> Settings:
    """An API that has the certificate without its key."""
    return settings.model_copy(update={"c2pa_certificate": authority / "certificate.pem"})


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[ApiServer]:
    with ApiServer(settings) as running:
        yield running


def picture(image_format: ImageFormat = "png", **changes: Any) -> bytes:
    request = make_request("1girl, a prompt", image_format=image_format, seed=7, **changes)
    recipe = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32)
    return encode_image(PIXELS, request=request, recipe=recipe, seed=7)


def signed(authority: Path, image_format: ImageFormat = "png", mark: str = TRAINED) -> bytes:
    settings = Settings(
        _env_file=None,
        c2pa_certificate=authority / "certificate.pem",
        c2pa_key=authority / "key.pem",
    )
    sign = open_signer(settings, service="k 1")
    return sign(picture(image_format), image_format, mark)


def saved(pixels: Any = PIXELS, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def with_texts(**texts: str) -> bytes:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    return saved(pnginfo=info)


def verified(client: httpx2.Client, data: bytes) -> Any:
    answer = client.post("/verify", content=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_image_of_this_service_says_so(client: httpx2.Client, image_format: ImageFormat) -> None:
    data = picture(image_format)
    found = verified(client, data)
    assert (found["verdict"], found["made_by"], found["mark"]) == ("claimed", None, TRAINED)
    assert (found["format"], found["width"], found["height"]) == (image_format, 64, 48)
    assert found["bytes"] == len(data)
    assert found["recipe"]["kind"] == "kirazuri"
    assert found["recipe"]["request"]["prompt"] == "1girl, a prompt"
    assert found["recipe"]["request"]["seed"] == 7
    assert (found["recipe"]["model"], found["recipe"]["checkpoint"]) == ("kirazuri-tiny", "ab" * 32)
    assert found["credentials"]["state"] == "none"
    assert any("Anybody can write" in line for line in found["summary"])


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_signature_is_valid_until_a_byte_changes(
    client: httpx2.Client, authority: Path, image_format: ImageFormat
) -> None:
    data = signed(authority, image_format)
    found = verified(client, data)
    assert found["verdict"] == "signed"
    assert found["credentials"] == {
        "state": "valid",
        "signer": "Picture signer, Test Studio",
        "generator": "k",
        "source_types": [TRAINED],
        "problems": [],
    }
    assert any("Test Studio, who is trusted here" in line for line in found["summary"])

    found = verified(client, with_sums(data.replace(b"digitalSourceType", b"digitalSourceTypf")))
    assert (found["verdict"], found["credentials"]["state"]) == ("claimed", "invalid")
    assert found["credentials"]["problems"]
    assert any("invalid C2PA manifest" in line for line in found["summary"])


def with_sums(data: bytes) -> bytes:
    """A modified PNG with corrected checksums."""
    if data[:4] != b"\x89PNG":
        return data
    place, whole = 8, data[:8]
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        whole += chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + size])
        place += 12 + size
    return whole


def test_an_image_edited_by_a_model_counts_as_made_by_one(
    client: httpx2.Client, authority: Path
) -> None:
    assert verified(client, signed(authority, mark=COMPOSITE))["verdict"] == "signed"


def test_exact_bytes_are_traced_to_the_callers_job(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client, num_images=2)
    worker.claim(job_id)
    first, second = picture(), picture(metadata="none")
    images = worker.finish(job_id, first, second)
    found = verified(client, second)
    assert found["verdict"] == "ours"
    assert found["made_by"]["job_id"] == job_id
    image = found["made_by"]["image"]
    assert (image["sha256"], image["seed"]) == (images[1].sha256, 1)
    assert client.get(image["url"]).content == second
    assert job_id in found["summary"][0]

    again = submit_job(client)
    worker.claim(again)
    worker.finish(again, first)
    assert verified(client, first)["made_by"]["job_id"] == again
    assert verified(client, second)["made_by"]["job_id"] == job_id

    other = saved(numpy.asarray(Image.open(io.BytesIO(second))), compress_level=9)
    found = verified(client, other)
    assert (found["verdict"], found["made_by"]) == ("unknown", None)
    assert "other bytes" in found["summary"][0]


def test_jobs_of_other_owners_are_not_shown(
    client: httpx2.Client, worker: ManualWorker, redis_url: str
) -> None:
    job_id = submit_job(client)
    worker.redis.hset(f"kirazuri:job:{job_id}", "owner", "somebody")
    worker.claim(job_id)
    worker.finish(job_id, picture())
    assert worker.redis.keys("kirazuri:maker:somebody:*")
    assert verified(client, picture())["made_by"] is None


def test_an_input_image_was_not_made_here(client: httpx2.Client) -> None:
    data = picture(metadata="none")
    submit_job(client, init_image=b64encode(data).decode(), strength=0.5)
    assert verified(client, data)["verdict"] == "unknown"


def test_an_expired_job_is_forgotten(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    worker.finish(job_id, picture())
    (key,) = worker.redis.keys("kirazuri:maker::*")
    assert 0 < worker.redis.ttl(key) <= 86_400
    worker.redis.delete(f"kirazuri:job:{job_id}")
    assert verified(client, picture())["made_by"] is None


def test_recipes_of_other_programs_are_read(client: httpx2.Client) -> None:
    info = "a cat\nNegative prompt: a dog\nSteps: 20, Sampler: Euler a, CFG scale: 5, Seed: 3"
    found = verified(client, with_texts(parameters=info))
    assert (found["verdict"], found["recipe"]["kind"]) == ("claimed", "infotext")
    assert found["recipe"]["request"]["prompt"] == "a cat"
    assert found["recipe"]["request"]["sampler"] == "euler_ancestral"
    nodes = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "seed": 9, "steps": 5}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bird"}},
    }
    found = verified(client, with_texts(prompt=json.dumps(nodes)))
    assert found["recipe"]["kind"] == "comfyui"
    assert found["recipe"]["request"]["prompt"] == "a bird"
    found = verified(client, (FIELD_IMAGES / "swarmui.png").read_bytes())
    assert found["recipe"]["kind"] == "swarmui"
    assert found["recipe"]["request"]["loras"] == [{"name": "style/wlop", "weight": 0.8}]
    found = verified(client, (FIELD_IMAGES / "single-line.png").read_bytes())
    assert found["recipe"] is None
    assert any("not an infotext" in line for line in found["summary"])
    found = verified(client, with_texts(prompt="{}"))
    assert (found["verdict"], found["recipe"]) == ("unknown", None)
    assert any("cannot be read: the workflow" in line for line in found["summary"])


def test_an_image_without_marks_proves_nothing(client: httpx2.Client) -> None:
    found = verified(client, saved())
    assert (found["verdict"], found["mark"], found["recipe"]) == ("unknown", None, None)
    assert "proves nothing" in found["summary"][-1]
    photo = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    xmp = f"<x a:DigitalSourceType='{photo}'/>".encode()
    found = verified(client, saved(file_format="JPEG", xmp=xmp))
    assert (found["verdict"], found["mark"]) == ("unknown", photo)


def test_the_body_is_the_image_or_a_form(client: httpx2.Client) -> None:
    for image_format in FORMATS:
        data = picture(image_format)
        plain = verified(client, data)
        headers = {"Content-Type": MEDIA[image_format]}
        assert client.post("/verify", content=data, headers=headers).json() == plain
        files = {"image": ("x.bin", data, "application/octet-stream")}
        assert client.post("/verify", files=files, data={"note": "x"}).json() == plain


BOUNDARY = "multipart/form-data; boundary=x"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
FILE = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'


UNREADABLE = [
    (b"", "image/png", "the body is empty"),
    (FILE + b"\r\n--x--\r\n", BOUNDARY, "the body is empty"),
    (b"GIF89a" + bytes(40), "image/gif", "cannot be read as one of"),
    (b"<svg/>", "image/svg+xml", "cannot be read as one of"),
    (picture()[:-60], "image/png", "cannot be read"),
]
MALFORMED = [
    (b"x", "multipart/form-data", "Missing boundary"),
    (b"x" * 50, BOUNDARY, "Invalid multipart data"),
    (FIELD + b"--x--\r\n", BOUNDARY, "no file"),
    (b"--x\r\n\r\nb\r\n--x--\r\n", BOUNDARY, "Content-Disposition"),
    ((FILE + b"q\r\n") * 2 + b"--x--\r\n", BOUNDARY, "Too many files"),
    (FIELD * 9 + b"--x--\r\n", BOUNDARY, "Too many fields"),
    (FIELD + b"--x--\r\n", f"{BOUNDARY}; charset=undefined", "not in the encoding"),
]


@pytest.mark.parametrize(
    ("bodies", "status", "code"),
    [(UNREADABLE, 422, "unreadable_image"), (MALFORMED, 400, "malformed_form")],
    ids=["no image", "no form"],
)
def test_other_bodies_are_refused_with_the_reason(
    client: httpx2.Client, bodies: list[tuple[bytes, str, str]], status: int, code: str
) -> None:
    for content, media_type, reason in bodies:
        answer = client.post("/verify", content=content, headers={"Content-Type": media_type})
        assert answer.status_code == status, reason
        problem = read_problem(answer)
        assert problem["code"] == code
        assert reason in problem["detail"]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG that declares this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_too_many_pixels_are_refused_before_decoding(client: httpx2.Client) -> None:
    for size in ((4097, 4096), (60_000, 60_000), (2_000_000_000, 1)):
        answer = client.post("/verify", content=bomb(*size))
        assert answer.status_code == 422
        assert "pixels" in read_problem(answer)["detail"]


def test_a_text_that_unpacks_to_too_much_is_refused(client: httpx2.Client) -> None:
    data = bytearray(saved())
    data[33:33] = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 40_000_000, 9))
    answer = client.post("/verify", content=bytes(data))
    assert (answer.status_code, read_problem(answer)["code"]) == (422, "unreadable_image")


def test_the_body_is_limited(client: httpx2.Client, settings: Settings) -> None:
    content = FILE + bytes(settings.max_body_bytes)
    for media_type in ("image/png", BOUNDARY):
        for body in (content, iter([content])):  # with and without Content-Length
            answer = client.post("/verify", content=body, headers={"Content-Type": media_type})
            assert (answer.status_code, read_problem(answer)["code"]) == (413, "body_too_large")


READER = C2paReader(Settings(_env_file=None))
NOT_SAID = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON_PIECES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@examples(max_examples=100, deadline=None)
@given(
    st.sampled_from(["parameters", "kirazuri", "prompt", "XML:com.adobe.xmp"]),
    NOT_SAID
    | st.builds(json.dumps, JSON_PIECES)
    | st.builds(lambda f: json.dumps({"schema": 1, "request": f, "recipe": {}}), JSON_PIECES)
    | st.sampled_from(
        [
            '{"schema": 1, "request": {"prompt": "\\ud800", "seed": NaN}}',
            '{"schema": 1, "request": {"seed": 1e999, "steps": ' + "9" * 4000 + "}}",
            "[" * 100_000,
            '{"a":' * 5000,
            "x\nSteps: " + "9" * 5000 + ", Sampler: {" + "[" * 3000,
            "<a:DigitalSourceType>&#xd800;&#99999999;</a:DigitalSourceType>",
        ]
    ),
)
def test_every_text_gets_an_answer(keyword: str, text: str) -> None:
    evidence = Evidence(with_texts(**{keyword: text}), READER)
    found = json.loads(evidence.verify(None, kept_seconds=60).model_dump_json())
    assert found["verdict"] in ("claimed", "unknown")
    assert found["summary"]


@examples(max_examples=100, deadline=None)
@given(st.data())
def test_broken_files_are_answered_or_refused(data: st.DataObject) -> None:
    image_format = data.draw(st.sampled_from(FORMATS))
    broken = bytearray(WHOLE[image_format])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=6))
    try:
        evidence = Evidence(bytes(broken), READER)
    except UnreadableImage:
        return
    assert evidence.verify(None, kept_seconds=60).verdict in ("claimed", "unknown")


WHOLE = {image_format: picture(image_format) for image_format in FORMATS}


def test_the_mark_can_be_required() -> None:
    card = load_card("kirazuri-tiny")
    for is_required, levels in ((False, ["full", "minimal", "none"]), (True, ["full", "minimal"])):
        settings = Settings(_env_file=None, require_mark=is_required)
        found = capabilities(card, settings, [], loras=[], refused_loras=[], has_tokenizers=False)
        assert found.features.metadata == levels
        request = submission_type(card, settings)
        for level in levels:
            body = {"prompt": "1girl", "metadata": level}
            assert request.model_validate(body).metadata == level
        assert request(prompt="1girl").metadata == "full"
        if is_required:
            with pytest.raises(ValidationError, match="'full' or 'minimal'"):
                request(prompt="1girl", metadata="none")
