"""Tests which certificates and keys can sign images, and the errors for those that cannot."""

import datetime
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ExtendedKeyUsage, load_pem_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from cli import certificates as certificate
from cli.certificates import make_certificate
from tests.support.signed_images import signing_settings, unsigned_image
from worker.images.c2pa_manifest import C2paReader
from worker.images.c2pa_signer import open_signer
from worker.images.metadata import TRAINED

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
def test_other_kinds_of_keys_can_sign(authority: Path, tmp_path: Path, key: Key) -> None:
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
    sign = open_signer(signing_settings(tmp_path), service="k")
    found = C2paReader(signing_settings(tmp_path)).read(
        sign(unsigned_image("png"), "png", TRAINED), "png"
    )
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
    ("spoil", "reason"),
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
def test_unusable_files_are_an_error_at_start(
    authority: Path, tmp_path: Path, spoil: Any, reason: str
) -> None:
    folder = Path(shutil.copytree(authority, tmp_path / "own"))
    spoil(folder)
    with pytest.raises(ValueError, match=reason) as caught:
        open_signer(signing_settings(folder), service="k")
    assert "PRIVATE" not in str(caught.value)


def test_a_certificate_that_expires_soon_gives_a_warning(
    authority: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        make_certificate(tmp_path, organisation="Test Studio", days=90)
        open_signer(signing_settings(tmp_path), service="k")
        open_signer(signing_settings(authority), service="k")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert all("event=signing until=2" in record.message for record in caplog.records)


def test_unreadable_trust_anchors_are_an_error(authority: Path, tmp_path: Path) -> None:
    (tmp_path / "trust.pem").write_bytes((authority / "key.pem").read_bytes())
    with pytest.raises(ValueError, match=r"C2PA_TRUST: .* cannot be read") as caught:
        C2paReader(signing_settings(authority, c2pa_trust=tmp_path / "trust.pem"))
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(ValueError, match="No such file"):
        C2paReader(signing_settings(authority, c2pa_trust=tmp_path / "missing.pem"))


def test_certificate_and_key_belong_together(authority: Path) -> None:
    for missing in ("c2pa_certificate", "c2pa_key"):
        with pytest.raises(ValueError, match="belong together"):
            open_signer(signing_settings(authority, **{missing: None}), service="k")
