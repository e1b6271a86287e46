"""Lists a folder of LoRA files with their names, hashes and metadata. Does not need torch.

A name is looked up in the folder's listing and never turned into a path.
"""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from model.card import Card, shipped_folder
from model.errors import CheckpointError, LoraChanged, LoraMissing, LoraUnusable
from model.files.layouts import locate_parts
from model.files.lora.keys import describe_groups, group_keys
from model.files.lora.metadata import read_alias, read_base, read_trigger_words, short_line
from model.files.lora.plan import LoraContents, LoraPlan, plan_changes
from model.files.lora.statements import ADAPTER_CONFIG
from model.files.lora.targets import LoraPart, read_targets, stem_table
from model.files.safetensors_header import SUFFIX, first_keys, read_header
from model.files.stored_weights.finite import first_not_finite
from model.request import RequestWarning

logger = logging.getLogger(__name__)

MAX_NAME = 200
"""Maximum length of a name: the file's path in the folder without its suffix."""

_MAX_HEADER_BYTES = 16_000_000
_MAX_CONFIG_BYTES = 1_000_000
_ADAPTER_MODEL = "adapter_model"
_SEPARATORS = frozenset(":<>\\|?*")
"""Characters that separate names in prompts and on the command line, or parts of paths."""

_Identity = tuple[int, ...]
CheckLora = Callable[[LoraContents], LoraPlan]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """One usable file as its header describes it.

    `base` is the checkpoint that it was trained on, `architecture` the family of models, `alias`
    the name that its training gave it; each is the metadata's value or None. `trigger_words` are
    the trigger phrase, or the most frequent tags of the training. `left_out` are the keys that are
    not used, if misfits are left out.
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
    left_out: tuple[str, ...] = ()
    depth_warning: str | None = None
    alias: str | None = None


class LoraFolder:
    """The LoRAs of a folder; the folder None has none. Thread-safe.

    `check` plans the changes of a file's contents, and raises LoraUnusable for a file to refuse.
    The default checks what does not depend on the checkpoint. With `reads_numbers`, `sha256` also
    refuses a file with numbers that are not finite; a worker finds them when it merges.

    `refresh` reads the folder again; all other methods use its latest result. Headers and hashes
    are read once for every version of a file. Links that lead out of the folder are not followed.
    """

    def __init__(
        self, folder: Path | None, check: CheckLora | None = None, *, reads_numbers: bool = False
    ) -> None:
        self._folder = folder.resolve() if folder else None
        self._reads_numbers = reads_numbers
        self._check = check or check_without_checkpoint
        self._lock = Lock()
        self._hashing = Lock()
        self._seen: dict[Path, tuple[_Identity, LoraFile | str]] = {}
        self._hashes: dict[Path, tuple[_Identity, str]] = {}
        self._files: dict[str, LoraFile] = {}
        self._refused: dict[str, str] = {}
        if folder is not None and not folder.is_dir():
            logger.warning("the LoRA folder %s does not exist", folder)

    def refresh(self) -> None:
        """List the folder and read the headers of new and changed files."""
        with self._lock:
            seen: dict[Path, tuple[_Identity, LoraFile | str]] = {}
            files: dict[str, LoraFile] = {}
            refused: dict[str, str] = {}
            for path, name, identity in self._list_files():
                known = self._seen.get(path)
                if known is None or known[0] != identity:
                    known = identity, self._read(path, name)
                seen[path] = known
                found = known[1]
                if isinstance(found, str):
                    refused[short_line(name)] = found
                elif name in files:
                    refused[short_line(path.name)] = "another file has this name"
                else:
                    files[name] = found
            self._seen = seen
            self._files = files
            self._refused = refused

    @property
    def files(self) -> Mapping[str, LoraFile]:
        """The usable files by name, sorted."""
        return self._files

    @property
    def refused(self) -> Mapping[str, str]:
        """The names of refused files and the reasons."""
        return self._refused

    def known_sha256(self, name: str) -> str | None:
        """The file's SHA-256 if it is already known for the latest listing."""
        file = self._files.get(name)
        known = self._hashes.get(file.path) if file else None
        seen = self._seen.get(file.path) if file else None
        return known[1] if known and seen and known[0] == seen[0] else None

    def sha256(self, name: str) -> str:
        """The file's SHA-256. Reads the file if the hash of its present version is not known.

        Waits for the hash of another file only if it has to read this one.

        If peft's configuration is used, it is hashed after the file, as one text.

        Raises:
            LoraMissing: the file does not exist.
            LoraChanged: the file is being written to.
            LoraUnusable: a number is not finite.
        """
        file = self._files.get(name)
        if file is None:
            raise LoraMissing(f"there is no LoRA {name}")
        try:
            if known := self._known_sha256(file.path):
                return known
            with self._hashing:
                if known := self._known_sha256(file.path):
                    return known
                before = _identity(file.path)
                digest = _hash(file.path)
                wrong = self._not_finite(file.path)
                if _identity(file.path) != before:
                    raise LoraChanged(f"the file of LoRA {name} is being written to")
                if wrong:
                    self._refuse(file, before, wrong)
                self._hashes[file.path] = before, digest
                return digest
        except OSError as exc:
            raise LoraMissing(f"the file of LoRA {name} cannot be read") from exc

    def _known_sha256(self, path: Path) -> str | None:
        identity, known = _identity(path), self._hashes.get(path)
        return known[1] if known and known[0] == identity else None

    def _not_finite(self, path: Path) -> str | None:
        tensors = _read_contents(path)[0].tensors.values() if self._reads_numbers else ()
        found = first_not_finite(tensors)
        return f"{found.key} has numbers that are not finite" if found else None

    def _refuse(self, file: LoraFile, identity: _Identity, reason: str) -> None:
        """Refuse this version of a file from the next refresh on."""
        logger.warning("lora=%r event=refused reason=%s", file.name, reason)
        with self._lock:
            self._seen[file.path] = identity, reason
        raise LoraUnusable(f"LoRA {file.name} is refused: {reason}")

    def _list_files(self) -> list[tuple[Path, str, _Identity]]:
        """Every regular file in the folder with the right suffix, its name, sorted by name."""
        if self._folder is None:
            return []
        root = self._folder
        found = []
        for parent, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file_name in names:
                path = Path(parent, file_name)
                if path.suffix.lower() != SUFFIX:
                    continue
                try:
                    identity = _identity(path)
                except OSError:
                    continue  # deleted since, a broken link, or not a regular file
                if not path.resolve().is_relative_to(root):
                    continue
                name = path.relative_to(root).as_posix()[: -len(SUFFIX)]
                found.append((path, name, identity))
        # A suffix in lower case goes before one in upper case, if both have one name.
        return sorted(found, key=lambda entry: (entry[1], entry[0].suffix != SUFFIX))

    def _read(self, path: Path, name: str) -> LoraFile | str:
        """The file, or the reason why it is refused."""
        try:
            return _described(name, path, self._check)
        except (LoraUnusable, CheckpointError) as exc:
            reason = str(exc).replace(str(path), path.name)
            logger.warning("lora=%r event=refused reason=%s", name, reason)
            return reason


