"""Verifies where an image comes from: embedded texts, signature, and the caller's own jobs.

Texts in a file are claims and never proof.
"""

import asyncio
import hashlib
import json
from typing import Any

from api.http.errors import UnreadableImage
from api.routes.images.verification import (
    CredentialClaim,
    Maker,
    RecipeClaim,
    Verdict,
    Verification,
)
from api.submit.images.decoding import ImageInfo, InputImageRefused, read_image_info
from worker.images.c2pa_manifest import C2paManifest, C2paReader
from worker.images.metadata import EXTENSIONS, GENERATED, find_recipe
from worker.job import Job
from worker.store.image_store import image_name

_CONCURRENT_FILES = 2
_MAX_MARK_CHARS = 200


class Verifier:
    """Reads image files, at most two at a time."""

    def __init__(self, reader: C2paReader) -> None:
        self._reader = reader
        self._slots = asyncio.Semaphore(_CONCURRENT_FILES)

    async def read(self, data: bytes) -> "Evidence":
        """Read texts and signature of a file.

        Raises:
            UnreadableImage: the data is not a single image within the limits.
        """
        async with self._slots:
            return await asyncio.to_thread(Evidence, data, self._reader)


class Evidence:
    """Texts and signature of one file; `name` is its name in the image store."""

    def __init__(self, data: bytes, reader: C2paReader) -> None:
        """Read the file; raises UnreadableImage as `Verifier.read`."""
        if not data:
            raise UnreadableImage("the body is empty")
        try:
            self._info = read_image_info(data)
        except InputImageRefused as exc:
            raise UnreadableImage(str(exc)) from exc
        self.name = image_name(data, EXTENSIONS[self._info.format])
        self._sha256 = hashlib.sha256(data).hexdigest()
        self._size = len(data)
        self._credentials = reader.read(data, self._info.format)
        self._recipe, self._recipe_error = _recipe(self._info)
        mark = self._info.texts.mark
        self._mark = _clean(mark[:_MAX_MARK_CHARS]) if mark else None

    def verify(self, maker: Job | None, *, kept_seconds: int) -> Verification:
        """Conclude what the file proves; `maker` is the caller's job with an image of this name."""
        made_by = _maker(maker, self._sha256)
        width, height = self._info.size
        manifest = self._credentials
        return Verification(
            verdict=self._verdict(made_by),
            summary=[*self._sentences(made_by, kept_seconds)],
            sha256=self._sha256,
            bytes=self._size,
            format=self._info.format,
            width=width,
            height=height,
            made_by=made_by,
            mark=self._mark,
            recipe=self._recipe,
            credentials=CredentialClaim(
                state=manifest.state,
                signer=manifest.signer,
                generator=manifest.generator,
                source_types=list(manifest.source_types),
                problems=list(manifest.problems),
            ),
        )

    def _verdict(self, made_by: Maker | None) -> Verdict:
        is_signed_as_generated = bool(GENERATED & set(self._credentials.source_types))
        if made_by:
            return "ours"
        if is_signed_as_generated and self._credentials.state == "valid":
            return "signed"
        if is_signed_as_generated or self._mark in GENERATED or self._recipe:
            return "claimed"
        return "unknown"

    def _sentences(self, made_by: Maker | None, kept_seconds: int) -> list[str]:
        sentences = [
            f"The file is, byte for byte, an image of your job {made_by.job_id}."
            if made_by
            else "None of your stored jobs made exactly this file. Results are stored for "
            f"{kept_seconds} seconds, and a copy that a program saved again has other bytes."
        ]
        sentences += _credential_sentences(self._credentials)
        if self._mark in GENERATED:
            sentences.append(
                "A mark says that a model made the image. Anybody can write or remove such a mark."
            )
        elif self._mark:
            sentences.append(
                "A mark names an origin, but does not say that a model made the image."
            )
        if self._recipe:
            sentences.append("The file has a recipe. Anybody can write or change a recipe.")
        elif self._recipe_error:
            sentences.append(f"The file has a recipe that cannot be read: {self._recipe_error}.")
        if self._verdict(made_by) == "unknown":
            sentences.append(
                "Nothing says that a model made the image. That proves nothing: recipes, marks and "
                "signatures get lost when a program saves an image again. Pixels are not analysed."
            )
        return sentences


def _credential_sentences(manifest: C2paManifest) -> list[str]:
    signer = manifest.signer or "an unnamed signer"
    sentences = {
        "none": [],
        "valid": [
            f"It was signed by {signer}, who is trusted here. Pixels and texts are unchanged since."
        ],
        "untrusted": [
            f"It was signed by {signer} and is unchanged since, but this signer is not trusted "
            "here: anybody can sign under any name."
        ],
        "invalid": [
            "It has an invalid C2PA manifest: the file was changed after it was signed, or the "
            "manifest is broken."
        ],
    }
    return sentences[manifest.state]


def _maker(job: Job | None, sha256: str) -> Maker | None:
    """The job, if the whole hash matches too: image names contain only a part of it."""
    images = job.images if job else ()
    image = next((image for image in images if image.sha256 == sha256), None)
    return Maker(job_id=job.id, image=image) if job and image else None


def _recipe(info: ImageInfo) -> tuple[RecipeClaim | None, str | None]:
    """The recipe in the file, or why it cannot be read; neither if the file has none."""
    try:
        found = find_recipe(info.texts)
        if found is None:
            return None, None
        imported = found.imported
        claim = RecipeClaim(
            kind=found.kind,
            request=_clean(imported.fields),
            notes=_clean(imported.notes),
            model=_clean(imported.model) or None,
            checkpoint=_clean(imported.checkpoint) or None,
        )
    except (ValueError, RecursionError) as exc:
        return None, _clean(str(exc).split("\n")[0][:_MAX_MARK_CHARS]).rstrip(".")
    return claim, None


def _clean(value: Any) -> Any:
    """The value without lone surrogates and NaN, which UTF-8 and JSON do not allow."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return json.loads(text, parse_constant=lambda _: None)
