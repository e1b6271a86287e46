"""Signs image files with C2PA manifests ("content credentials"), without the network."""

import io
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from PIL import Image

from model.request import ImageFormat
from worker.images.c2pa_manifest import C2PA_SETTINGS, C2paReader
from worker.images.certificates import pem, signing_chain
from worker.images.metadata import TRAINED
from worker.images.signing import ImageSigner, SigningError
from worker.settings import Settings

logger = logging.getLogger(__name__)

_SOON = timedelta(days=30)
"""A worker warns at start if its certificate expires earlier."""

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def open_signer(settings: Settings, *, service: str) -> ImageSigner:
    """The signer that the settings name, tested with a small image.

    `service` is the name and version that manifests contain.

    Raises:
        ValueError: the files cannot be read, do not belong together, or make no valid signature;
            the message names the setting.
    """
    if settings.c2pa_certificate is None or settings.c2pa_key is None:
        raise ValueError("KIRAZURI_C2PA_CERTIFICATE and KIRAZURI_C2PA_KEY belong together")
    chain = signing_chain(settings)
    signer = _signer(chain, _private_key(settings.c2pa_key, chain[0]), service=service)
    _check_signer(signer, C2paReader(settings))
    ends = chain[0].not_valid_after_utc
    is_soon = ends - datetime.now(UTC) < _SOON
    logger.log(logging.WARNING if is_soon else logging.INFO, "event=signing until=%s", ends)
    return signer


def _private_key(path: Path, certificate: x509.Certificate) -> Any:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        # The reason is left out: it might show the content of the file.
        raise ValueError(
            f"KIRAZURI_C2PA_KEY: {path} cannot be read as a PEM key without a password"
        ) from None
    if key.public_key() != certificate.public_key():
        raise ValueError(
            "KIRAZURI_C2PA_KEY is not the key of the first certificate in KIRAZURI_C2PA_CERTIFICATE"
        )
    return key


def _signer(chain: list[x509.Certificate], key: Any, *, service: str) -> ImageSigner:
    sent = [one for one in chain if one is chain[0] or one.issuer != one.subject]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        info = c2pa.C2paSignerInfo(_algorithm(key), pem(sent), private, None)
        signer, context = c2pa.Signer.from_info(info), c2pa.Context.from_dict(C2PA_SETTINGS)
    except c2pa.C2paError as exc:
        raise ValueError(f"KIRAZURI_C2PA_CERTIFICATE cannot be used: {exc}") from exc

    def sign(data: bytes, image_format: ImageFormat, source_type: str) -> bytes:
        signed = io.BytesIO()
        try:
            with c2pa.Builder(_manifest(service, source_type), context=context) as builder:
                builder.sign(signer, f"image/{image_format}", io.BytesIO(data), signed)
        except c2pa.C2paError as exc:
            raise SigningError(f"the image cannot be signed: {exc}") from exc
        return signed.getvalue()

    return sign


def _algorithm(key: Any) -> str:
    """The C2PA algorithm of a key."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise ValueError("KIRAZURI_C2PA_KEY is none of P-256, P-384, P-521, Ed25519 and RSA")


def _manifest(service: str, source_type: str) -> dict[str, Any]:
    """A manifest that says how the image was made, and by which software; no prompt, no time."""
    name, _, version = service.partition(" ")
    agent = {"name": name, **({"version": version} if version else {})}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": source_type,
        "softwareAgent": agent,
    }
    return {
        "claim_generator_info": [agent],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _check_signer(signer: ImageSigner, reader: C2paReader) -> None:
    """Raise ValueError unless the signature of a small image is valid."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    try:
        found = reader.read(signer(buffer.getvalue(), "png", TRAINED), "png")
    except SigningError as exc:
        raise ValueError(f"KIRAZURI_C2PA_CERTIFICATE cannot be used: {exc}") from exc
    if found.state == "untrusted":
        raise ValueError(
            "KIRAZURI_C2PA_CERTIFICATE does not lead to a trusted certificate: append its "
            "issuer's, or name that one in KIRAZURI_C2PA_TRUST"
        )
    if found.state != "valid":
        raise ValueError(
            f"signatures of KIRAZURI_C2PA_KEY are not valid: {'; '.join(found.problems)}"
        )
