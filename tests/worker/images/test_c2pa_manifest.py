"""Signed pictures: checked with the C2PA library's own reader and with Pillow, then broken."""

import datetime
import io
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import c2pa
import numpy
import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ExtendedKeyUsage, load_pem_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from cli import certificates as certificate
from cli.certificates import make_certificate
from model.recipes.recipe import Recipe
from model.request import ImageFormat
from tests.support.requests import make_request
from worker.images.c2pa_manifest import C2paManifest, C2paReader, open_signer
from worker.images.encode import digital_source_type, encode_image
from worker.images.metadata import COMPOSITE, TRAINED, read_metadata
from worker.images.signing import ImageSigner, SigningError
from worker.settings import Settings

FORMATS: tuple[ImageFormat, ...] = ("png", "webp", "jpeg", "avif")
RECIPE = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32, service="k 0.1")
MOST_ADDED = 4096
"""Bytes that a manifest may add to a file."""


def signing(folder: Path, **changes: Any) -> Settings:
    files = {"c2pa_certificate": folder / "certificate.pem", "c2pa_key": folder / "key.pem"}
    return Settings(_env_file=None, **files | changes)


@pytest.fixture(scope="module")
def signer(authority: Path) -> ImageSigner:
    return open_signer(signing(authority), service="kirazuri-server 1.2")


@pytest.fixture(scope="module")
def reader(authority: Path) -> C2paReader:
    return C2paReader(signing(authority))


@cache
def plain(image_format: ImageFormat, **changes: Any) -> bytes:
    """A picture with a lot to tell, and pixels enough for a change to hit them."""
    pixels = numpy.random.default_rng(3).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
    request = make_request("a secret prompt", image_format=image_format, **changes)
    return encode_image(pixels, request=request, recipe=RECIPE, seed=5)


