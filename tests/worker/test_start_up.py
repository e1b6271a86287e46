"""Start-up without garbage collections, which Ctrl-C ends quietly."""

import gc
import subprocess
import sys
from importlib.util import find_spec

import pytest


def test_what_starts_up_is_never_collected() -> None:
    # In a process of its own: the objects of the tests must stay collectable.
    code = (
        "import gc; from worker.start_up import long_lived\n"
        "with long_lived():\n"
        "    assert not gc.isenabled()\n"
        "    kept = [[] for _ in range(1000)]\n"
        "assert gc.isenabled()\n"
        "assert gc.get_freeze_count() > 1000 > len(gc.get_objects())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert gc.isenabled()


@pytest.mark.parametrize(
    "started",
    [
        "import api.__main__",
        pytest.param(
            "import worker.__main__",
            marks=pytest.mark.skipif(find_spec("torch") is None, reason="a worker needs torch"),
        ),
        "import cli.main, typer; group = typer.main.get_command(cli.main.app)\n"
        "collections.clear(); group.commands['up']",
    ],
)
def test_no_collection_looks_through_the_libraries_while_they_are_imported(started: str) -> None:
    code = (
        "import gc\ncollections = []\n"
        "gc.callbacks.append(lambda phase, about: collections.append(about['generation']))\n"
        f"{started}\n"
        "assert not any(collections), collections"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


INTERRUPTED = """
import os, runpy, signal, sys

def press(frame, event, _):
    place = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
    if event == "call" and place == sys.argv[2]:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(press)
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""
"""Runs a module and presses Ctrl-C as a function is called, or a library imported."""


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("api", "fastapi.<module>"),
        ("worker", "redis.<module>"),
        ("api.webhooks.sender", "redis.<module>"),
        ("cli.main", "typer.<module>"),
        ("cli.demo", "typer.<module>"),
        ("cli.main", "typer.main.get_install_completion_arguments"),
    ],
)
def test_an_interrupt_during_a_start_ends_a_program_without_a_word(module: str, place: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, place], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