def check_without_checkpoint(contents: LoraContents) -> LoraPlan:
    """Check a file's keys, types, scales and metadata, but not whether they fit a checkpoint."""
    return plan_changes(contents, None)


def check_for_checkpoint(
    card: Card, checkpoint_dir: Path | None, *, skips_misfits: bool
) -> CheckLora:
    """A check of files against a stored checkpoint; None means the folder in the package.

    Raises:
        CheckpointError: the checkpoint is missing or of another layout.
    """
    parts = locate_parts(card.files, checkpoint_dir or shipped_folder(card))
    try:
        targets = read_targets(parts, latent_channels=card.transformer.latent_channels)
    except KeyError as exc:
        raise CheckpointError(f"{parts.parts['transformer'].path} has unknown {exc}") from exc
    return partial(plan_changes, table=stem_table(targets), skips_misfits=skips_misfits)


def _identity(path: Path) -> _Identity:
    """Changes if the file or its configuration is written to or replaced.

    Raises:
        OSError: it is not a regular file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")
    found: _Identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    config = _config_path(path)
    is_shared = _has_shared_config(path)
    if config is not None or is_shared:
        status = path.with_name(ADAPTER_CONFIG).stat()
        found += (status.st_ino, status.st_size, status.st_mtime_ns, int(is_shared))
    return found


def _config_path(path: Path) -> Path | None:
    """Peft's configuration of this file: next to it, and of no other file."""
    config = path.with_name(ADAPTER_CONFIG)
    if not config.is_file() or config.resolve().parent != path.resolve().parent:
        return None
    is_own = path.stem.lower() == _ADAPTER_MODEL or len(_weight_stems(path.parent)) == 1
    return config if is_own else None


