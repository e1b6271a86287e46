"""Run a command that dies with the process that started it, whatever ended that one.

A script of its own, so that nothing has to run between fork and exec in a process with threads.
Linux knows how; elsewhere a killed parent leaves the command running.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def command(arguments: list[str]) -> list[str]:
    """The command line that runs `arguments` as long as this process lives."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *arguments]


def _main(parent: int, arguments: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the process that wanted this one is gone")
    os.execvp(arguments[0], arguments)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
