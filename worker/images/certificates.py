"""Reads the certificates that the settings name."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from worker.settings import Settings


def signing_chain(settings: Settings) -> list[x509.Certificate]:
    """The certificate to sign with and those of its issuers; none without this setting.

    Raises:
        ValueError: the file cannot be read; the message names the setting.
    """
    return _certificates("KIRAZURI_C2PA_CERTIFICATE", settings.c2pa_certificate)


def trust_anchors(settings: Settings) -> str:
    """The trusted certificates as PEM: of their own file, or the last of the signing chain.

    Raises:
        ValueError: the file cannot be read; the message names the setting.
    """
    own = _certificates("KIRAZURI_C2PA_TRUST", settings.c2pa_trust)
    return pem(own or signing_chain(settings)[-1:]).decode()


def pem(certificates: list[x509.Certificate]) -> bytes:
    """The certificates as the text of a file."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _certificates(setting: str, path: Path | None) -> list[x509.Certificate]:
    if path is None:
        return []
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as exc:
        reason = f": {exc.strerror}" if isinstance(exc, OSError) else ""
        raise ValueError(f"{setting}: {path} cannot be read as PEM certificates{reason}") from exc
