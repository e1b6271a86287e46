"""What is known of an image: its own words, whether its signature holds, and what that proves.

Knows neither queue nor HTTP; nothing of what a file says is believed.
"""

import asyncio
import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.errors import UnreadableImage
from api.submit.images.decoding import ImageInfo, InputImageRefused, read_image_info
from model.request import ImageFormat
from worker.images.c2pa_manifest import C2paManifest, C2paReader, ManifestState
from worker.images.metadata import EXTENSIONS, GENERATED, find_recipe
from worker.job import Job, StoredImage
from worker.store.image_store import image_name

Verdict = Literal["ours", "signed", "claimed", "unknown"]

_AT_ONCE = 2
"""Files that are worked through at one time."""

_LONGEST_MARK = 200


class _ResponseModel(BaseModel):
    model_config = ConfigDict(frozen=True)


class Maker(_ResponseModel):
    """The caller's job that made an image."""

    job_id: str = Field(description="Of the caller's latest job with this image.")
    image: StoredImage = Field(description="As the job lists it.")


class RecipeClaim(_ResponseModel):
    """How the file says that it was made; anybody can write that."""

    kind: Literal["kirazuri", "infotext", "comfyui"] = Field(
        description="In whose words: this service's own, those of A1111 and many others, or a "
        "graph of ComfyUI."
    )
    request: dict[str, Any] = Field(
        description="The same in fields of POST /generate, as far as there is something like it."
    )
    notes: list[str] = Field(description="What could not be carried over.")
    model: str | None = Field(description="What the file calls the checkpoint.")
    checkpoint: str | None = Field(description="Its SHA-256, or the first digits.")


class CredentialClaim(_ResponseModel):
    """The C2PA manifest of a file, and whether it holds."""

    state: ManifestState = Field(
        description="`none`: there is none. `valid`: the file is as it was signed, by somebody who "
        "is trusted here. `untrusted`: as it was signed, but the signer is unknown here. "
        "`invalid`: it was changed since, or its manifest is broken."
    )
    signer: str | None = Field(description="The name in the certificate; proven where `valid`.")
    generator: str | None = Field(description="The program that made the manifest.")
    source_types: list[str] = Field(description="How it came to be, in IPTC's words.")
    problems: list[str] = Field(description="What does not hold, by C2PA's codes.")


class Verification(_ResponseModel):
    """What is known of an image, and what cannot be."""

    verdict: Verdict = Field(
        description="Whether a model made it. `ours`: these are the bytes of an image of one of "
        "the caller's jobs. `signed`: somebody trusted signed that. `claimed`: the file says so, "
        "which anybody can write. `unknown`: nothing says so, which proves nothing."
    )
    summary: list[str] = Field(description="The same and the reasons, in sentences.")
    sha256: str = Field(description="Of the file.")
    bytes: int
    format: ImageFormat
    width: int
    height: int
    made_by: Maker | None = Field(description="null where no kept job of the caller's made it.")
    mark: str | None = Field(description="IPTC's digital source type in the file's XMP.")
    recipe: RecipeClaim | None = Field(description="null where none is found, or none readable.")
    credentials: CredentialClaim


class Verifier:
    """Works through the files that clients send, a few at a time."""

    def __init__(self, reader: C2paReader) -> None:
        self._reader = reader
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def read(self, data: bytes) -> "Evidence":
        """All that a file tells by itself.

        Raises:
            UnreadableImage: no single picture within the limits.
        """
        async with self._places:
            return await asyncio.to_thread(Evidence, data, self._reader)


