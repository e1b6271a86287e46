"""Several test processes share the files, and none shares a file with another."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_port, free_socket
from tests.support.scheduling import FIRST, group_of, place_of


def test_a_file_runs_in_one_process(tmp_path: Path) -> None:
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(
            "import pytest\n@pytest.mark.parametrize('n', range(8))\ndef test_it(n): pass\n"
        )
    options = ["-p", "tests.support.scheduling", "-p", "no:cacheprovider", "-n", "2", "-v"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", tmp_path, *options, "."],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    ran = re.findall(r"\[(gw\d)\] .* PASSED (test_\w+)\.py", run.stdout)
    assert len(ran) == 16, run.stdout + run.stderr
    assert len(set(ran)) == 2


def test_garbage_collections_do_not_visit_the_tests(request: pytest.FixtureRequest) -> None:
    assert gc.isenabled()
    assert gc.is_tracked(request.node)
    assert all(visited is not request.node for visited in gc.get_objects())


def test_a_test_that_cannot_be_interrupted_ends_the_run(tmp_path: Path) -> None:
    """As one that waits in a library that is not Python."""
    (tmp_path / "test_it.py").write_text(
        "import signal, time\n"
        "def test_deaf():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-n", "1"]
    command += ["-o", "timeout=1", "-o", "faulthandler_timeout=2", "test_it.py"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "crashed while running 'test_it.py::test_deaf'" in run.stdout
    assert "in test_deaf" in run.stderr, "its stack is shown"


def test_files_that_use_the_service_run_together() -> None:
    files = {path.name: f"tests/e2e/{path.name}" for path in (ROOT / "tests/e2e").glob("test_*.py")}
    apart = {name for name, file in files.items() if group_of(file) != "e2e"}
    assert {"test_openai.py", "test_service.py"} <= files.keys() - apart
    assert apart == {"test_secrets.py", "test_traces.py"}, "they start services of their own"
    assert group_of("tests/cli/test_main.py") == "tests/cli/test_main.py"


def test_what_takes_longest_runs_first() -> None:
    assert [name for name in FIRST if not (ROOT / name).exists()] == []
    files = ["tests/e2e/test_mcp.py", "tests/cli/commands/test_up.py"]
    files += ["tests/model/engine/test_edits.py", "tests/cli/test_main.py"]
    files += ["tests/model/test_tags.py"]
    unordered = files[::-1]
    assert sorted(unordered, key=place_of) == files
    assert place_of("tests/test_audit.py") == len(FIRST)


def test_a_port_for_a_later_program_is_given_to_nobody_else() -> None:
    with free_socket() as listener:
        any_port = listener.getsockname()[1]
    chosen = [free_port() for _ in range(20)]
    assert len(set(chosen)) == 20
    assert max(chosen) < 32_768 <= any_port, "the system gives out ports of its own range"
