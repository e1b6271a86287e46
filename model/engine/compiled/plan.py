"""What is compiled for which machine, where its code is kept, and what was found out about it."""

import fcntl
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from model.network.device import device_name
from model.network.transformer import forward

_SOURCES = (Path(forward.__file__).parent, Path(__file__).parent)
"""Folders whose code decides what is compiled."""


TEMPLATES = {"max_autotune_gemm": True, "max_autotune_gemm_backends": "ATEN,TRITON"}
"""Options of Inductor: each matrix product by the library or by Triton, with what is computed from
its result in the same kernel, whichever was faster when it was compiled."""


class BadVerdict(ValueError):
    """The file with the verdict cannot be read or says nothing."""


class Verdict(BaseModel):
    """What a trial found: whether compiled code is used, and in words why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """All that the process that compiles has to know. Its JSON is that process's argument.

    `config` is that of the library's transformer. `size` (height, width), in latents, is the
    card's default, for which the compiler chooses. `must_pay` says that compiled code is used only
    if it takes less processor time, `is_patient` that the engine's requests come first. `root` is
    the folder for everything that is compiled, `backend` PyTorch's name of the compiler. With
    `float8` there is code for float8 as well, with `templates` products may be Triton's.
    """

    config: dict[str, Any]
    context_rows: int
    size: tuple[int, int]
    device: str
    precision: str
    threads: int
    must_pay: bool
    is_patient: bool
    root: str
    backend: str
    float8: bool = False
    templates: bool = False

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan of another process."""
        fields = json.loads(text)
        return cls(**{**fields, "size": tuple(fields["size"])})

    @cached_property
    def folder(self) -> Path:
        """The folder of this machine, these versions and this model."""
        about = {
            **asdict(self),
            "root": None,
            "is_patient": None,
            "device_name": device_name(torch.device(self.device)),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "interpreter": sys.prefix,
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for source in sorted(path for folder in _SOURCES for path in folder.glob("*.py")):
            digest.update(source.read_bytes())
        return Path(self.root).absolute() / digest.hexdigest()[:16]

    def use_folder(self) -> None:
        """Let PyTorch's compiler keep its code there.

        Raises:
            OSError: the folder cannot be written.
        """
        code = self.folder / "code"
        code.mkdir(parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(code)  # noqa: TID251 - not one of our settings
        os.environ["TRITON_CACHE_DIR"] = str(code / "triton")  # noqa: TID251 - the same

    def read_verdict(self) -> Verdict | None:
        """What an earlier trial found; None before the first.

        Raises:
            BadVerdict: the file says nothing.
            OSError: the file cannot be read.
        """
        try:
            text = self._verdict_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        try:
            return Verdict.model_validate_json(text)
        except ValidationError as exc:
            reason = exc.errors()[0]["msg"]
            raise BadVerdict(f"{self._verdict_path} cannot be read ({reason}); delete it") from exc

    def write_verdict(self, verdict: Verdict) -> None:
        """Keep what was found."""
        draft = self._verdict_path.with_suffix(f".{os.getpid()}")
        draft.write_text(verdict.model_dump_json() + "\n", encoding="utf-8")
        draft.replace(self._verdict_path)

    def forget_verdict(self) -> None:
        """Let the next process try again."""
        self._verdict_path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for other processes with the same plan."""
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def _verdict_path(self) -> Path:
        return self.folder / "verdict.json"