class Evidence:
    """What one file says, and what of it holds; `name` is its name in the image store."""

    def __init__(self, data: bytes, reader: C2paReader) -> None:
        """Read the file; UnreadableImage as `Verifier.read`."""
        if not data:
            raise UnreadableImage("the body is empty")
        try:
            self._told: ImageInfo = read_image_info(data)
        except InputImageRefused as exc:
            raise UnreadableImage(str(exc)) from exc
        self.name = image_name(data, EXTENSIONS[self._told.format])
        self._sha256 = hashlib.sha256(data).hexdigest()
        self._size = len(data)
        self._credentials = reader.read(data, self._told.format)
        self._recipe, self._recipe_fault = _recipe(self._told)
        mark = self._told.texts.mark
        self._mark = _clean(mark[:_LONGEST_MARK]) if mark else None

    def verify(self, maker: Job | None, *, kept_seconds: int) -> Verification:
        """Say what all of it proves; `maker` is the caller's job with an image of these bytes."""
        made_by = _maker(maker, self._sha256)
        width, height = self._told.size
        found = self._credentials
        return Verification(
            verdict=self._verdict(made_by),
            summary=[*self._sentences(made_by, kept_seconds)],
            sha256=self._sha256,
            bytes=self._size,
            format=self._told.format,
            width=width,
            height=height,
            made_by=made_by,
            mark=self._mark,
            recipe=self._recipe,
            credentials=CredentialClaim(
                state=found.state,
                signer=found.signer,
                generator=found.generator,
                source_types=list(found.source_types),
                problems=list(found.problems),
            ),
        )

    def _verdict(self, made_by: Maker | None) -> Verdict:
        says_so = bool(GENERATED & set(self._credentials.source_types))
        if made_by:
            return "ours"
        if says_so and self._credentials.state == "valid":
            return "signed"
        return "claimed" if says_so or self._mark in GENERATED or self._recipe else "unknown"

    def _sentences(self, made_by: Maker | None, kept_seconds: int) -> list[str]:
        told = [
            f"These are the bytes of an image of your job {made_by.job_id}."
            if made_by
            else "No job of yours whose results are still kept made exactly these bytes; results "
            f"are kept for {kept_seconds} seconds, and a copy that was saved anew has other bytes."
        ]
        told += _about_credentials(self._credentials)
        if self._mark in GENERATED:
            told.append(
                "A mark says that a model made it. Anybody can write or remove such a mark."
            )
        elif self._mark:
            told.append("A mark says how it came to be, and not that a model made it.")
        if self._recipe:
            told.append("A text says how it was made. Anybody can write or change such a text.")
        elif self._recipe_fault:
            told.append(f"A text about how it was made cannot be read: {self._recipe_fault}.")
        if self._verdict(made_by) == "unknown":
            told.append(
                "Nothing says that a model made it, which proves nothing: texts, marks and "
                "signatures are lost when a program saves a picture anew. Pixels are not looked at."
            )
        return told


def _about_credentials(found: C2paManifest) -> list[str]:
    who = found.signer or "somebody without a name"
    words = {
        "none": [],
        "valid": [
            f"It was signed by {who}, who is trusted here; neither pixels nor texts changed since."
        ],
        "untrusted": [
            f"It was signed by {who} and did not change since, but whoever that is is not known "
            "here: anybody can sign under any name."
        ],
        "invalid": [
            "It has a C2PA manifest that does not hold: the file was changed after it was signed, "
            "or the manifest is broken."
        ],
    }
    return words[found.state]


def _maker(job: Job | None, sha256: str) -> Maker | None:
    """Names are made of a part of the hash; the whole one decides."""
    images = job.images if job else ()
    image = next((image for image in images if image.sha256 == sha256), None)
    return Maker(job_id=job.id, image=image) if job and image else None


def _recipe(told: ImageInfo) -> tuple[RecipeClaim | None, str | None]:
    """What the file says of how it was made, or why that cannot be read."""
    try:
        found = find_recipe(told.texts)
        if found is None:
            return None, None
        reading = found.imported
        claim = RecipeClaim(
            kind=found.kind,
            request=_clean(reading.fields),
            notes=_clean(reading.notes),
            model=_clean(reading.model) or None,
            checkpoint=_clean(reading.checkpoint) or None,
        )
    except (ValueError, RecursionError) as exc:
        return None, _clean(str(exc).split("\n")[0][:_LONGEST_MARK]).rstrip(".")
    return claim, None


def _clean(value: Any) -> Any:
    """The same as JSON and UTF-8 can hold it: no lone surrogates, no NaN."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return json.loads(text, parse_constant=lambda _: None)
