"""Translates A1111 requests into requests for `POST /generate`. Free of HTTP and files.

Parts that have no equivalent here become notes. Parts that would silently produce another image
than the client expects become errors.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from api.a1111.checkpoint import check_checkpoint
from api.a1111.generation.ignored_fields import NONE, ignored_notes
from api.a1111.generation.request_fields import ImageToImage, Processing, TextToImage
from api.a1111.leniency import read_integer
from model.card import Card
from model.recipes.aliases import find_sampler, find_schedule
from model.recipes.imported import ImportedRequest, one_line
from model.recipes.infotext import find_upscaler
from model.recipes.lora_tags import extract_networks
from model.recipes.reading import read_settings, read_text
from model.request import MAX_LORAS, MAX_NAME_CHARS, MAX_SEED, find_alias, find_lora
from model.sampler_catalog import SAMPLER_CATALOG
from model.sizes import largest_scale, parse_resolution, substitute_size

DEFAULT_SIZE = (512, 512)
"""The default size of the web UI. Most clients always send it."""

_MOST_LOOKED_FOR = 4 * MAX_LORAS
_DEFAULT_HIRES_SCALE = 2.0
_DEFAULT_MASK_BLUR = 4
_FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "avif": "avif"}
_AUTOMATIC = frozenset({"automatic", "use same scheduler"})

_NEUTRAL_SETTINGS = {"CLIP_stop_at_last_layers": 1, "sd_vae": "automatic"}
"""Settings that clients always send, and their values without an effect. So is an empty value."""

_FOLLOWED_SETTINGS = frozenset(
    {"sd_model_checkpoint", "samples_format", "jpeg_quality", "live_previews_enable"}
)
_MAX_NAMES = 10

_A1111_NAMES = {
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
_A1111_HIRES_NAMES = {
    "scale": "hr_scale",
    "steps": "hr_second_pass_steps",
    "strength": "denoising_strength",
}


@dataclass(slots=True)
class A1111Request:
    """The result of parsing: `fields` of `POST /generate`, notes on changes, and errors.

    `errors` have the form of pydantic's errors and use the A1111 field names.
    """

    fields: dict[str, Any]
    notes: list[str]
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add_error(self, name: str, reason: str, value: Any) -> None:
        """Report an invalid field."""
        self.errors.append(
            {"type": "value_error", "loc": ("body", name), "msg": reason, "input": value}
        )


def to_a1111_names(errors: Collection[Any]) -> list[dict[str, Any]]:
    """Validation errors of `POST /generate` with the A1111 names of the fields."""
    return [{**error, "loc": _a1111_location(tuple(error["loc"]))} for error in errors]


def _a1111_location(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    match loc:
        case ("body", "hires", name, *_):
            return ("body", _A1111_HIRES_NAMES.get(name, "hr_upscaler"))
        case ("body", name, *rest) if name in _A1111_NAMES:
            return ("body", _A1111_NAMES[name], *rest)
    return loc


def parse_request(
    body: Processing,
    card: Card,
    lora_names: Collection[str],
    lora_aliases: Mapping[str, str] = MappingProxyType({}),
) -> A1111Request:
    """Translate a body. Images stay as the client sent them. Aliases of LoRAs are by name.

    Raises:
        UnknownModel: the body asks for another checkpoint.
    """
    imported, problem = _read_infotext(body)
    parsed = A1111Request(imported.fields, imported.notes)
    if problem:
        parsed.add_error("infotext", problem, body.infotext)
    _take_prompts(body, imported)
    _fit_loras(imported, lora_names, lora_aliases)
    _take_sampling(body, parsed)
    _take_settings(body, parsed, card)
    if isinstance(body, TextToImage):
        _take_size(body, parsed, card)
        _take_second_pass(body, imported, card)
    if isinstance(body, ImageToImage):
        _take_init_image(body, parsed, card)
    if body.script_name and body.script_name.lower() not in NONE:
        reason = "Script not found: scripts are not supported"
        parsed.add_error("script_name", reason, body.script_name)
    parsed.notes += ignored_notes(body)
    return parsed


def _read_infotext(body: Processing) -> tuple[ImportedRequest, str]:
    """The request in `infotext`, and why it cannot be read; its prompt may be in the body."""
    if not body.infotext:
        return ImportedRequest(), ""
    try:
        read = read_text if body.prompt is None else read_settings
        return read(body.infotext).imported, ""
    except (ValueError, RecursionError) as exc:
        return ImportedRequest(), one_line(str(exc), 300)


def _take_prompts(body: Processing, imported: ImportedRequest) -> None:
    fields = imported.fields
    if body.prompt is not None:
        fields.pop("loras", None)
        fields["prompt"] = extract_networks(imported, body.prompt)
    # The web UI accepts an empty prompt; a blank has no tokens either.
    fields["prompt"] = fields.get("prompt") or " "
    if body.negative_prompt is not None:
        fields["negative_prompt"] = extract_networks(imported, body.negative_prompt, is_used=False)


def _fit_loras(
    imported: ImportedRequest, names: Collection[str], aliases: Mapping[str, str]
) -> None:
    for place, lora in enumerate(imported.fields.pop("loras", ())):
        wanted = lora["name"]
        # No request may have as many; to look for each takes time.
        is_looked_for = place < _MOST_LOOKED_FOR and len(wanted) <= MAX_NAME_CHARS
        name = find_lora(wanted, names) if is_looked_for else None
        if is_looked_for and name is None and (name := find_alias(wanted, aliases)):
            imported.add_note(f"LoRA {wanted}", f"{name} is used, which was trained as this")
        imported.add_lora(name or wanted, lora["weight"])


def _take_sampling(body: Processing, parsed: A1111Request) -> None:
    fields = parsed.fields
    for name, value in (("steps", body.steps), ("cfg_scale", body.cfg_scale)):
        if value is not None:
            fields[name] = value
    if body.seed is not None and "seed" in body.model_fields_set:
        fields["seed"] = _fitted_seed(body.seed, parsed)
    if body.batch_size is not None or body.n_iter is not None:
        fields["num_images"] = (body.batch_size or 1) * (body.n_iter or 1)
    _take_sampler(body, parsed)
    schedule = body.scheduler
    if schedule and schedule.lower() not in _AUTOMATIC:
        found = find_schedule(schedule)
        if found:
            fields["scheduler"] = found
        else:
            parsed.notes.append(f"scheduler {one_line(schedule)}: unknown; using the default")


def _fitted_seed(seed: int, parsed: A1111Request) -> int | None:
    """The seed within the limit of `POST /generate`; None if one is to be drawn."""
    if seed < 0:
        return None
    fitted = seed % (MAX_SEED + 1)
    if fitted != seed:
        parsed.notes.append(f"seed {one_line(str(seed))}: using {fitted}, its last 53 bits")
    return fitted


def _take_sampler(body: Processing, parsed: A1111Request) -> None:
    name = body.sampler_name or body.sampler_index
    if not name:
        return
    for field_name in ("sampler", "sampler_options", "scheduler"):
        parsed.fields.pop(field_name, None)
    found = find_sampler(name)
    if found is None:
        names = ", ".join(info.display_name for info in SAMPLER_CATALOG.values())
        reason = f"Sampler not found. Available: {names}"
        parsed.add_error("sampler_name", reason, name)
        return
    parsed.fields |= found.fields


def _take_settings(body: Processing, parsed: A1111Request, card: Card) -> None:
    """Apply the settings of the web UI that have an effect on one call."""
    settings = body.override_settings or {}
    wanted = settings.get("sd_model_checkpoint")
    if isinstance(wanted, str) and wanted:
        check_checkpoint(wanted, card)
    file_format = settings.get("samples_format")
    if isinstance(file_format, str) and file_format:
        known = _FORMATS.get(file_format.lower())
        if known:
            parsed.fields["image_format"] = known
        else:
            parsed.notes.append(f"samples_format {one_line(file_format)}: unknown; using png")
    quality = read_integer(settings.get("jpeg_quality"))
    if isinstance(quality, int):
        parsed.fields["image_quality"] = min(max(quality, 1), 100)
    elif quality:
        parsed.notes.append(f"jpeg_quality {one_line(str(quality))}: unknown; using the default")
    parsed.fields["previews"] = settings.get("live_previews_enable") is not False
    left = [one_line(name) for name, value in settings.items() if _is_ignored(name, value)]
    if left:
        names = ", ".join(left[:_MAX_NAMES]) + (", …" if len(left) > _MAX_NAMES else "")
        parsed.notes.append(f"override_settings: {names}: ignored, not supported")


def _is_ignored(name: str, value: Any) -> bool:
    """Whether a setting would change the image in the web UI and does not here."""
    if name in _FOLLOWED_SETTINGS or not value:
        return False
    value = value.lower() if isinstance(value, str) else value
    return value not in (_NEUTRAL_SETTINGS.get(name), "none")


def _requested_size(body: Processing) -> tuple[int, int] | None:
    """The requested size; None if it is the default of the web UI."""
    size = (body.width or DEFAULT_SIZE[0], body.height or DEFAULT_SIZE[1])
    return None if size == DEFAULT_SIZE else size


def _take_size(body: Processing, parsed: A1111Request, card: Card) -> None:
    requested = _requested_size(body)
    if requested is None and "resolution" in parsed.fields:  # from the infotext
        width, height = map(int, parsed.fields.pop("resolution").split("x"))
        requested = (max(width, 1), max(height, 1))
    if requested is None:
        return
    fitted = substitute_size(*requested, card)
    parsed.fields["resolution"] = f"{fitted[0]}x{fitted[1]}"
    if fitted != requested:
        parsed.notes.append(
            f"size {requested[0]}x{requested[1]}: using {fitted[0]}x{fitted[1]}, the nearest size "
            "that the checkpoint supports"
        )


def _take_second_pass(body: TextToImage, imported: ImportedRequest, card: Card) -> None:
    """Add a second pass that ends at the requested size, within the limits of the card."""
    if body.enable_hr is None:
        return
    imported.fields.pop("hires", None)
    if not body.enable_hr:
        return
    resolution = imported.fields.get("resolution") or card.defaults.resolution
    width, height = parse_resolution(resolution, card)
    requested_width, requested_height = _requested_size(body) or DEFAULT_SIZE
    factor = body.hr_scale or _DEFAULT_HIRES_SCALE
    if body.hr_resize_x or body.hr_resize_y:
        wanted = max((body.hr_resize_x or 0) / width, (body.hr_resize_y or 0) / height)
    else:
        wanted = max(requested_width * factor / width, requested_height * factor / height)
    scale = round(min(wanted, largest_scale(width, height, card.limits)), 2)
    if scale < wanted - 0.01:
        imported.add_note(f"second pass, {wanted:g} times", f"using {scale:g}, the maximum")
    if scale <= 1:
        imported.add_note("second pass", f"left out; the first pass is already {width}x{height}")
        return
    hires: dict[str, Any] = {"scale": scale}
    if body.hr_second_pass_steps:
        hires["steps"] = body.hr_second_pass_steps
    if body.denoising_strength is not None:
        hires["strength"] = body.denoising_strength
    if body.hr_upscaler and body.hr_upscaler.lower() not in NONE:
        hires["upscaler"] = find_upscaler(imported, body.hr_upscaler)
    imported.fields["hires"] = hires


def _take_init_image(body: ImageToImage, parsed: A1111Request, card: Card) -> None:
    images = body.init_images or []
    if not images or not images[0]:
        parsed.add_error("init_images", "Init image not found", None)
        return
    parsed.fields["init_image"] = images[0]
    if len(images) > 1:
        parsed.notes.append(f"{len(images)} init_images: using the first")
    # Without a resolution, the size of the image is used.
    parsed.fields.pop("resolution", None)
    _take_size(body, parsed, card)
    if body.denoising_strength is not None:
        parsed.fields["strength"] = body.denoising_strength
    parsed.fields.pop("mask", None)
    if body.mask:
        parsed.fields["mask"] = body.mask
        blur = mask_blur_of(body)
        for name, value in (("mask_blur_x", body.mask_blur_x), ("mask_blur_y", body.mask_blur_y)):
            if value not in (None, blur):
                parsed.notes.append(f"{name} {value}: using {blur} in both directions")


def mask_blur_of(body: ImageToImage) -> int:
    """The blur radius of the mask's edge in pixels."""
    if body.mask_blur is not None:
        return body.mask_blur
    if body.mask_blur_x is not None and body.mask_blur_x == body.mask_blur_y:
        return body.mask_blur_x
    return _DEFAULT_MASK_BLUR
