"""Reads the JSON that SwarmUI, InvokeAI, NovelAI, Fooocus and Draw Things write into image files.

Each reader imports the values that it knows and notes all others by their names.
"""

import json
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from model.recipes.imported import ImportedRequest, plain_text, read_number
from model.recipes.invokeai_weights import note_weights
from model.recipes.json_text import load_json
from model.recipes.lora_tags import MAX_TEXT_CHARS, import_prompts
from model.recipes.novelai_weights import convert_weights

_SHIFT = 3.0
_MAX_NOTES = 40
_MAX_ENTRIES = 500
_SECTION = re.compile(
    r"<(?:base|refiner|video|videoswap|segment|object|region|extend|clear|edit)\b[^<>]{0,1000}>",
    re.IGNORECASE,
)
_TAG = re.compile(
    r"<(?!(?:lora|lyco|hypernet):)[a-z]{1,20}(?:\[[^\[\]<>]{0,100}\])?:[^<>]{0,1000}>|"
    r"<(?:break|trigger)>",
    re.IGNORECASE,
)

# Values of each writer that have no effect here, and values that have none if they are these.
_SWARMUI_IGNORED = frozenset(
    {
        *("images", "aspectratio", "automaticvae", "swarm_version", "nopreviews", "imageformat"),
        *("wildcardseed", "original_prompt", "original_negativeprompt", "date", "personalnote"),
        *("generation_time", "sidelength"),
    }
)
_SWARMUI_DEFAULTS = {"vae": ("Automatic",), "batchsize": (1, "1"), "clipstopatlayer": (-1, "-1")}
_NOVELAI_IGNORED = frozenset(
    {
        *("signed_hash", "version", "stream", "extra_passthrough_testing", "hide_debug_overlay"),
        *("dynamic_thresholding_percentile", "dynamic_thresholding_mimic_scale"),
        *("prefer_brownian", "uncond_per_vibe", "wonky_vibe_correlation"),
    }
)
_NOVELAI_DEFAULTS = {
    "n_samples": (1,),
    "controlnet_strength": (1,),
    "uncond_scale": (0, 1),
    "cfg_sched_eligibility": ("enable_for_post_summer_samplers",),
}
_FOOOCUS_IGNORED = frozenset(
    {
        *("version", "metadata_scheme", "full_prompt", "full_negative_prompt", "created_by"),
        *("refiner_switch", "software"),
    }
)
_DRAW_THINGS_2_IGNORED = frozenset(
    {
        # Options of parts that are noted if they are on, or that these models do not have.
        *("aestheticScore", "negativeAestheticScore", "clipLText", "openClipGText", "t5Text"),
        *("cfgZeroInitSteps", "compressionArtifactsQuality", "cropLeft", "cropTop", "fps"),
        *("decodingTileHeight", "decodingTileOverlap", "decodingTileWidth", "guidanceEmbed"),
        *("diffusionTileHeight", "diffusionTileOverlap", "diffusionTileWidth", "id", "batchCount"),
        *("guidingFrameNoise", "hiresFixHeight", "hiresFixStrength", "hiresFixWidth", "maskBlur"),
        *("imageGuidanceScale", "imagePriorSteps", "maskBlurOutset", "motionScale", "numFrames"),
        *("negativeOriginalImageHeight", "negativeOriginalImageWidth", "originalImageHeight"),
        *("originalImageWidth", "targetImageHeight", "targetImageWidth", "refinerStart"),
        *("negativePromptForImagePrior", "preserveOriginalAfterInpaint", "startFrameGuidance"),
        *("speedUpWithGuidanceEmbed", "stage2Cfg", "stage2Guidance", "stage2Shift", "stage2Steps"),
        *("stochasticSamplingGamma", "t5TextEncoder", "teaCacheEnd", "teaCacheMaxSkipSteps"),
        *("teaCacheStart", "teaCacheThreshold", "upscalerScaleFactor", "causalInferencePad"),
        # The same as outside.
        *("model", "sampler", "seedMode", "shift", "height", "width"),
    }
)
_DRAW_THINGS_2_DEFAULTS = {
    "batchSize": (1,),
    "clipSkip": (1,),
    "clipWeight": (1,),
    "compressionArtifacts": ("disabled",),
}