def pixels_of(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return numpy.asarray(image.convert("RGB"))


def report(data: bytes, image_format: str, anchors: str) -> dict[str, Any]:
    """What a reader of the library's own says who trusts these alone."""
    settings = {"verify": {"remote_manifest_fetch": False}, "trust": {"trust_anchors": anchors}}
    with (
        c2pa.Context.from_dict(settings) as context,
        c2pa.Reader(f"image/{image_format}", io.BytesIO(data), context=context) as found,
    ):
        told: dict[str, Any] = json.loads(found.json())
        return told


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_signed_picture_is_the_same_picture_and_says_how_it_was_made(
    signer: ImageSigner, authority: Path, tmp_path: Path, image_format: ImageFormat
) -> None:
    data = plain(image_format)
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
    """Places of the picture itself: not the manifest, nor the boxes that hold it, nor a `ftyp`."""
    start = data.index(b"jumb") - 4
    stop = start + int.from_bytes(data[start : start + 4], "big")
    return [place for place in range(40, len(data), step) if not start - 64 <= place < stop + 8]


@pytest.mark.parametrize("image_format", FORMATS)
def test_any_changed_byte_of_the_picture_shows(
    signer: ImageSigner, reader: C2paReader, image_format: ImageFormat
) -> None:
    signed = signer(plain(image_format), image_format, TRAINED)
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
def test_a_new_text_shows_too(
    signer: ImageSigner, reader: C2paReader, image_format: ImageFormat
) -> None:
    """Prompts are not in the manifest, but what stands beside it is signed with the picture."""
    signed = signer(plain(image_format), image_format, TRAINED)
    wide = "secret".encode("utf-16-be")
    text = b"secret" if b"secret" in signed else wide
    forged = signed.replace(text, text.swapcase())
    assert forged != signed
    assert reader.read(forged, image_format).state == "invalid"


@examples(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.data())
def test_hostile_files_are_answered_and_never_valid_with_other_pixels(
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
    return _SIGNED.setdefault(image_format, signer(plain(image_format), image_format, TRAINED))


def test_what_is_told_of_a_file(signer: ImageSigner, reader: C2paReader) -> None:
    signed = signer(plain("webp"), "webp", COMPOSITE)
    assert reader.read(signed, "webp") == C2paManifest(
        state="valid",
        signer="Picture signer, Test Studio",
        generator="kirazuri-server",
        source_types=(COMPOSITE,),
    )
    assert reader.read(plain("webp"), "webp") == C2paManifest()
    assert reader.read(b"nothing of the kind", "webp") == C2paManifest()
    assert reader.read(plain("png") + b"c2pa", "jpeg").state == "none"


def test_who_is_not_trusted_is_told_apart_from_who_lies(signer: ImageSigner) -> None:
    nobody = C2paReader(Settings(_env_file=None))
    signed = signer(plain("png"), "png", TRAINED)
    found = nobody.read(signed, "png")
    assert (found.state, found.problems) == ("untrusted", ("signingCredential.untrusted",))
    assert found.signer == "Picture signer, Test Studio"
    assert nobody.read(signed[:-30] + b"x" + signed[-29:], "png").state == "invalid"


def test_a_renewed_certificate_leaves_older_pictures_valid(
    signer: ImageSigner, authority: Path, tmp_path: Path
) -> None:
    signed = signer(plain("jpeg"), "jpeg", TRAINED)
    for name in ("ca.pem", "ca-key.pem"):
        shutil.copy(authority / name, tmp_path)
    make_certificate(tmp_path, organisation="Test Studio", days=9)
    assert (tmp_path / "key.pem").read_bytes() != (authority / "key.pem").read_bytes()
    renewed = C2paReader(signing(tmp_path))
    assert renewed.read(signed, "jpeg").state == "valid"
    other = tmp_path / "other"
    make_certificate(other, organisation="Test Studio", days=9)
    assert C2paReader(signing(other)).read(signed, "jpeg").state == "untrusted"
    both = signing(other, c2pa_trust=authority / "ca.pem")
    assert C2paReader(both).read(signed, "jpeg").state == "valid"


def test_pictures_from_pictures_are_named_so() -> None:
    assert digital_source_type(make_request()) == TRAINED
    request = make_request(init_image=f"{'ab' * 20}.png", strength=0.5)
    assert digital_source_type(request) == COMPOSITE
    data = plain("png", init_image=request.init_image, strength=0.5)
    with Image.open(io.BytesIO(data)) as image:
        assert COMPOSITE in str(image.info["xmp"])


def test_threads_may_sign_at_once(signer: ImageSigner, reader: C2paReader) -> None:
    with ThreadPoolExecutor(4) as pool:
        signed = list(pool.map(lambda _: signer(plain("jpeg"), "jpeg", TRAINED), range(24)))
        states = set(pool.map(lambda data: reader.read(data, "jpeg").state, signed))
    assert states == {"valid"}
    assert len(set(signed)) == 24  # no two signatures are the same


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A web server's address, and the paths that it was asked for."""
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


def test_a_manifest_elsewhere_is_not_fetched(
    reader: C2paReader, asked: tuple[str, list[str]]
) -> None:
    url, paths = asked
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
    assert paths == ["/manifest.c2pa"]  # the library would, left to itself
    assert reader.read(buffer.getvalue(), "jpeg").state in ("none", "invalid")
    assert paths == ["/manifest.c2pa"]


Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_other_kinds_of_keys_sign_too(authority: Path, tmp_path: Path, key: Key) -> None:
    issuer = load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    issuer_key = certificate._authority(authority, "")[1]
    made = (
        certificate._builder(
            certificate._name("Test Studio", "Another signer"),
            issuer.subject,
            key,  # type: ignore[arg-type]
            issuer_key,
            days=3,
            is_ca=False,
        )
        .add_extension(ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    (tmp_path / "certificate.pem").write_bytes(certificate._pem(made) + certificate._pem(issuer))
    certificate._write_key(tmp_path / "key.pem", key)  # type: ignore[arg-type]
    sign = open_signer(signing(tmp_path), service="k")
    found = C2paReader(signing(tmp_path)).read(sign(plain("png"), "png", TRAINED), "png")
    assert (found.state, found.signer) == ("valid", "Another signer, Test Studio")


def without_issuer(folder: Path) -> None:
    file = folder / "certificate.pem"
    file.write_text(file.read_text().partition("-----BEGIN CERTIFICATE-----\n")[2])
    end = "-----END CERTIFICATE-----\n"
    file.write_text("-----BEGIN CERTIFICATE-----\n" + file.read_text().partition(end)[0] + end)


def encrypted(folder: Path) -> None:
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked = key.private_bytes(*form, serialization.BestAvailableEncryption(b"x"))
    (folder / "key.pem").write_bytes(locked)


def for_servers(folder: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("kirazuri.example")
    chain = leaf.cert_chain_pems[0].bytes() + ca.cert_pem.bytes()
    (folder / "certificate.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())


def expired(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "_SKEW", datetime.timedelta(days=3))
        make_certificate(folder, organisation="x", days=-1)


def reversed_chain(folder: Path) -> None:
    first = (folder / "ca.pem").read_bytes()
    (folder / "certificate.pem").write_bytes(first + (folder / "certificate.pem").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "certificate.pem").unlink(), "C2PA_CERTIFICATE: .* cannot be read as PEM"),
        (lambda f: (f / "key.pem").unlink(), "C2PA_KEY: .* cannot be read as a PEM key"),
        (lambda f: (f / "certificate.pem").write_text("no"), "C2PA_CERTIFICATE: .* cannot be read"),
        (lambda f: (f / "certificate.pem").write_text(""), "C2PA_CERTIFICATE: .* cannot be read"),
        (lambda f: (f / "key.pem").write_text("no"), "C2PA_KEY: .* cannot be read"),
        (lambda f: shutil.copy(f / "ca-key.pem", f / "key.pem"), "C2PA_KEY is not the key of"),
        (expired, "not valid at time of signing"),
        (reversed_chain, "C2PA_KEY is not the key of the first"),
        (without_issuer, "append its issuer"),
        (encrypted, "without a password"),
        (for_servers, "cannot be used"),
    ],
)
def test_what_cannot_sign_is_told_before_anything_starts(
    authority: Path, tmp_path: Path, spoil: Any, told: str
) -> None:
    folder = Path(shutil.copytree(authority, tmp_path / "own"))
    spoil(folder)
    with pytest.raises(ValueError, match=told) as caught:
        open_signer(signing(folder), service="k")
    assert "PRIVATE" not in str(caught.value)


def test_a_certificate_that_ends_soon_is_warned_of(
    authority: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        make_certificate(tmp_path, organisation="Test Studio", days=90)
        open_signer(signing(tmp_path), service="k")
        open_signer(signing(authority), service="k")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert all("event=signing until=2" in record.message for record in caplog.records)


def test_who_is_trusted_must_be_readable(authority: Path, tmp_path: Path) -> None:
    (tmp_path / "trust.pem").write_bytes((authority / "key.pem").read_bytes())
    with pytest.raises(ValueError, match=r"C2PA_TRUST: .* cannot be read") as caught:
        C2paReader(signing(authority, c2pa_trust=tmp_path / "trust.pem"))
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(ValueError, match="No such file"):
        C2paReader(signing(authority, c2pa_trust=tmp_path / "missing.pem"))


def test_both_files_are_needed(authority: Path) -> None:
    for missing in ("c2pa_certificate", "c2pa_key"):
        with pytest.raises(ValueError, match="belong together"):
            open_signer(signing(authority, **{missing: None}), service="k")


def test_a_picture_that_cannot_be_signed_is_an_error(signer: ImageSigner) -> None:
    with pytest.raises(SigningError, match="cannot be signed"):
        signer(b"no picture", "png", TRAINED)
