"""Help, version, exit codes and error messages of the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import COMMANDS, app
from tests.support.cli import clean_environment, kirazuri_inline
from tests.support.paths import ROOT

GROUP: Any = typer.main.get_command(app)
WITHOUT_EXAMPLES = ("", "version", "checkpoint", "keys", "bench")


def names(command: Any, path: str = "") -> list[str]:
    """Every command as it is typed, groups included."""
    found = [path]
    if path != "bench":  # its commands pass --help on
        for name, inner in getattr(command, "commands", {}).items():
            found += names(inner, f"{path} {name}".strip())
    return found


def test_every_command_has_help_with_examples() -> None:
    for command in names(GROUP):
        shown = CliRunner().invoke(app, [*command.split(), "--help"])
        assert shown.exit_code == 0, command
        assert "Usage:" in shown.output, command
        assert ("Examples:" in shown.output) == (command not in WITHOUT_EXAMPLES), command


def test_every_command_can_print_json() -> None:
    """Except groups, `up`, which prints no result, and benchmarks, which write JSON to a file."""
    without = [
        name
        for name in names(GROUP)
        if "--json" not in CliRunner().invoke(app, [*name.split(), "--help"]).output
    ]
    assert without == ["", "up", "checkpoint", "keys", "bench"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_commands_say(name: str) -> None:
    """The list is written twice, so that no command is imported to list it."""
    assert GROUP.commands[name].help.startswith(COMMANDS[name].help.removesuffix("."))


def _modules_after(*arguments: str, **variables: str) -> set[str]:
    code = "import sys; sys.argv[0] = 'kirazuri'\nfrom cli.main import app\n"
    code += "try: app()\nfinally: print(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT,
        env=clean_environment(**variables), check=True,
    )  # fmt: skip
    return set(run.stderr.split())


def test_help_and_completion_load_no_command() -> None:
    """What takes long to import: settings, the HTTP client, checkpoints."""
    slow = {"pydantic", "httpx2", "redis", "PIL", "model", "worker.settings"}
    assert not slow & _modules_after("--help")
    completing = {
        "_KIRAZURI_COMPLETE": "complete_bash", "COMP_WORDS": "kirazuri ca", "COMP_CWORD": "1",
    }  # fmt: skip
    assert not slow & _modules_after(**completing)


def _completions(words: str) -> list[str]:
    variables = {
        "_KIRAZURI_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    shown = CliRunner().invoke(app, [], env=variables, prog_name="kirazuri")
    return shown.output.split()


def test_commands_and_options_are_completed() -> None:
    assert _completions("kirazuri ca") == ["cancel", "capabilities"]
    assert _completions("kirazuri jobs --st") == ["--status"]
    assert _completions("kirazuri checkpoint ins") == ["inspect"]


def test_a_misspelt_command_is_suggested() -> None:
    run = CliRunner().invoke(app, ["generat"])
    assert (run.exit_code, "Did you mean 'generate'" in run.output) == (2, True)


def test_version() -> None:
    for way in ("version", "--version"):
        shown = CliRunner().invoke(app, [way])
        assert (shown.exit_code, shown.output.split()[:1]) == (0, ["kirazuri-server"]), way


def test_version_as_json() -> None:
    shown = json.loads(CliRunner().invoke(app, ["version", "--json"]).stdout)
    assert shown["name"] == "kirazuri-server"


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KIRAZURI_MAX_QUEUE=0")
    run = kirazuri_inline("up", folder=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: KIRAZURI_MAX_QUEUE is '0', but it must be ")


def test_an_unknown_card_is_named(tmp_path: Path) -> None:
    run = kirazuri_inline("up", "--card", "none", "--port", "0", folder=tmp_path)
    assert run.returncode == 1
    assert re.match(r"fault   card +no card named 'none'; the cards are ", run.stderr)


CLIENT_COMMANDS = (
    "generate 1girl", "jobs", "jobs --watch", "show J", "show J --watch", "cancel J", "links J",
    "download J", "replay J", "verify -", "capabilities", "models", "loras", "tags b", "queue",
)  # fmt: skip


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_a_service_that_is_not_running(tmp_path: Path, command: str) -> None:
    arguments = (*command.split(), "--url", "http://127.0.0.1:9")
    for more in ((), ("--json",)):
        run = kirazuri_inline(*arguments, *more, folder=tmp_path)
        assert (run.returncode, run.stdout) == (5, "")
        assert "start the service with `kirazuri up`" in run.stderr
    assert list(tmp_path.iterdir()) == []


LONG = "a" * 300


@pytest.mark.parametrize(
    "command",
    [
        f"checkpoint inspect {LONG}",
        f"checkpoint fetch kirazuri-v1 --checkpoint-dir {LONG}",
        f"checkpoint convert {LONG} b.safetensors",
        f"doctor --no-hash --card {LONG}.toml",
        f"up --port 0 --checkpoint-dir {LONG}",
        f"up --port 0 --data {LONG}",
        f"keys list --data {LONG}",
        f"certificate {LONG}",
        f"generate --from {LONG}",
        f"generate 1girl --mask {LONG}",
        f"verify {LONG}",
    ],
)
def test_a_path_that_cannot_be_looked_at_is_told(tmp_path: Path, command: str) -> None:
    """As it is with a folder that the user may not look into; but root may look into all."""
    run = kirazuri_inline(*command.split(), folder=tmp_path)
    assert run.returncode in (1, 2)
    assert "File name too long" in run.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_ending_of_the_file_and_the_format_agree(tmp_path: Path) -> None:
    asked = ("generate", "1girl", "--url", "http://127.0.0.1:9", "--format")
    run = kirazuri_inline(*asked, "webp", "--out", "a.png", folder=tmp_path)
    assert (run.returncode, "--out a.png and --format webp contradict" in run.stderr) == (2, True)
    run = kirazuri_inline(*asked, "jpeg", "--out", "a.jpg", folder=tmp_path)
    assert "nothing answers" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("generate", "give a prompt"),
        ("generate 1girl --prompts a.txt", "--prompts and a prompt exclude each other"),
        ("generate --prompts a.txt --sheet a.png", "--prompts and --sheet exclude each other"),
        ("generate --prompts a.txt --no-watch", "--prompts and --no-watch exclude each other"),
        ("generate --prompts gone.txt", "cannot read gone.txt"),
        ("generate --prompts latin.txt", "latin.txt is not UTF-8 text"),
        ("generate --prompts object.txt", "line 2 of the prompts: it begins like an object"),
        ("generate 1girl --out taken.png/a.png", "taken.png is not a folder"),
        ("generate 1girl --out -", "--out -: images do not go to stdout"),
        ("generate 1girl --no-watch --out a.png", "--no-watch saves nothing"),
        ("generate 1girl --out taken.png", "taken.png exists; --force overwrites it"),
        ("generate 1girl --out new.png --sheet taken.png", "taken.png exists; --force"),
        ("generate 1girl --sheet a.txt", "--sheet a.txt: the file name must end in"),
        ("generate 1girl --lora a:b", "'b' is not a weight"),
        ("generate 1girl --init-image gone.png", "no such file"),
        ("generate 1girl --cfg-scale nan", "cfg_scale: nan and infinity"),
        ("generate 1girl --lora a:inf --dry-run", "loras: nan and infinity"),
        ("generate 1girl\udcff", "prompt: it is not UTF-8 text"),
        ("jobs --url ftp://a", "--url: 'ftp://a' is not an address"),
        ("verify gone.png", "cannot read gone.png"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    tmp_path: Path, arguments: str, named: str
) -> None:
    (tmp_path / "taken.png").write_bytes(b"precious")
    (tmp_path / "latin.txt").write_bytes("blåhår".encode("latin-1"))
    (tmp_path / "object.txt").write_bytes(b"\xef\xbb\xbf1girl\r\n{'prompt': '1girl'}\r\n")
    run = kirazuri_inline(*arguments.split(), folder=tmp_path, KIRAZURI_URL="http://127.0.0.1:9")
    assert run.returncode == 2
    assert named in run.stderr
    assert (tmp_path / "taken.png").read_bytes() == b"precious"
