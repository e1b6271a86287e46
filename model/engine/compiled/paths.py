"""The paths by which a picture can be computed: eager, and compiled once its code is there.

Either can compute in float8 what a request allows to change a little.

Code is compiled in a process of its own and then loaded by a thread of this one, so that no request
waits for it. Whatever fails there, pictures are computed by the eager path.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import IO

import torch

from model.engine.compiled.loading import trace, without_compiling
from model.engine.compiled.plan import Plan
from model.engine.protocol import COMPILED, COMPILED_FLOAT8, EAGER, FLOAT8, CompiledState
from model.network.transformer.blocks import Blocks
from model.network.transformer.forward import Transformer
from model.resolved_request import ResolvedRequest

logger = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""A patient trial begins, and goes on, when there was no request for so long."""

TRIAL_SECONDS = 3600.0
"""A trial that has run for longer is ended."""

_POLL_SECONDS = 0.2

Takes = Callable[[ResolvedRequest], bool]
"""Whether a request may be computed in float8."""


class Unusable(RuntimeError):
    """Compiled code is not used; the message says why."""


class Paths:
    """Eager code alone, exact and, for what `takes_float8`, in float8."""

    def __init__(
        self, transformer: Transformer | None = None, takes_float8: Takes | None = None
    ) -> None:
        self.state = CompiledState()
        self._transformer = transformer
        self._takes_float8 = takes_float8
        self._blocks = {EAGER: Blocks(), FLOAT8: Blocks()}

    def start(self, is_busy: Callable[[], bool]) -> None:
        """Begin to look for code, or to make it, beside the engine, which may have requests."""

    def wait(self) -> None:
        """Wait until the compiled path can be chosen, or will never be."""

    def choose(self, request: ResolvedRequest) -> str:
        """The path of a picture from its first step to its last.

        A request that must repeat its bytes is exact and eager.
        """
        if request.deterministic or self._takes_float8 is None or not self._takes_float8(request):
            return EAGER
        return FLOAT8

    def use(self, path: str) -> None:
        """Compute the next forward by this path."""
        if self._transformer is not None:
            is_float8 = path in (FLOAT8, COMPILED_FLOAT8)
            self._transformer.use(self._blocks[path], float8=is_float8)

    def distrust(self, path: str, failure: Exception) -> None:
        """Never choose a path again that failed: what is compiled, or float8."""
        if path == FLOAT8 and self._takes_float8 is not None:
            self._takes_float8 = None
            logger.warning(
                "float8 is not used any more, pictures are exact: a forward failed: %s",
                type(failure).__name__,
            )


