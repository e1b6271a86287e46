"""A process of the service that starts again after it has ended, and the clock that it sees."""

import os
import shutil
import signal
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cli.service import die_with_parent
from tests.support.paths import ROOT


@dataclass
class Member:
    """A process that is started again after it has ended, unless it is kept down."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    is_kept_down: bool = False
    restarts: int = -1
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def restart_if_ended(self) -> bool:
        """Start it unless it runs or is kept down; whether it was started."""
        if self.is_running or self.is_kept_down:
            return False
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                die_with_parent.command(self.command),
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        self.restarts += 1
        return True

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end of the process."""
        self.send(number)
        if self.process is not None:
            self.process.wait()

    def new_lines(self, since: int) -> str:
        """What it has logged after its first `since` bytes."""
        return self.log.read_bytes()[since:].decode(errors="replace") if self.log.exists() else ""


_SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *shift;

__attribute__((constructor)) static void open_shift(void) {
  int file = open(getenv("CLOCK_SHIFT"), O_RDONLY);
  shift = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t id, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, id, now);
  if (!failed && id == CLOCK_REALTIME) now->tv_sec += *shift;
  return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  int failed = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now) *now = precise.tv_sec;
  return precise.tv_sec;
}
"""


class Clock:
    """The clock of one process, which can jump while the process runs."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.shift(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(file)}

    def shift(self, seconds: int) -> None:
        """Make the clock this much ahead of the machine's."""
        with os.fdopen(os.open(self._file, os.O_WRONLY | os.O_CREAT), "wb") as file:
            file.write(struct.pack("l", seconds))


def build_clock_library(folder: Path) -> Path | None:
    """A library that shifts the clock of a process; None without a C compiler for it."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, check=False)
    return library if done.returncode == 0 else None
