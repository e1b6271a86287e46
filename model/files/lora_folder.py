"""Lists a folder of LoRA files with their names, hashes and metadata. Does not need torch.

A name is looked up in the folder's listing and never turned into a path.
"""

import hashlib
import json
import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from threading import Lock

from model.card import Card
from model.errors import CheckpointError, LoraChanged, LoraMissing, LoraUnusable
from model.files.lora_keys import LoraPart, summarise
from model.files.safetensors_header import SUFFIX, Header, read_header
from model.request import RequestWarning

logger = logging.getLogger(__name__)

MAX_NAME = 200
"""Maximum length of a name: the file's path in the folder without its suffix."""

_MAX_HEADER_BYTES = 16_000_000
_MAX_TEXT = 200
_MAX_TRIGGER_WORDS = 10
# Excludes the characters that separate names in lists, in image metadata and on the command line.
_SEGMENT = r"(?![. ])[\w .+\-()\[\]&!@=~#']+(?<![. ])"
_NAME = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_BASES = ("ss_sd_model_name", "base_model", "modelspec.base_model")

_Identity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """One usable file as its header describes it.

    `base` is the checkpoint that it was trained on, `architecture` the family of models; each is
    the metadata's value or None. `trigger_words` are the trigger phrase, or the most frequent
    tags of the training.
    """

    name: str
    path: Path
    size: int
    method: str
    rank: int | None
    parts: tuple[LoraPart, ...]
    base: str | None
    architecture: str | None
    trigger_words: tuple[str, ...]


class LoraFolder:
    """The LoRAs of a folder; the folder None has none. Thread-safe.

    `refresh` reads the folder again; all other methods use its latest result. Headers and hashes
    are read once for every version of a file. Links that lead out of the folder are not followed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder.resolve() if folder else None
        self._lock = Lock()
        self._hashing = Lock()
        self._seen: dict[Path, tuple[_Identity, LoraFile | str]] = {}
        self._hashes: dict[Path, tuple[_Identity, str]] = {}
        self._files: dict[str, LoraFile] = {}
        if folder is not None and not folder.is_dir():
            logger.warning("the LoRA folder %s does not exist", folder)

    def refresh(self) -> None:
        """List the folder and read the headers of new and changed files."""
        with self._lock:
            seen = {}
            for path, name, identity in self._list_files():
                known = self._seen.get(path)
                if known is None or known[0] != identity:
                    known = identity, _read(path, name)
                seen[path] = known
            self._seen = seen
            files = [found for _, found in seen.values() if isinstance(found, LoraFile)]
            self._files = {file.name: file for file in sorted(files, key=lambda f: f.name)}

    @property
    def files(self) -> Mapping[str, LoraFile]:
        """The usable files by name, sorted."""
        return self._files

    def known_sha256(self, name: str) -> str | None:
        """The file's SHA-256 if it is already known for the latest listing."""
        file = self._files.get(name)
        known = self._hashes.get(file.path) if file else None
        seen = self._seen.get(file.path) if file else None
        return known[1] if known and seen and known[0] == seen[0] else None

    def sha256(self, name: str) -> str:
        """The file's SHA-256. Reads the file if the hash of its present version is not known.

        Raises:
            LoraMissing: the file does not exist.
            LoraChanged: the file is being written to.
        """
        file = self._files.get(name)
        if file is None:
            raise LoraMissing(f"there is no LoRA {name}")
        try:
            with self._hashing:
                before = _identity(file.path)
                known = self._hashes.get(file.path)
                if known and known[0] == before:
                    return known[1]
                with file.path.open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
                if _identity(file.path) != before:
                    raise LoraChanged(f"the file of LoRA {name} is being written to")
                self._hashes[file.path] = before, digest
                return digest
        except OSError as exc:
            raise LoraMissing(f"the file of LoRA {name} cannot be read") from exc

    def _list_files(self) -> list[tuple[Path, str, _Identity]]:
        """Every regular file in the folder with the right suffix, and its name."""
        if self._folder is None:
            return []
        root = self._folder
        found = []
        for parent, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file_name in names:
                path = Path(parent, file_name)
                if path.suffix != SUFFIX:
                    continue
                try:
                    identity = _identity(path)
                except OSError:
                    continue  # deleted since, a broken link, or not a regular file
                if not path.resolve().is_relative_to(root):
                    continue
                name = path.relative_to(root).as_posix().removesuffix(SUFFIX)
                found.append((path, name, identity))
        return found


def _read(path: Path, name: str) -> LoraFile | str:
    """The file, or the reason why it is refused."""
    try:
        return _described(name, path)
    except (LoraUnusable, CheckpointError) as exc:
        logger.warning("lora=%r event=refused reason=%s", name, exc)
        return str(exc)


def _identity(path: Path) -> _Identity:
    """Changes if the file is written to or replaced. OSError if it is not a regular file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _described(name: str, path: Path) -> LoraFile:
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise LoraUnusable(
            f"its name may have at most {MAX_NAME} letters, digits, spaces and any of "
            ". + - _ ( ) [ ] & ! @ = ~ # '"
        )
    header = read_lora_header(path)
    summary = summarise(header.tensors)
    return LoraFile(
        name=name,
        path=path,
        size=header.size,
        method=summary.method,
        rank=summary.rank,
        parts=summary.parts,
        base=_base(header.metadata),
        architecture=_clean(header.metadata.get("modelspec.architecture", "")) or None,
        trigger_words=_trigger_words(header.metadata),
    )


def read_lora_header(path: Path) -> Header:
    """Read the header of a LoRA file. CheckpointError if it is unreadable or too large."""
    return read_header(path, max_header_bytes=_MAX_HEADER_BYTES)


# -- metadata, which trainers write freely --------------------------------------------------------


def _base(metadata: Mapping[str, str]) -> str | None:
    """The checkpoint's name, without the trainer's folders and the file's suffix."""
    for key in _BASES:
        text = _clean(PureWindowsPath(metadata.get(key, "")).name.removesuffix(SUFFIX))
        if text and text != "None":
            return text
    return None


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    phrase = _clean(metadata.get("modelspec.trigger_phrase", ""))
    if phrase:
        return (phrase,)
    counts: Counter[str] = Counter()
    try:
        for tags in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({str(tag): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return ()
    common = (_clean(tag) for tag, _ in counts.most_common(_MAX_TRIGGER_WORDS))
    return tuple(tag for tag in common if tag)


def _clean(text: str) -> str:
    """Reduce text to one short printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:_MAX_TEXT]


def base_warning(file: LoraFile, card: Card) -> RequestWarning | None:
    """The warning for a LoRA that was, or may have been, trained on another checkpoint."""
    made_on = (file.base or "").lower()
    if any(word in made_on for word in card.lora_bases):
        return None
    advice = next((known.detail for known in card.limitations if known.code == "base_loras"), "")
    if file.base:
        detail = f"{file.name} was trained on {file.base}, not on {card.title}."
        return RequestWarning("lora_other_base", f"{detail} {advice}".strip())
    if advice:
        detail = f"{file.name} does not say what it was trained on."
        return RequestWarning("lora_base_unknown", f"{detail} {advice}")
    return None
