"""From the fields of the A1111 surface to those of `POST /generate`. Knows no HTTP and no files.

What cannot be carried over is a note; what would make another picture than is meant, an error.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from api.a1111.model_names import check_checkpoint
from api.a1111.schemas import ImageToImage, Processing, TextToImage
from model.card import Card, largest_scale, substitute_size
from model.recipes.aliases import find_lora, find_sampler, find_schedule
from model.recipes.imported import ImportedRequest, shown
from model.recipes.infotext import find_upscaler, read_infotext, take_networks
from model.request import parse_resolution
from model.sampler_catalog import SAMPLER_CATALOG

DEFAULT_SIZE = (512, 512)
"""The web UI's own size, which most of its clients send unasked."""

_DEFAULT_HIRES_SCALE = 2.0
_FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "avif": "avif"}
_AUTOMATIC = frozenset({"automatic", "use same scheduler"})
_NONE = frozenset({"", "none"})

_IGNORED = (
    "styles",
    "alwayson_scripts",
    "subseed_strength",
    "restore_faces",
    "tiling",
    "refiner_checkpoint",
    "hr_prompt",
    "hr_negative_prompt",
    "hr_sampler_name",
    "hr_checkpoint_name",
    "inpaint_full_res",
)
"""What has nothing like it here, and changes the picture elsewhere."""

_OUR_NAMES = {
    "num_images": "batch_size",
    "resolution": "width",
    "init_image": "init_images",
    "strength": "denoising_strength",
    "sampler": "sampler_name",
    "sampler_options": "sampler_name",
    "loras": "prompt",
    "image_format": "override_settings",
    "image_quality": "override_settings",
}
_OUR_HIRES_NAMES = {
    "scale": "hr_scale",
    "steps": "hr_second_pass_steps",
    "strength": "denoising_strength",
}


@dataclass(slots=True)
class A1111Request:
    """A request's fields, sentences on what was changed or left out, and what is wrong."""

    fields: dict[str, Any]
    notes: list[str]
    errors: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, name: str, reason: str, value: Any) -> None:
        """One more wrong field, in the form of pydantic's errors."""
        self.errors.append(
            {"type": "value_error", "loc": ("body", name), "msg": reason, "input": value}
        )


def in_their_names(errors: Collection[Any]) -> list[dict[str, Any]]:
    """Errors of our fields, under the names of this surface's."""
    return [{**error, "loc": _their_place(tuple(error["loc"]))} for error in errors]