def _has_shared_config(path: Path) -> bool:
    """Whether peft's configuration lies next to this and other files, and may be of any."""
    if not path.with_name(ADAPTER_CONFIG).is_file():
        return False
    stems = _weight_stems(path.parent)
    return len(stems) > 1 and _ADAPTER_MODEL not in stems


def _weight_stems(folder: Path) -> list[str]:
    return [path.stem.lower() for path in folder.iterdir() if path.suffix.lower() == SUFFIX]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        config = _config_path(path)
        if config is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.file_digest(file, "sha256")
    digest.update(config.read_bytes())
    return digest.hexdigest()


def _described(name: str, path: Path, check: CheckLora) -> LoraFile:
    _check_name(name)
    contents, size = _read_contents(path)
    plan = check(contents)
    left_out = frozenset(plan.left_out)
    used = {key: tensor for key, tensor in contents.tensors.items() if key not in left_out}
    summary = describe_groups(group_keys(used)[0], used)
    return LoraFile(
        name=name,
        path=path,
        size=size,
        method=summary.method,
        rank=summary.rank,
        parts=summary.parts,
        base=read_base(contents.metadata),
        architecture=short_line(contents.metadata.get("modelspec.architecture", "")) or None,
        trigger_words=read_trigger_words(contents.metadata),
        left_out=plan.left_out,
        depth_warning=plan.depth_warning,
        alias=read_alias(contents.metadata),
    )


def _check_name(name: str) -> None:
    has_loose_edge = any(
        segment != segment.strip(". ") or not segment for segment in name.split("/")
    )
    if len(name) > MAX_NAME or has_loose_edge or not name.isprintable() or _SEPARATORS & set(name):
        raise LoraUnusable(
            f"its name may have at most {MAX_NAME} printable characters, without "
            f"{' '.join(sorted(_SEPARATORS))} and without a dot or space at an end"
        )


def read_lora(path: Path) -> LoraContents:
    """Read the header of a LoRA file, and peft's configuration if it belongs to the file.

    Raises:
        CheckpointError: the header is unreadable or too large.
        LoraUnusable: the configuration is unreadable or too large.
    """
    return _read_contents(path)[0]


def _read_contents(path: Path) -> tuple[LoraContents, int]:
    header = read_header(path, max_header_bytes=_MAX_HEADER_BYTES)
    config = _config_path(path)
    settings = _read_config(config) if config else None
    shared = _read_config(path.with_name(ADAPTER_CONFIG)) if _has_shared_config(path) else None
    return LoraContents(header.tensors, header.metadata, settings, shared), header.size


def _read_config(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
        value = json.loads(text) if len(text) <= _MAX_CONFIG_BYTES else None
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise LoraUnusable(f"has {ADAPTER_CONFIG} that cannot be read")
    return value


# -- warnings ---------------------------------------------------------------------------------


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


def file_warnings(file: LoraFile, card: Card) -> list[RequestWarning]:
    """All warnings for requests with this LoRA."""
    found = [base_warning(file, card)]
    if file.depth_warning:
        found.append(RequestWarning("lora_other_depth", f"{file.name}: {file.depth_warning}"))
    if file.left_out:
        detail = f"{file.name} is used without what does not fit: {first_keys(file.left_out)}"
        found.append(RequestWarning("lora_partial", detail))
    return [warning for warning in found if warning]
