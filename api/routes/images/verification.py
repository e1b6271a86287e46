"""Response models of `POST /verify`."""

from typing import Any, Literal

from pydantic import Field

from api.http.response_model import ResponseModel
from model.recipes.reading import Writer
from model.request import ImageFormat
from worker.images.c2pa_manifest import ManifestState
from worker.job import StoredImage

Verdict = Literal["ours", "signed", "claimed", "unknown"]


class Maker(ResponseModel):
    """The caller's job that made an image."""

    job_id: str = Field(description="The caller's latest job with this image.")
    image: StoredImage = Field(description="The image as the job lists it.")


class RecipeClaim(ResponseModel):
    """The recipe in a file. It is a claim: anybody can write one."""

    kind: Writer = Field(
        description="Format of the recipe: this service's own, the infotext of A1111 and similar "
        "programs, a ComfyUI workflow, or the JSON of the program that has this name."
    )
    request: dict[str, Any] = Field(
        description="The recipe in fields of `POST /generate`, as far as they correspond."
    )
    notes: list[str] = Field(description="Parts of the recipe that have no corresponding field.")
    model: str | None = Field(description="The checkpoint's name in the file.")
    checkpoint: str | None = Field(description="SHA-256 of the checkpoint, or its first digits.")


class CredentialClaim(ResponseModel):
    """The C2PA manifest of a file, and whether it is valid."""

    state: ManifestState = Field(
        description="`none`: the file has no manifest. `valid`: the file is unchanged since a "
        "trusted signer signed it. `untrusted`: unchanged since it was signed, but the signer is "
        "not trusted here. `invalid`: changed since it was signed, or the manifest is broken."
    )
    signer: str | None = Field(description="The name in the certificate; proven if `valid`.")
    generator: str | None = Field(description="The program that made the manifest.")
    source_types: list[str] = Field(description="IPTC digital source types in the manifest.")
    problems: list[str] = Field(description="C2PA codes of failed checks.")


class Verification(ResponseModel):
    """What is known about the origin of an image."""

    verdict: Verdict = Field(
        description="Whether a model made the image. `ours`: the file is, byte for byte, an image "
        "of one of the caller's jobs. `signed`: a trusted signer says so. `claimed`: the file says "
        "so, which anybody can write. `unknown`: nothing says so, which proves nothing."
    )
    summary: list[str] = Field(description="The verdict and its reasons in sentences.")
    sha256: str = Field(description="SHA-256 of the file.")
    bytes: int
    format: ImageFormat
    width: int
    height: int
    made_by: Maker | None = Field(
        description="null if none of the caller's stored jobs made the file."
    )
    mark: str | None = Field(description="IPTC digital source type in the file's XMP.")
    recipe: RecipeClaim | None = Field(
        description="null if the file has no recipe or an unreadable one."
    )
    credentials: CredentialClaim
