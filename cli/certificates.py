"""Makes a certificate authority and a certificate for C2PA signatures.

The operator's own service and everyone who has `ca.pem` can check these signatures.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
_SKEW = datetime.timedelta(hours=1)
"""Tolerated difference between clocks."""

PrivateKey = ec.EllipticCurvePrivateKey


def make_certificate(folder: Path, *, organisation: str, days: int) -> None:
    """Write `certificate.pem`, with its issuer, and `key.pem`.

    The authority, `ca.pem` and `ca-key.pem`, is reused if the folder has one, and made otherwise.

    Raises:
        ValueError: the files of the authority are invalid.
        OSError: the folder cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority, authority_key = _authority(folder, organisation)
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    subject = _name(organisation, "Picture signer")
    builder = _builder(subject, authority.subject, key, authority_key, days=days, is_ca=False)
    certificate = builder.add_extension(usage, critical=False).sign(authority_key, hashes.SHA256())
    _write_key(folder / "key.pem", key)
    (folder / "certificate.pem").write_bytes(_pem(certificate) + _pem(authority))


def _authority(folder: Path, organisation: str) -> tuple[x509.Certificate, PrivateKey]:
    certificate_file, key_file = folder / "ca.pem", folder / "ca-key.pem"
    if certificate_file.exists():
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise ValueError(
                f"{certificate_file} or {key_file} is damaged or is no unencrypted PEM file; move "
                "both away to make a new authority"
            ) from exc
        if not isinstance(key, PrivateKey):
            raise ValueError(f"{key_file} is not an elliptic curve key")
        return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(organisation, "Picture authority")
    builder = _builder(name, name, key, key, days=CA_DAYS, is_ca=True)
    certificate = builder.sign(key, hashes.SHA256())
    _write_key(key_file, key)
    certificate_file.write_bytes(_pem(certificate))
    return certificate, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    issuer_key: PrivateKey,
    *,
    days: int,
    is_ca: bool,
) -> x509.CertificateBuilder:
    """The parts that both certificates share. C2PA requires all of these extensions."""
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(own, critical=False)
        .add_extension(issuers, critical=False)
    )


def _name(organisation: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _write_key(path: Path, key: PrivateKey) -> None:
    """Write a key; only its owner may read the file, from the start."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
