"""Signs image files with C2PA manifests ("content credentials"), and verifies manifests.

It never uses the network: no time stamps, no revocation lists, no remote manifests.
"""

import io
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import c2pa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from PIL import Image

from model.request import ImageFormat
from worker.images.metadata import TRAINED
from worker.images.signing import ImageSigner, SigningError
from worker.settings import Settings

logger = logging.getLogger(__name__)

ManifestState = Literal["none", "valid", "untrusted", "invalid"]

_MARKER = b"c2pa"
"""Every manifest contains this, even a broken one."""

_SOON = timedelta(days=30)
"""A worker warns at start if its certificate expires earlier."""

_MAX_PROBLEMS = 20
_MAX_SHOWN = 200

_SETTINGS: dict[str, Any] = {
    # A thumbnail would be twenty times the rest. Signatures are verified once, at start.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True)
class C2paManifest:
    """The newest manifest of a file.

    `valid`: the file is unchanged, and its signer is trusted. `untrusted`: it is unchanged, but the
    signer's identity is not verified. `invalid`: the file was changed, or the manifest is broken.
    """

    state: ManifestState = "none"
    signer: str | None = None
    generator: str | None = None
    source_types: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def open_signer(settings: Settings, *, service: str) -> ImageSigner:
    """The signer that the settings name, tested with a small image.

    `service` is the name and version that manifests contain.

    Raises:
        ValueError: the files cannot be read, do not belong together, or make no valid signature;
            the message names the setting.
    """
    if settings.c2pa_certificate is None or settings.c2pa_key is None:
        raise ValueError("KIRAZURI_C2PA_CERTIFICATE and KIRAZURI_C2PA_KEY belong together")
    chain = _certificates("KIRAZURI_C2PA_CERTIFICATE", settings.c2pa_certificate)
    signer = _signer(chain, _private_key(settings.c2pa_key, chain[0]), service=service)
    _check_signer(signer, C2paReader(settings))
    ends = chain[0].not_valid_after_utc
    is_soon = ends - datetime.now(UTC) < _SOON
    logger.log(logging.WARNING if is_soon else logging.INFO, "event=signing until=%s", ends)
    return signer


class C2paReader:
    """Reads manifests; trusts the certificates that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError, which names the setting, if a certificate file is unreadable."""
        anchors: list[x509.Certificate] = []
        if settings.c2pa_trust is not None:
            anchors = _certificates("KIRAZURI_C2PA_TRUST", settings.c2pa_trust)
        elif settings.c2pa_certificate is not None:
            anchors = _certificates("KIRAZURI_C2PA_CERTIFICATE", settings.c2pa_certificate)[-1:]
        trust = {"trust_anchors": _pem(anchors).decode()} if anchors else {}
        self._context = c2pa.Context.from_dict({**_SETTINGS, "trust": trust})

    def read(self, data: bytes, image_format: str) -> C2paManifest:
        """The manifest of a file of this format (png, jpeg, webp, avif), which may be hostile."""
        try:
            with c2pa.Reader(
                f"image/{image_format}", io.BytesIO(data), context=self._context
            ) as reader:
                return _read_report(json.loads(reader.json()))
        except c2pa.C2paError.ManifestNotFound:
            return C2paManifest()
        except (c2pa.C2paError, ValueError) as exc:
            # Without a manifest, the error says only that the library cannot read the file.
            if _MARKER not in data:
                return C2paManifest()
            return C2paManifest(state="invalid", problems=(_shortened(str(exc)),))


def _certificates(setting: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as exc:
        reason = f": {exc.strerror}" if isinstance(exc, OSError) else ""
        raise ValueError(f"{setting}: {path} cannot be read as PEM certificates{reason}") from exc


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
        info = c2pa.C2paSignerInfo(_algorithm(key), _pem(sent), private, None)
        signer, context = c2pa.Signer.from_info(info), c2pa.Context.from_dict(_SETTINGS)
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


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


_STATES: dict[Any, ManifestState] = {"Trusted": "valid", "Valid": "untrusted"}


def _read_report(store: dict[str, Any]) -> C2paManifest:
    """The newest manifest in the library's report on a file."""
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    results = store.get("validation_results", {}).get("activeManifest", {})
    signature = manifest.get("signature_info") or {}
    names = (signature.get("common_name"), signature.get("issuer"))
    generators = (agent.get("name") for agent in manifest.get("claim_generator_info") or ())
    failures = (failure.get("code") for failure in results.get("failure") or ())
    return C2paManifest(
        state=_STATES.get(store.get("validation_state"), "invalid"),
        signer=_shortened(", ".join(filter(None, names))) or None,
        generator=_shortened(", ".join(filter(None, generators))) or None,
        source_types=tuple(dict.fromkeys(_source_types(manifest)))[:_MAX_PROBLEMS],
        problems=tuple(_shortened(str(code)) for code in failures)[:_MAX_PROBLEMS],
    )


def _source_types(manifest: dict[str, Any]) -> list[str]:
    """The digital source types in the actions of a manifest."""
    return [
        _shortened(action["digitalSourceType"])
        for assertion in manifest.get("assertions") or ()
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in (assertion.get("data") or {}).get("actions") or ()
        if isinstance(action.get("digitalSourceType"), str)
    ]


def _shortened(text: str) -> str:
    return text[:_MAX_SHOWN]
