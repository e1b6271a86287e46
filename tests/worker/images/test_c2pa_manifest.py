"""Tests signed images with the C2PA library's own reader and with Pillow, also after damage."""

import io
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import c2pa
import numpy
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from cli.certificates import make_certificate
from model.request import ImageFormat
from tests.support.requests import make_request
from tests.support.signed_images import signing_settings, unsigned_image
from worker.images.c2pa_manifest import C2paManifest, C2paReader
from worker.images.c2pa_signer import open_signer
from worker.images.encode import digital_source_type
from worker.images.metadata import COMPOSITE, TRAINED, read_metadata
from worker.images.signing import ImageSigner, SigningError
from worker.settings import Settings

FORMATS: tuple[ImageFormat, ...] = ("png", "webp", "jpeg", "avif")
MOST_ADDED = 4096
"""Maximum bytes that a manifest adds to a file."""


@pytest.fixture(scope="module")
def signer(authority: Path) -> ImageSigner:
    return open_signer(signing_settings(authority), service="kirazuri-server 1.2")


@pytest.fixture(scope="module")
def reader(authority: Path) -> C2paReader:
    return C2paReader(signing_settings(authority))


def pixels_of(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return numpy.asarray(image.convert("RGB"))


def report(data: bytes, image_format: str, anchors: str) -> dict[str, Any]:
    """The report of the C2PA library's own reader, which trusts only these anchors."""
    settings = {"verify": {"remote_manifest_fetch": False}, "trust": {"trust_anchors": anchors}}
    with (
        c2pa.Context.from_dict(settings) as context,
        c2pa.Reader(f"image/{image_format}", io.BytesIO(data), context=context) as found,
    ):
        told: dict[str, Any] = json.loads(found.json())
        return told


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_signed_image_keeps_its_pixels_and_says_how_it_was_made(
    signer: ImageSigner, authority: Path, tmp_path: Path, image_format: ImageFormat
) -> None:
    data = unsigned_image(image_format)
    signed = signer(data, image_format, TRAINED)
    assert numpy.array_equal(pixels_of(signed), pixels_of(data))
    assert 0 < len(signed) - len(data) < MOST_ADDED
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_bytes(data)
    after.write_bytes(signed)
    inside = read_metadata(after)
    assert inside == read_metadata(before)
    assert inside.infotext is not None
    assert inside.mark == TRAINED

    told = report(signed, image_format, (authority / "ca.pem").read_text())
    assert told["validation_state"] == "Trusted"
    (manifest,) = told["manifests"].values()
    assert manifest["signature_info"]["issuer"] == "Test Studio"
    actions = [
        action
        for assertion in manifest["assertions"]
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    assert [(action["action"], action["digitalSourceType"]) for action in actions] == [
        ("c2pa.created", TRAINED)
    ]
    assert actions[0]["softwareAgent"] == {"name": "kirazuri-server", "version": "1.2"}
    assert "thumbnail" not in manifest
    assert "secret" not in json.dumps(told)


def outside_manifest(data: bytes, *, step: int) -> list[int]:
    """Offsets outside the manifest, the boxes that hold it and the `ftyp` box."""
    start = data.index(b"jumb") - 4
    stop = start + int.from_bytes(data[start : start + 4], "big")
    return [place for place in range(40, len(data), step) if not start - 64 <= place < stop + 8]


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_changed_byte_makes_the_signature_invalid(
    signer: ImageSigner, reader: C2paReader, image_format: ImageFormat
) -> None:
    signed = signer(unsigned_image(image_format), image_format, TRAINED)
    assert reader.read(signed, image_format).state == "valid"
    places = outside_manifest(signed, step=97)
    assert len(places) > 20
    for place in places:
        changed = bytearray(signed)
        changed[place] ^= 1
        assert reader.read(bytes(changed), image_format).state == "invalid", place
    claim = signed.index(b"digitalSourceType") + 3
    changed = bytearray(signed)
    changed[claim] ^= 1
    assert reader.read(bytes(changed), image_format).state == "invalid"
    assert reader.read(signed[:-20], image_format).state == "invalid"


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_changed_text_makes_the_signature_invalid(
    signer: ImageSigner, reader: C2paReader, image_format: ImageFormat
) -> None:
    """Prompts are outside the manifest, but the signature covers them."""
    signed = signer(unsigned_image(image_format), image_format, TRAINED)
    wide = "secret".encode("utf-16-be")
    text = b"secret" if b"secret" in signed else wide
    forged = signed.replace(text, text.swapcase())
    assert forged != signed
    assert reader.read(forged, image_format).state == "invalid"


@examples(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.data())
def test_damaged_files_are_not_valid_with_other_pixels(
    signer: ImageSigner, reader: C2paReader, data: st.DataObject
) -> None:
    image_format = data.draw(st.sampled_from(FORMATS))
    signed = signed_once(signer, image_format)
    broken = bytearray(signed)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(broken) - 1))
        piece = data.draw(st.binary(max_size=6))
        broken[place : place + data.draw(st.integers(0, 40))] = piece
    found = reader.read(bytes(broken), image_format)
    if found.state in ("valid", "untrusted"):
        assert numpy.array_equal(pixels_of(bytes(broken)), pixels_of(signed))