class _Values:
    """The values of a JSON object; each is taken once, and the rest is noted."""

    def __init__(self, values: Any, imported: ImportedRequest) -> None:
        self._rest: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
        self._imported = imported

    def take(self, *names: str) -> Any:
        """The first of these values that is set; None if none is."""
        found = [self._rest.pop(name, None) for name in names]
        return next((value for value in found if value not in (None, "")), None)

    def number(self, field: str, kind: type[int] | type[float], *names: str) -> None:
        """Import a number as a field."""
        if (value := self.take(*names)) is not None:
            self._imported.set_number(field, value, source=field, kind=kind)

    def sampling(self, sampler: Any, schedule: Any) -> None:
        """Import the names of sampler and schedule."""
        if isinstance(sampler, str):
            self._imported.set_sampler(sampler)
        if isinstance(schedule, str):
            self._imported.set_schedule(schedule)

    def shift(self, *names: str) -> None:
        """Note a shift of the noise schedule that differs from the one of these models."""
        value = self.take(*names)
        if value is not None and read_number(value, float) != _SHIFT:
            self._imported.add_note(f"shift {value}", f"the shift is {_SHIFT:g} here")

    def note_rest(
        self,
        ignored: Collection[str] = (),
        defaults: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
        *,
        inside: str = "",
    ) -> None:
        """Note every value that was not taken, apart from empty ones, `ignored` and `defaults`.

        `inside` is the name of the object that has the values, if the writer's JSON nests it.
        """
        rest = {
            name: value
            for name, value in self._rest.items()
            if name not in ignored
            and value not in (None, "", "None", False, 0, [], {})
            and value not in defaults.get(name, ())
        }
        label = f"{inside} " if inside else ""
        for name, value in list(rest.items())[:_MAX_NOTES]:
            self._imported.add_note(f"{label}{name}: {_shown(value)}", "not supported")
        if len(rest) > _MAX_NOTES:
            self._imported.add_note(f"{len(rest) - _MAX_NOTES} more values", "left out")


def read_swarmui(data: dict[str, Any]) -> ImportedRequest:
    """Read the parameters of SwarmUI."""
    imported = ImportedRequest()
    values = _Values(data["sui_image_params"], imported)
    prompt = values.take("prompt")
    if isinstance(prompt, str):
        prompt = _without_swarmui_tags(imported, prompt)
    import_prompts(imported, prompt, values.take("negativeprompt"))
    values.number("seed", int, "seed")
    values.number("steps", int, "steps")
    values.number("cfg_scale", float, "cfgscale")
    values.sampling(
        values.take("sampler", "comfyuisampler", "autowebuisampler"),
        values.take("scheduler", "comfyuischeduler"),
    )
    imported.set_size(values.take("width"), values.take("height"))
    imported.model = str(values.take("model") or "")
    values.shift("sigmashift")
    names, weights = _list(values.take("loras")), _list(values.take("loraweights"))
    for place, name in enumerate(names):
        _add_lora(imported, name, weights[place] if place < len(weights) else 1)
    values.note_rest(_SWARMUI_IGNORED, _SWARMUI_DEFAULTS)
    _Values(data, imported).note_rest(("sui_image_params", "sui_extra_data", "sui_models"))
    imported.note_missing()
    return imported


def _without_swarmui_tags(imported: ImportedRequest, prompt: str) -> str:
    """The prompt without sections for parts of the image and without tags that change it."""
    if section := _SECTION.search(prompt):
        imported.add_note(f"prompt {prompt[section.start() :]}", "sections are left out")
        prompt = prompt[: section.start()]
    for tag in _TAG.findall(prompt)[:_MAX_NOTES]:
        imported.add_note(f"prompt {tag}", "left out; the tag is not supported")
    return _TAG.sub("", prompt)


