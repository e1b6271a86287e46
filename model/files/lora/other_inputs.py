"""Recognises LoRAs that need an input which this service does not give: images beside the noise.

In-context, reference and edit LoRAs expect another latent frame, control LoRAs another image.
Without it they give a wrong image and no error.
"""

import re
from collections.abc import Iterator, Mapping

from model.errors import LoraUnusable
from model.files.safetensors_header import StoredTensor

_WORDS = re.compile(
    r"in[-_ ]?context|\bic[-_ ]?lora|kontext|\b(anima|image|qwen)[-_ ]?edit|\bedit\b"
    r"|control[-_ ]?net|\bcontrol\b|lllite|ip[-_ ]?adapter|\breference\b|\binpaint",
    re.IGNORECASE,
)
_START, _END = r"(?<![a-z])", r"(?![a-z])"
_NAMED = (
    rf"{_START}in[-_]?context{_END}(?![-_ ]of)|{_START}in context[-_ ](?:lora|learning|edit)"
    rf"|{_START}ic[-_ ]?lora{_END}|{_START}kontext{_END}"
    rf"|{_START}(?:anima|image|qwen|instruction)[-_ ]*(?:image[-_ ]*)?edit(?:ing)?{_END}"
    rf"|{_START}edit(?:ing)?[-_ ]*(?:lora|model|adapter){_END}"
    rf"|{_START}(?:in|out)paint(?:ing)?{_END}|{_START}reference[-_ ]only{_END}"
    rf"|{_START}control[-_ ]?(?:net|lora){_END}|lllite|{_START}ip[-_ ]?adapter{_END}"
)
_TITLE_WORDS = re.compile(_NAMED, re.IGNORECASE)
"""Names of such methods, which stand in titles for nothing else, as "in context" may."""

_NEEDS = re.compile(
    r"(?<!not )(?<!n't )(?<!no longer )(?<!never )(?:needs?|requires?)[ ]"
    r"(?:an? |one |the )?(?:reference|control|conditioning|source|input)[ ]"
    r"(?:image|latent|picture|frame)"
    r"|(?<!not an )(?<!not a )(?<!no )\b(?:in-context|image[- ]edit(?:ing)?) lora\b",
    re.IGNORECASE,
)
_TAGS = re.compile(rf"(?:^|,)\s*+(?:{_NAMED})\s*+(?=,|$)", re.IGNORECASE)
_KIND_FIELDS = (
    "modelspec.architecture", "modelspec.implementation", "ss_base_model_version",
    "ss_network_module", "ss_training_type", "architecture", "lora_type", "adapter_type", "task",
)  # fmt: skip
_TITLE_FIELDS = ("modelspec.title", "ss_output_name", "name", "title", "modelspec.usage_hint")
_TEXT_FIELDS = (
    "modelspec.description", "modelspec.usage_hint", "ss_training_comment", "description",
)  # fmt: skip
_TAG_FIELDS = ("modelspec.tags", "tags")
_INPUT_FIELDS = (
    "reference_downscale_factor",
    "lllite.version",
    "in_context",
    "num_reference_frames",
)
_CAPTIONS = ("ss_tag_frequency", "ss_dataset_dirs")
"""Fields whose JSON has words of captions as keys."""

_CONTROL_IMAGES = re.compile(
    r'"(?:control_(?:directory|path|images?|image_path)|conditioning_data_dir|has_control|cond_data_dir'
    r'|controlnet|reference_(?:directory|path|images?))"\s*+:\s*+(?!null|false|""|\[\]|\{\})'
    r'|"conditioning_type"\s*+:\s*+"(?:controlnet|reference)'
    r'|"(?:[\w.]+\.)?task(?:_type)?"\s*+:\s*+"[^"]*(?:edit|inpaint|in-?context|control)'
)
_KEYS = re.compile(
    r"lllite|controlnet|control_(?:block|adapter|embed)|ip_adapter|image_(?:proj|embed)"
    r"|(?:^|[._])(?:ref|reference|cond|context|frame|role)_(?:attn|adaln|proj|embed|latent|image|visual)",
    re.IGNORECASE,
)
_PATCH_STEMS = ("x_embedder", "patch_embed")


def refuse_other_inputs(
    metadata: Mapping[str, str], entries: Mapping[str, StoredTensor], patch_columns: int | None
) -> None:
    """Refuse a LoRA that needs another input. `patch_columns` is the most that a patch has.

    Raises:
        LoraUnusable: names the field of the metadata or the key that shows it.
    """
    for reason in (_in_metadata(metadata), _in_keys(entries, patch_columns)):
        if reason:
            raise LoraUnusable(
                "needs an input that this service does not give, such as a reference image: "
                f"{reason}"
            )


def _in_metadata(metadata: Mapping[str, str]) -> str | None:
    for fields, pattern in (
        (_KIND_FIELDS, _WORDS),
        (_TITLE_FIELDS, _TITLE_WORDS),
        (_TEXT_FIELDS, _NEEDS),
        (_TAG_FIELDS, _TAGS),
        (metadata.keys() - set(_CAPTIONS), _CONTROL_IMAGES),
    ):
        for name in sorted(fields):
            match = pattern.search(metadata.get(name, ""))
            if match:
                return f"{name} has {match[0].strip(', ')!r}"
    return next((name for name in _INPUT_FIELDS if name in metadata), None)


def _in_keys(entries: Mapping[str, StoredTensor], patch_columns: int | None) -> str | None:
    named = next(filter(_KEYS.search, entries), None)
    if named or patch_columns is None:
        return named
    return next(_wide_patches(entries, patch_columns), None)


def _wide_patches(entries: Mapping[str, StoredTensor], patch_columns: int) -> Iterator[str]:
    """Keys of a patch embedding for more channels than the model has."""
    for key, entry in entries.items():
        is_input = key.endswith(("lora_A.weight", "lora_down.weight", ".diff"))
        columns = entry.shape[1] if len(entry.shape) > 1 else 0
        if is_input and any(stem in key for stem in _PATCH_STEMS) and columns > patch_columns:
            yield f"{key} takes {columns} numbers per patch, the model has {patch_columns}"
