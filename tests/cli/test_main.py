"""Help, version and error messages of the command line."""

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from cli.main import COMMANDS as LINES
from cli.main import app, load_command
from tests.support.cli import kirazuri_inline

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "",
    "up",
    "generate",
    "replay",
    "verify",
    "certificate",
    "version",
    "checkpoint",
    "checkpoint inspect",
    "checkpoint fetch",
    "checkpoint convert",
    "keys",
    "keys add",
    "keys list",
    "keys revoke",
)


WITHOUT_EXAMPLES = ("", "version", "checkpoint", "keys")


def test_every_command_has_help_with_examples() -> None:
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command.split(), "--help"])
        assert shown.exit_code == 0, command
        assert "Usage:" in shown.output, command
        assert ("Examples:" in shown.output) == (command not in WITHOUT_EXAMPLES), command


def test_the_list_of_commands_says_what_each_says() -> None:
    modules = {path.stem for path in (ROOT / "cli/commands").glob("*.py")}
    assert modules - {"__init__", "generate_options", "service_option"} == set(LINES)
    for name, line in LINES.items():
        assert load_command(name).help.startswith(line.removesuffix(".")), name
        assert line in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output, name


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cli.main import app\n"
        "assert 'checkpoint' in CliRunner().invoke(app, ['--help']).output\n"
        "print(*{'pydantic', 'redis', 'PIL', 'cli.commands.up'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_version() -> None:
    for way in ("version", "--version"):
        shown = CliRunner().invoke(app, [way])
        assert (shown.exit_code, shown.output.split()[:1]) == (0, ["kirazuri-server"]), way


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KIRAZURI_MAX_QUEUE=0")
    run = kirazuri_inline("up", folder=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: KIRAZURI_MAX_QUEUE: ")


def test_an_unknown_card_is_named(tmp_path: Path) -> None:
    run = kirazuri_inline("up", "--card", "none", "--port", "0", folder=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: no card named 'none'")


def test_a_service_that_is_not_running(tmp_path: Path) -> None:
    run = kirazuri_inline("generate", "1girl", "--url", "http://127.0.0.1:9", folder=tmp_path)
    assert run.returncode == 1
    assert "start the service with `kirazuri up`" in run.stderr


def test_the_ending_of_the_file_and_the_format_agree(tmp_path: Path) -> None:
    asked = ("generate", "1girl", "--url", "http://127.0.0.1:9", "--format")
    run = kirazuri_inline(*asked, "webp", "--out", "a.png", folder=tmp_path)
    assert (run.returncode, "--out a.png and --format webp contradict" in run.stderr) == (1, True)
    run = kirazuri_inline(*asked, "jpeg", "--out", "a.jpg", folder=tmp_path)
    assert "nothing answers" in run.stderr