def _their_place(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    match loc:
        case ("body", "hires", name, *_):
            return ("body", _OUR_HIRES_NAMES.get(name, "hr_upscaler"))
        case ("body", name, *rest) if name in _OUR_NAMES:
            return ("body", _OUR_NAMES[name], *rest)
    return loc


def read_body(body: Processing, card: Card, lora_names: Collection[str]) -> A1111Request:
    """What a body asks for; pictures are still as the client sent them.

    Raises:
        UnknownModel: another checkpoint is wanted.
    """
    reading = ImportedRequest()
    if body.infotext:
        reading = read_infotext(body.infotext)
    wish = A1111Request(reading.fields, reading.notes)
    _take_prompts(body, reading, lora_names)
    _take_sampling(body, wish)
    _take_settings(body, wish, card)
    if isinstance(body, TextToImage):
        _take_size(body, wish, card)
        _take_second_pass(body, reading, card)
    if isinstance(body, ImageToImage):
        _take_picture(body, wish, card)
    if body.script_name and body.script_name.lower() not in _NONE:
        wish.refuse("script_name", "Script not found: there are none here", body.script_name)
    wish.notes += _left_out(body)
    return wish


def _take_prompts(body: Processing, reading: ImportedRequest, lora_names: Collection[str]) -> None:
    fields = reading.fields
    if body.prompt is not None:
        fields.pop("loras", None)
        fields["prompt"] = take_networks(reading, body.prompt)
    # The web UI draws a picture of nothing in particular; a blank has no words either.
    fields["prompt"] = fields.get("prompt") or " "
    if body.negative_prompt is not None:
        fields["negative_prompt"] = take_networks(reading, body.negative_prompt, is_used=False)
    for lora in fields.pop("loras", ()):
        reading.add_lora(find_lora(lora["name"], lora_names) or lora["name"], lora["weight"])


def _take_sampling(body: Processing, wish: A1111Request) -> None:
    fields = wish.fields
    for name, value in (("steps", body.steps), ("cfg_scale", body.cfg_scale)):
        if value is not None:
            fields[name] = value
    if body.seed is not None and "seed" in body.model_fields_set:
        fields["seed"] = body.seed if body.seed >= 0 else None
    if body.batch_size is not None or body.n_iter is not None:
        fields["num_images"] = (body.batch_size or 1) * (body.n_iter or 1)
    _take_sampler(body, wish)
    schedule = body.scheduler
    if schedule and schedule.lower() not in _AUTOMATIC:
        found = find_schedule(schedule)
        if found:
            fields["scheduler"] = found
        else:
            wish.notes.append(f"scheduler {shown(schedule)}: unknown here; the default is taken")


def _take_sampler(body: Processing, wish: A1111Request) -> None:
    name = body.sampler_name or body.sampler_index
    if not name:
        return
    for field_name in ("sampler", "sampler_options", "scheduler"):
        wish.fields.pop(field_name, None)
    found = find_sampler(name)
    if found is None:
        names = ", ".join(info.display_name for info in SAMPLER_CATALOG.values())
        reason = f"Sampler not found; there are {names}"
        wish.refuse("sampler_name", reason, name)
        return
    wish.fields["sampler"] = found.sampler
    if found.options:
        wish.fields["sampler_options"] = dict(found.options)
    if found.schedule:
        wish.fields["scheduler"] = found.schedule


def _take_settings(body: Processing, wish: A1111Request, card: Card) -> None:
    """The few of the web UI's settings that mean something for one call."""
    settings = body.override_settings or {}
    wanted = settings.get("sd_model_checkpoint")
    if isinstance(wanted, str) and wanted:
        check_checkpoint(wanted, card)
    file_format = settings.get("samples_format")
    if isinstance(file_format, str) and file_format:
        known = _FORMATS.get(file_format.lower())
        if known:
            wish.fields["image_format"] = known
        else:
            wish.notes.append(f"samples_format {shown(file_format)}: unknown here; png is taken")
    if isinstance(quality := settings.get("jpeg_quality"), int):
        wish.fields["image_quality"] = min(max(quality, 1), 100)
    wish.fields["previews"] = settings.get("live_previews_enable") is not False


def _asked_size(body: Processing) -> tuple[int, int] | None:
    """The size that was asked for; None where it is the web UI's default."""
    size = (body.width or DEFAULT_SIZE[0], body.height or DEFAULT_SIZE[1])
    return None if size == DEFAULT_SIZE else size


def _take_size(body: Processing, wish: A1111Request, card: Card) -> None:
    asked = _asked_size(body)
    if asked is None and "resolution" in wish.fields:  # of the infotext
        width, height = map(int, wish.fields.pop("resolution").split("x"))
        asked = (max(width, 1), max(height, 1))
    if asked is None:
        return
    fitted = substitute_size(*asked, card)
    wish.fields["resolution"] = f"{fitted[0]}x{fitted[1]}"
    if fitted != asked:
        wish.notes.append(
            f"size {asked[0]}x{asked[1]}: {fitted[0]}x{fitted[1]} is the nearest that the "
            "checkpoint knows"
        )


def _take_second_pass(body: TextToImage, reading: ImportedRequest, card: Card) -> None:
    """A second pass that ends at the size that was asked for, as far as the card allows."""
    if body.enable_hr is None:
        return
    reading.fields.pop("hires", None)
    if not body.enable_hr:
        return
    resolution = reading.fields.get("resolution") or card.defaults.resolution
    width, height = parse_resolution(resolution, card)
    asked_width, asked_height = _asked_size(body) or DEFAULT_SIZE
    factor = body.hr_scale or _DEFAULT_HIRES_SCALE
    if body.hr_resize_x or body.hr_resize_y:
        wanted = max((body.hr_resize_x or 0) / width, (body.hr_resize_y or 0) / height)
    else:
        wanted = max(asked_width * factor / width, asked_height * factor / height)
    scale = round(min(wanted, largest_scale(width, height, card.limits)), 2)
    if scale < wanted - 0.01:
        reading.note(f"second pass, {wanted:g} times", f"{scale:g} is the most that is possible")
    if scale <= 1:
        reading.note("second pass", f"left out, since the first is {width}x{height} already")
        return
    hires: dict[str, Any] = {"scale": scale}
    if body.hr_second_pass_steps:
        hires["steps"] = body.hr_second_pass_steps
    if body.denoising_strength is not None:
        hires["strength"] = body.denoising_strength
    if body.hr_upscaler and body.hr_upscaler.lower() not in _NONE:
        hires["upscaler"] = find_upscaler(reading, body.hr_upscaler)
    reading.fields["hires"] = hires


def _take_picture(body: ImageToImage, wish: A1111Request, card: Card) -> None:
    images = body.init_images or []
    if not images or not images[0]:
        wish.refuse("init_images", "Init image not found", None)
        return
    wish.fields["init_image"] = images[0]
    if len(images) > 1:
        wish.notes.append(f"{len(images)} init_images: the first is taken")
    # Without a resolution the picture's own size counts.
    wish.fields.pop("resolution", None)
    _take_size(body, wish, card)
    if body.denoising_strength is not None:
        wish.fields["strength"] = body.denoising_strength
    wish.fields.pop("mask", None)
    if body.mask:
        wish.fields["mask"] = body.mask


def _left_out(body: Processing) -> Iterator[str]:
    for name in _IGNORED:
        value = getattr(body, name, None)
        if name == "styles":
            value = [style for style in value or () if style.lower() not in _NONE]
        if name == "inpaint_full_res" and not getattr(body, "mask", None):
            continue
        if value and not (isinstance(value, str) and value.lower() in _NONE):
            yield f"{name}: ignored, since there is nothing like it here"