def read_invokeai(data: dict[str, Any]) -> ImportedRequest:
    """Read the metadata of InvokeAI 3 and later."""
    imported = ImportedRequest()
    values = _Values(data, imported)
    mode = str(values.take("generation_mode") or "txt2img")
    prompts = [values.take("positive_prompt"), values.take("negative_prompt")]
    if mode.startswith("anima"):  # this model's prompts have no weights there
        prompts = [_escaped(text) if isinstance(text, str) else text for text in prompts]
    else:
        for field, text in zip(("prompt", "negative_prompt"), prompts, strict=True):
            note_weights(imported, field, text)
    import_prompts(imported, *prompts, applies_tags=False)
    values.number("seed", int, "seed")
    values.number("steps", int, "steps")
    values.number("cfg_scale", float, "cfg_scale")
    if isinstance(name := values.take("scheduler"), str):
        plain = name.removesuffix("_k")
        sampler = f"{plain.removesuffix('_a')}_ancestral" if plain.endswith("_a") else plain
        values.sampling(sampler.replace("kdpm_2", "dpm_2"), "karras" if plain != name else None)
    imported.set_size(values.take("width"), values.take("height"))
    imported.model = _invokeai_name(values.take("model"))
    for entry in _list(values.take("loras")):
        lora = entry if isinstance(entry, dict) else {}
        name = _invokeai_name(lora.get("model") or lora.get("lora"))
        if lora.get("is_enabled") is False:
            continue
        _add_lora(imported, name or entry, lora.get("weight"))
    if not mode.endswith("txt2img"):
        imported.add_note(f"generation_mode {mode}", "made from another image")
    canvas = _dict(values.take("canvas_v2_metadata"))
    for name in ("controlLayers", "regionalGuidance", "referenceImages"):
        if canvas.get(name):
            imported.add_note(f"canvas_v2_metadata {name}", "not supported")
    values.note_rest(("app_version",), {"rand_device": ("cpu",)})
    imported.note_missing()
    return imported


def _invokeai_name(model: Any) -> str:
    """The name of a model; its key has changed between releases."""
    names = model if isinstance(model, dict) else {}
    return str(names.get("name") or names.get("model_name") or "")


def read_novelai(data: dict[str, Any]) -> ImportedRequest:
    """Read the texts of NovelAI: `Comment` is JSON, `Description` the prompt, `Source` the model.

    Raises:
        ValueError: `Comment` is not valid JSON.
    """
    imported = ImportedRequest()
    comment = data.get("Comment", data)
    if isinstance(comment, str):
        comment = load_json(comment)
    values = _Values(comment, imported)
    texts = []
    for field, key, older in (
        ("prompt", "v4_prompt", (values.take("prompt"), data.get("Description"))),
        ("negative_prompt", "v4_negative_prompt", (values.take("uc"),)),
    ):
        newer = _dict(values.take(key))
        caption = _dict(newer.get("caption"))
        base = caption.get("base_caption")
        text = next((text for text in (*older, base) if text), "")
        if base and base != text:
            imported.add_note(f"{key} {_shown(base)}", f"differs from the {field}; left out")
        _Values(newer, imported).note_rest(("caption", "use_coords", "use_order"), inside=key)
        texts.append(_convert_novelai(imported, field, text))
        for person in _list(caption.get("char_captions")):
            if text := _dict(person).get("char_caption"):
                imported.add_note(f"{field} of a character, {text}", "left out")
    import_prompts(imported, *texts, applies_tags=False)
    values.number("seed", int, "seed")
    values.number("steps", int, "steps")
    values.number("cfg_scale", float, "scale")
    sampler = values.take("sampler")
    has_bug = values.take("deliberate_euler_ancestral_bug")
    if has_bug and "euler_ancestral" in str(sampler):
        imported.add_note(f"deliberate_euler_ancestral_bug {has_bug}", "not supported")
    if isinstance(sampler, str):
        sampler = sampler.removeprefix("k_").removesuffix("_v3")
    values.sampling(sampler, values.take("noise_schedule"))
    imported.set_size(values.take("width"), values.take("height"))
    imported.model = str(data.get("Source") or "")
    request = values.take("request_type")
    if request not in (None, "PromptGenerateRequest"):
        imported.add_note(f"request_type {request}", "made from another image")
    values.note_rest(_NOVELAI_IGNORED, _NOVELAI_DEFAULTS)
    imported.note_missing()
    return imported


def _convert_novelai(imported: ImportedRequest, field: str, text: Any) -> Any:
    if not isinstance(text, str) or len(text) > MAX_TEXT_CHARS:
        return text
    if "|" in text:
        imported.add_note(field, "'|' mixes or chooses texts in NovelAI; it is text here")
    converted = convert_weights(plain_text(text))
    if converted.is_weighted:
        imported.add_note(field, "NovelAI's weights are written as (text:weight)")
    for weight in converted.too_strong[:_MAX_NOTES]:
        imported.add_note(f"{field} weight {weight}", "weights are limited to -10 to 10")
    return converted.text