class CompiledPaths(Paths):
    """All paths of a transformer. `spare` is another one on the same weights."""

    def __init__(
        self,
        transformer: Transformer,
        spare: Transformer,
        plan: Plan,
        takes_float8: Takes | None = None,
    ) -> None:
        super().__init__(transformer, takes_float8)
        self._spare = spare
        self._plan = plan
        self._is_over = threading.Event()

    def start(self, is_busy: Callable[[], bool]) -> None:
        """Begin to look for code, or to make it, in a thread of its own."""
        name = "compiled-code"
        threading.Thread(target=self._run, args=(is_busy,), name=name, daemon=True).start()

    def wait(self) -> None:
        """Wait until the compiled path can be chosen, or will never be."""
        self._is_over.wait()

    def choose(self, request: ResolvedRequest) -> str:
        """Compiled, if its code is there; never for a request that must repeat its bytes.

        On a GPU float8 is chosen only then: eager, its rounding takes longer than it saves.
        """
        path = super().choose(request)
        if self.state.name != "ready":
            return path if torch.device(self._plan.device).type == "cpu" else EAGER
        if request.deterministic:
            return EAGER
        return COMPILED if path == EAGER else COMPILED_FLOAT8

    def distrust(self, path: str, failure: Exception) -> None:
        """Say once that compiled code failed, and choose eager from now on; or exact for float8."""
        if path not in (COMPILED, COMPILED_FLOAT8):
            super().distrust(path, failure)
        elif self.state.name == "ready":
            self._fail(f"a forward failed: {type(failure).__name__}")

    def _run(self, is_busy: Callable[[], bool]) -> None:
        try:
            if fault := missing_tool(torch.device(self._plan.device)):
                self._set("eager", fault)
                return
            self._plan.use_folder()
            self._load_code(is_busy)
        except Unusable as exc:
            self._set("eager", str(exc))
        except Exception as exc:  # noqa: BLE001 - the border of all that is optional
            self._fail(f"{type(exc).__name__}: {_first_line(exc)}")
        finally:
            self._is_over.set()

    def _load_code(self, is_busy: Callable[[], bool]) -> None:
        verdict = self._plan.read_verdict()
        if verdict is None:
            self._set("compiling", "")
            Trial(self._plan, is_busy).run()
            verdict = self._plan.read_verdict()
        if verdict is None:
            raise RuntimeError("the compiling process left no verdict")
        if not verdict.use:
            raise Unusable(f"compiled code is not used: {verdict.reason}")
        try:
            with torch.inference_mode(), without_compiling():
                blocks = trace(self._spare, self._spare.config, self._plan)
        except Exception:
            self._plan.forget_verdict()  # the code is damaged: it must be made again
            raise
        self._spare.forget()
        self._blocks |= {COMPILED: blocks, COMPILED_FLOAT8: blocks}
        self._set("ready", verdict.reason)

    def _fail(self, detail: str) -> None:
        self.state.failures += 1
        self.state.name, self.state.detail = "failed", detail
        logger.warning("compiled code is not used, pictures are computed eagerly: %s", detail)

    def _set(self, name: str, detail: str) -> None:
        self.state.name, self.state.detail = name, detail
        logger.info("compiled code: %s %s", name, detail)


class Trial:
    """The process that compiles. That of a patient plan runs only while the engine is idle."""

    def __init__(self, plan: Plan, is_busy: Callable[[], bool]) -> None:
        self._plan = plan
        self._is_busy = is_busy
        self._busy_at = time.monotonic()

    def run(self) -> None:
        """Start it and wait for its end.

        Raises:
            RuntimeError: it did not end well, or not in time.
        """
        while not self._may_run():
            time.sleep(_POLL_SECONDS)
        with (
            (self._plan.folder / "trial.log").open("w+b") as log,
            subprocess.Popen(  # noqa: S603 - this program
                trial_command(self._plan),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            ) as process,
        ):
            try:
                self._watch(process)
            finally:
                _kill(process)
            if process.returncode:
                raise RuntimeError(f"the compiling process {_ending(process.returncode, log)}")

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        is_running, left = True, TRIAL_SECONDS
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            left -= _POLL_SECONDS if is_running else 0
            if left < 0:
                raise RuntimeError(f"compiling took longer than {TRIAL_SECONDS:g} seconds")
            if self._may_run() != is_running:
                is_running = not is_running
                _signal(process, signal.SIGCONT if is_running else signal.SIGSTOP)

    def _may_run(self) -> bool:
        if self._is_busy():
            self._busy_at = time.monotonic()
        return not self._plan.is_patient or time.monotonic() - self._busy_at >= IDLE_SECONDS


def trial_command(plan: Plan) -> list[str]:
    """The command line of the process that compiles."""
    return [sys.executable, "-m", "model.engine.compiled.trial", plan.to_json()]


def missing_tool(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device on this machine; None if all tools are there."""
    if device.type == "cuda" and find_spec("triton") is None:
        return "there is no Triton; pictures are computed eagerly"
    names = ("CC", ("cc", "gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    stated = os.environ.get(names[0])  # noqa: TID251 - PyTorch's and Triton's setting
    if not any(shutil.which(tool) for tool in ([stated] if stated else names[1])):
        return f"there is no compiler ({' or '.join(names[1])}); pictures are computed eagerly"
    return None


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the process and those that it has started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        _signal(process, signal.SIGKILL)


def _ending(code: int, log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return f"{how}: {lines[-1].strip()}" if lines else how


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [""])[0][:300]
