"""The certificate authority of `kirazuri certificate`."""

import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from cli.main import app


def certificates(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())


def test_a_second_certificate_has_the_same_authority(tmp_path: Path) -> None:
    folder = tmp_path / "signing"
    command = ["certificate", str(folder), "--organisation", "Studio", "--days", "20"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert f"KIRAZURI_C2PA_CERTIFICATE={folder / 'certificate.pem'}\n" in ran.stdout
    assert f"KIRAZURI_C2PA_KEY={folder / 'key.pem'}\n" in ran.stdout
    for name in ("key.pem", "ca-key.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    leaf, issuer = certificates(folder / "certificate.pem")
    assert [issuer] == certificates(folder / "ca.pem")
    leaf.verify_directly_issued_by(issuer)
    names = leaf.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    assert [name.value for name in names] == ["Studio"]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 20

    assert CliRunner().invoke(app, command).exit_code == 0
    shown = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert shown["KIRAZURI_C2PA_KEY"] == str(folder / "key.pem")
    renewed, same = certificates(folder / "certificate.pem")
    assert same == issuer
    assert renewed.serial_number != leaf.serial_number
    renewed.verify_directly_issued_by(issuer)


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem"])
def test_a_broken_authority_is_reported(tmp_path: Path, name: str) -> None:
    assert CliRunner().invoke(app, ["certificate", str(tmp_path)]).exit_code == 0
    (tmp_path / name).write_text("no")
    ran = CliRunner().invoke(app, ["certificate", str(tmp_path)])
    assert ran.exit_code == 1
    assert not isinstance(ran.exception, ValueError)
    assert f"{tmp_path / 'ca.pem'} or {tmp_path / 'ca-key.pem'} is damaged" in ran.stderr


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "signing"):
        ran = CliRunner().invoke(app, ["certificate", str(folder)])
        assert (ran.exit_code, ran.stderr.split(": ")[:2]) == (1, ["error", str(folder)])
