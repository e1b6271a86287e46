"""Runs a command that is killed when its parent process ends, even if the parent is killed.

This is a separate script, so that no code runs between fork and exec in a process with threads.
It works on Linux only; on other systems the command outlives a killed parent.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def command(arguments: list[str]) -> list[str]:
    """The command line that runs `arguments` until this process ends."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *arguments]


def _main(parent: int, arguments: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent process has ended")
    os.execvp(arguments[0], arguments)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
