"""Downloads the files of a card with huggingface_hub and verifies their SHA-256.

An interrupted download continues, also in another process; huggingface_hub alone would start
again. A file gets its final name after its SHA-256 is verified.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, RepoFile, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
)
from huggingface_hub.utils.logging import set_verbosity_error

from model.card import Source
from model.errors import CheckpointError
from model.files.inspection import file_sha256
from model.files.layouts import TOKENIZER_FILES
from model.files.presence import WantedFile

_SHA256_CHARS = 64


def download(item: WantedFile, source: Source) -> list[Path]:
    """Download one file, or the files of a tokenizer, to their paths.

    Raises:
        CheckpointError: the source cannot be reached or does not have the file, the disk is full,
            or the SHA-256 differs from the card's.
    """
    try:
        if not item.is_folder:
            return [_download(source, source.path, item.path, item)]
        return [
            _download(source, name, item.path / PurePosixPath(name).name, item)
            for name in _tokenizer_files(source)
        ]
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.TransportError) as exc:
        reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise CheckpointError(f"{item.what}: {source.repo}/{source.path}: {reason}") from exc
    except OSError as exc:
        raise CheckpointError(f"{item.what}: cannot write {item.path}: {exc}") from exc


def _tokenizer_files(source: Source) -> Iterator[str]:
    tree = HfApi().list_repo_tree(source.repo, source.path, revision=source.revision)
    names = [entry.path for entry in tree if isinstance(entry, RepoFile)]
    found = [name for name in names if PurePosixPath(name).name in TOKENIZER_FILES]
    if not found:
        raise CheckpointError(f"{source.repo}/{source.path} has none of {TOKENIZER_FILES}")
    yield from found


def _download(source: Source, name: str, path: Path, item: WantedFile) -> Path:
    url = hf_hub_url(source.repo, name, revision=source.revision)
    about = get_hf_file_metadata(url)
    etag = about.etag or ""
    # Named after the content, so that a partial file of another version is not continued.
    partial = path.with_name(f".{path.name}.{etag[:16]}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as file:
        done = file.tell()
        _require_space(path.parent, (about.size or 0) - done)
        http_get(
            url,
            file,
            resume_size=done,
            headers=build_hf_headers(),
            expected_size=about.size,
            displayed_filename=path.name,
        )
    # The ETag of a large file is its SHA-256. The SHA-256 in the card takes precedence.
    expected = item.sha256 or (etag if len(etag) == _SHA256_CHARS else None)
    found = file_sha256(partial)
    if expected not in (None, found):
        partial.unlink()
        raise CheckpointError(
            f"{item.what}: the download of {path} has sha256 {found}, not {expected}; "
            "it was removed"
        )
    partial.replace(path)
    return path


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise CheckpointError(
            f"{folder} has {free / 1e9:.1f} GB free; {size / 1e9:.1f} GB are needed"
        )


def show_progress(*, is_shown: bool) -> None:
    """Turn the progress bars of downloads on or off; the hub's own log lines are left out."""
    set_verbosity_error()  # type: ignore[no-untyped-call]  # six lines for each file that cannot be reached
    (enable_progress_bars if is_shown else disable_progress_bars)()
