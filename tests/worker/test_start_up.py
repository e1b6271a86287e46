"""Start-up without garbage collections."""

import gc
import subprocess
import sys


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