def read_fooocus(data: dict[str, Any]) -> ImportedRequest:
    """Read the JSON of Fooocus and its forks. Its styles are not applied."""
    imported = ImportedRequest()
    values = _Values(data, imported)
    import_prompts(imported, values.take("prompt"), values.take("negative_prompt"))
    values.number("seed", int, "seed")
    values.number("steps", int, "steps")
    values.number("cfg_scale", float, "guidance_scale", "cfg")
    values.sampling(values.take("sampler", "sampler_name"), values.take("scheduler"))
    sides = re.fullmatch(r"\D{0,3}(\d{1,6})\D{1,5}(\d{1,6})\D{0,3}", str(values.take("resolution")))
    size = sides.groups() if sides else (values.take("width"), values.take("height"))
    imported.set_size(*size)
    imported.model = str(values.take("base_model", "base_model_name") or "")
    imported.checkpoint = str(values.take("base_model_hash") or "")
    pairs = [entry[:2] for entry in _list(values.take("loras")) if isinstance(entry, list)]
    for place in range(1, 100):
        combined = str(values.take(f"lora_combined_{place}") or "").rpartition(" : ")
        if combined[0] and not pairs:
            _add_lora(imported, combined[0], combined[2])
    for pair in pairs:
        _add_lora(imported, pair[0] if pair else "", pair[1] if len(pair) > 1 else None)
    values.note_rest(_FOOOCUS_IGNORED, {"vae": ("Default (model)", "Default")})
    imported.note_missing()
    return imported


def read_draw_things(data: dict[str, Any]) -> ImportedRequest:
    """Read the JSON of Draw Things."""
    imported = ImportedRequest()
    values = _Values(data, imported)
    import_prompts(imported, values.take("c"), values.take("uc"), applies_tags=False)
    values.number("seed", int, "seed")
    values.number("steps", int, "steps")
    values.number("cfg_scale", float, "scale")
    values.sampling(values.take("sampler"), None)
    width, _, height = str(values.take("size") or "").partition("x")
    imported.set_size(width or None, height or None)
    imported.model = str(values.take("model") or "")
    values.shift("shift")
    loras = [_dict(entry) for entry in _list(values.take("lora"))]
    for lora in loras:
        _add_lora(imported, lora.get("model") or lora.get("file"), lora.get("weight"))
    strength = values.take("strength")
    if strength not in (None, 1):
        imported.add_note(f"strength {strength}", "made from another image")
    _note_draw_things_options(imported, data, loras, _dict(values.take("v2")))
    ignored = ("mask_blur", "mask_blur_outset", "profile")
    values.note_rest(ignored, {"seed_mode": ("Torch CPU Compatible",)})
    imported.note_missing()
    return imported


def _note_draw_things_options(
    imported: ImportedRequest, data: dict[str, Any], loras: list[Any], options: dict[str, Any]
) -> None:
    """Note the options in `v2`, which has all of them, and what contradicts the values outside."""
    values = _Values(options, imported)
    for name, outside in (("steps", "steps"), ("guidanceScale", "scale"), ("seed", "seed"),
                          ("strength", "strength")):  # fmt: skip
        value = values.take(name)
        if value is not None and outside in data and value != data[outside]:
            imported.add_note(f"v2 {name}: {_shown(value)}", f"differs from {outside}; left out")
    used = [(lora.get("model") or lora.get("file"), lora.get("weight")) for lora in loras]
    for lora in map(_dict, _list(values.take("loras"))):
        is_used = (lora.get("file"), lora.get("weight")) in used
        if not is_used or lora.get("mode", "all") != "all":
            imported.add_note(f"v2 loras {_shown(lora)}", "not supported")
    values.note_rest(_DRAW_THINGS_2_IGNORED, _DRAW_THINGS_2_DEFAULTS, inside="v2")


def _add_lora(imported: ImportedRequest, name: Any, weight: Any) -> None:
    """Add a LoRA by its file name without the extension, or note that it cannot be read."""
    number = read_number(weight, float)
    if not isinstance(name, str) or not name or number is None:
        imported.add_note(f"LoRA {_shown(name)}", "left out because its weight is not a number")
        return
    plain = re.sub(r"\.(?:safetensors|ckpt)$", "", name.replace("\\", "/"))
    imported.add_lora(plain, number)


def _escaped(text: str) -> str:
    """A text without weights: its brackets are letters."""
    return re.sub(r"([()])", r"\\\1", text)


def _list(value: Any) -> list[Any]:
    """A list, or the parts of a text with commas.

    Raises:
        ValueError: it is too long.
    """
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    parts = value if isinstance(value, list) else []
    if len(parts) > _MAX_ENTRIES:
        raise ValueError(f"a list in the text has more than {_MAX_ENTRIES} entries")
    return parts


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
