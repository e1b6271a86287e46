"""Tables, and texts that must not command the terminal."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from cli.output import printable, table_lines
from tests.support.cli import clean_environment, kirazuri_inline
from tests.support.paths import ROOT

ROWS = [["01J", "running 40%", "青い髪, 1girl"], ["02K", "failed", "a\x1b[2Jb\nc"]]


def test_a_pipe_gets_whole_rows_in_columns() -> None:
    lines = table_lines(("JOB", "STATUS", "PROMPT"), ROWS, width=None)
    assert lines == [
        "JOB  STATUS       PROMPT",
        "01J  running 40%  青い髪, 1girl",
        "02K  failed       a\ufffd[2Jb c",
    ]


def test_a_terminal_gets_no_line_that_is_too_wide() -> None:
    lines = table_lines(("JOB", "STATUS", "PROMPT"), ROWS, width=22)
    assert [cell_len(line) <= 22 for line in lines] == [True] * 3
    assert lines[1].endswith("…")
    assert not lines[0].endswith("…") or cell_len("JOB  STATUS       PROMPT") > 22


def test_control_characters_are_replaced() -> None:
    assert printable("a\tb\r\nc\x07\x9b") == "a b  c\ufffd\ufffd"


def _to(stdout: Any, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """A command in a process of its own, with this stdout."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env=clean_environment(PYTHONPATH=str(ROOT), **variables),
        stdout=stdout, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_behind_stdout_is_told() -> None:
    with Path("/dev/full").open("wb") as full:
        run = _to(full, "version")
    told = b"error: the output cannot be written: No space left on device\n"
    assert (run.returncode, run.stderr) == (1, told)


def test_a_path_that_stdout_cannot_write_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "ふ\udcff"
    folder.mkdir()
    strict = {"PYTHONIOENCODING": "latin-1:strict"}
    listed = ("checkpoint", "inspect", str(folder), "--no-hash")
    run = _to(subprocess.PIPE, *listed, **strict)
    assert b"\\u3075" in run.stdout
    assert b"Traceback" not in run.stderr
    certificate = ("certificate", str(folder), "--json")
    run = _to(subprocess.PIPE, *certificate, **strict)
    assert json.loads(run.stdout)["KIRAZURI_C2PA_KEY"] == f"{folder}/key.pem"


def test_settings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"KIRAZURI_URL=http://\xe4:1\n")
    run = kirazuri_inline("jobs", folder=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: the file .env in this folder cannot be read: ")
    assert kirazuri_inline("version", folder=tmp_path).returncode == 0
