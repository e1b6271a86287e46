"""Reads the body of an edit: a form with files, or JSON that refers to images."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from api.http.errors import UnsupportedMediaType
from api.http.request_body import is_form, is_json, media_type_of, read_json
from api.openai.image_references import read_reference, wrong_field
from api.openai.images.multipart import Form, read_form
from api.openai.images.parameters import ImagesBody
from api.submit.images.input_images import InputImages

_FILES: Final = ("image", "mask")
_OWN_NAME: Final = "unknown field; send the initial image as `{}`"


async def read_edit(request: Request, input_images: InputImages) -> ImagesBody:
    """Read a form or JSON.

    Raises:
        UnsupportedMediaType: the body is neither.
        MalformedForm: the form cannot be read.
        RequestValidationError: the JSON cannot be read, or an image is missing, superfluous or
            unusable.
    """
    values: Mapping[str, Any]
    mask: str | bytes | None
    if is_form(request):
        values, image, mask = _files(await read_form(request))
        name = "image"
    elif is_json(request):
        values, image, mask, name = _references(await read_json(request))
    else:
        found = media_type_of(request) or "missing"
        raise UnsupportedMediaType(
            f"Content-Type is {found}; send multipart/form-data or application/json"
        )
    fields: dict[str, Any] = {"init_image": image}
    if mask is not None:
        fields["mask"] = await input_images.mask_from_alpha(mask)
        if values.get("strength") is None:
            fields["strength"] = 1.0
    return ImagesBody(values, fields, {"init_image": name})


def _files(form: Form) -> tuple[dict[str, Any], str, str | bytes | None]:
    """The parameters of a form, its initial image in base64, and its mask.

    Some clients send images as texts: base64, a data URL, or an image of this service.
    """
    values = dict(form.values)
    found: dict[str, list[Any]] = {name: [*form.files.get(name, ())] for name in _FILES}
    errors = [wrong_field("unknown field", name) for name in form.files if name not in _FILES]
    if "init_image" in values:
        errors.append(wrong_field(_OWN_NAME.format("image"), "init_image"))
    for name, parts in found.items():
        given = values.pop(name, [])
        parts += given if isinstance(given, list) else [given]
        if len(parts) > 1 or (name == "image" and not parts):
            errors.append(
                wrong_field(f"{len(parts)} files; send one" if parts else "required", name)
            )
        elif parts and not isinstance(parts[0], str | bytes):
            errors.append(wrong_field("must be a file", name))
    if errors:
        raise RequestValidationError(errors)
    (image,), mask = found["image"], found["mask"]
    text = image if isinstance(image, str) else b64encode(image).decode("ascii")
    return values, text, mask[0] if mask else None


def _references(body: Any) -> tuple[dict[str, Any], str, str | None, str]:
    """The parameters of a JSON body, its image and mask, and the name of the image's field.

    `image` is what servers call it that take a single image.
    """
    if not isinstance(body, dict):
        raise RequestValidationError([wrong_field("must be a JSON object")])
    values = dict(body)
    name = "image" if values.get("images") is None and "image" in values else "images"
    found, mask = values.pop(name, None), values.pop("mask", None)
    values.pop("images", None)
    errors = []
    if "init_image" in values:
        errors.append(wrong_field(_OWN_NAME.format("images"), "init_image"))
    references = found if isinstance(found, list) else [] if found is None else [found]
    if len(references) != 1:
        count = len(references)
        errors.append(wrong_field(f"{count} images; send one" if count else "required", name))
    texts: list[str] = []
    places = [(one, (name, index)) for index, one in enumerate(references[:1])]
    for reference, place in (*places, *([] if mask is None else [(mask, ("mask",))])):
        try:
            texts.append(read_reference(reference, *place))
        except RequestValidationError as exc:
            errors += exc.errors()
    if errors:
        raise RequestValidationError(errors)
    return values, texts[0], texts[1] if mask is not None else None, name