_SIGNED: dict[str, bytes] = {}


def signed_once(signer: ImageSigner, image_format: ImageFormat) -> bytes:
    return _SIGNED.setdefault(
        image_format, signer(unsigned_image(image_format), image_format, TRAINED)
    )


def test_the_manifest_of_a_file(signer: ImageSigner, reader: C2paReader) -> None:
    signed = signer(unsigned_image("webp"), "webp", COMPOSITE)
    assert reader.read(signed, "webp") == C2paManifest(
        state="valid",
        signer="Picture signer, Test Studio",
        generator="kirazuri-server",
        source_types=(COMPOSITE,),
    )
    assert reader.read(unsigned_image("webp"), "webp") == C2paManifest()
    assert reader.read(b"nothing of the kind", "webp") == C2paManifest()
    assert reader.read(unsigned_image("png") + b"c2pa", "jpeg").state == "none"


def test_an_untrusted_signer_differs_from_a_changed_file(signer: ImageSigner) -> None:
    nobody = C2paReader(Settings(_env_file=None))
    signed = signer(unsigned_image("png"), "png", TRAINED)
    found = nobody.read(signed, "png")
    assert (found.state, found.problems) == ("untrusted", ("signingCredential.untrusted",))
    assert found.signer == "Picture signer, Test Studio"
    assert nobody.read(signed[:-30] + b"x" + signed[-29:], "png").state == "invalid"


def test_images_stay_valid_after_the_certificate_is_renewed(
    signer: ImageSigner, authority: Path, tmp_path: Path
) -> None:
    signed = signer(unsigned_image("jpeg"), "jpeg", TRAINED)
    for name in ("ca.pem", "ca-key.pem"):
        shutil.copy(authority / name, tmp_path)
    make_certificate(tmp_path, organisation="Test Studio", days=9)
    assert (tmp_path / "key.pem").read_bytes() != (authority / "key.pem").read_bytes()
    renewed = C2paReader(signing_settings(tmp_path))
    assert renewed.read(signed, "jpeg").state == "valid"
    other = tmp_path / "other"
    make_certificate(other, organisation="Test Studio", days=9)
    assert C2paReader(signing_settings(other)).read(signed, "jpeg").state == "untrusted"
    both = signing_settings(other, c2pa_trust=authority / "ca.pem")
    assert C2paReader(both).read(signed, "jpeg").state == "valid"


def test_images_made_from_images_have_their_own_source_type() -> None:
    assert digital_source_type(make_request()) == TRAINED
    request = make_request(init_image=f"{'ab' * 20}.png", strength=0.5)
    assert digital_source_type(request) == COMPOSITE
    data = unsigned_image("png", init_image=request.init_image, strength=0.5)
    with Image.open(io.BytesIO(data)) as image:
        assert COMPOSITE in str(image.info["xmp"])


def test_threads_can_sign_concurrently(signer: ImageSigner, reader: C2paReader) -> None:
    with ThreadPoolExecutor(4) as pool:
        signed = list(
            pool.map(lambda _: signer(unsigned_image("jpeg"), "jpeg", TRAINED), range(24))
        )
        states = set(pool.map(lambda data: reader.read(data, "jpeg").state, signed))
    assert states == {"valid"}
    assert len(set(signed)) == 24  # no two signatures are the same


@pytest.fixture
def requested() -> Iterator[tuple[str, list[str]]]:
    """The address of a web server, and the paths that clients requested."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/manifest.c2pa", paths
        server.shutdown()
        thread.join()


def test_a_remote_manifest_is_not_fetched(
    reader: C2paReader, requested: tuple[str, list[str]]
) -> None:
    url, paths = requested
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
        '"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        f' xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{url}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", xmp=xmp.encode())
    with pytest.raises(c2pa.C2paError), c2pa.Context() as careless:
        c2pa.Reader("image/jpeg", io.BytesIO(buffer.getvalue()), context=careless)
    assert paths == ["/manifest.c2pa"]  # the library fetches it by default
    assert reader.read(buffer.getvalue(), "jpeg").state in ("none", "invalid")
    assert paths == ["/manifest.c2pa"]


def test_an_unsignable_image_is_an_error(signer: ImageSigner) -> None:
    with pytest.raises(SigningError, match="cannot be signed"):
        signer(b"no picture", "png", TRAINED)
