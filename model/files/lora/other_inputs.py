"""Recognises LoRAs that need an input which this service does not give: images beside the noise.

In-context, reference and edit LoRAs expect another latent frame, control LoRAs another image.
Without it they give a wrong image and no error.
"""

import re
from collections.abc import Iterator, Mapping

from model.errors import LoraUnusable
from model.files.safetensors_header import StoredTensor

_START, _END = r"(?<![a-z])", r"(?![a-z])"
_NAMED = (
    rf"{_START}in[-_]?context{_END}(?![-_ ]of)|{_START}kontext{_END}"
    rf"|{_START}(?:in|out)paint(?:ing)?{_END}"
    rf"|{_START}control[-_ ]?net{_END}|{_START}ip[-_ ]?adapter{_END}"
)
"""Names of such methods, which are also parts of other names, as in `my_inpaint_oc`."""

_SURE = (
    rf"{_START}in context[-_ ](?:lora|learning|edit)|{_START}ic[-_ ]?lora{_END}"
    rf"|{_START}(?:anima|image|qwen|instruction)[-_ ]*(?:image[-_ ]*)?edit(?:ing)?{_END}"
    rf"|{_START}edit(?:ing)?[-_ ]*(?:lora|model|adapter){_END}"
    rf"|{_START}reference[-_ ]only{_END}|{_START}control[-_ ]?lora{_END}|lllite"
)
"""Names that mean nothing else."""

_KINDS = (
    rf"(?i)in[-_ ]?context|{_SURE}|{_NAMED}|{_START}(?:anima)?(?:edit|control|reference){_END}"
    rf"|{_START}(?:image|img)[-_ ]?(?:to|2)[-_ ]?(?:image|img){_END}|{_START}t?i2i{_END}"
)
_TITLE_WORDS = (
    rf"(?i){_SURE}|{_START}(?:anima|image|qwen|kirazuri)[-_ ]*(?:{_NAMED})"
    rf"|(?:{_NAMED})(?=[-_ ]*(?:$|v?\d|lora|model|adapter))"
)
"""In titles the name of a method stands after the base model's or at the end."""

_IMAGE = (
    r"(?:reference|control|conditioning|source|input)[ ](?:image|latent|picture|frame)s?(?![a-z])"
)
_NEEDS = (
    r"(?i)(?<!not )(?<!n't )(?<!no longer )(?<!never )"
    r"(?:needs?|requires?|(?:must|has to|have to) be used with)[ ]"
    rf"(?:an? |one |two |three |several |the |\d )?{_IMAGE}"
    rf"|(?:^|[.!;:\n(])[ ]*+(?:an? |one |two |the )?{_IMAGE}[ ](?:is |are )?(?:required|needed)"
    r"|(?<!not an )(?<!not a )(?<!no )\b(?:in-context|image[- ]edit(?:ing)?) lora\b"
)
_TAGS = rf"(?i)(?:^|,)\s*+(?:{_NAMED}|{_SURE})\s*+(?=,|$)"
_KIND_FIELDS = (
    "modelspec.architecture", "modelspec.implementation", "ss_base_model_version",
    "ss_network_module", "ss_training_type", "architecture", "lora_type", "adapter_type", "task",
    "model_type",
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
_NOT_SETTINGS = ("ss_tag_frequency", "ss_dataset_dirs", "prompt", "workflow")
"""Fields whose JSON has words of captions as keys, or is a graph of ComfyUI."""

_CONTROL_IMAGES = (
    r'"(?:(?:control|reference)_(?:image_)?(?:director(?:y|ies)|paths?|dirs?|images?)(?:_\d+)?'
    r'|conditioning_data_dir|has_control|cond_data_dir|controlnet)"\s*+:\s*+(?!null|false|""|\[\]|\{\})'
    r'|"conditioning_type"\s*+:\s*+"(?:controlnet|reference)'
    r'|"(?:[\w.]+\.)?task(?:_type)?"\s*+:\s*+"[^"]*(?:edit|inpaint|in-?context|control)'
)
_KEYS = (
    r"(?i)lllite|controlnet|control_(?:block|adapter|embed)|ip_adapter|image_(?:proj|embed)"
    r"|(?:^|[._])(?:ref|reference|cond|context|frame|role)_(?:attn|adaln|proj|embed|latent|image|visual)"
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
        (_KIND_FIELDS, _KINDS),
        (_TITLE_FIELDS, _TITLE_WORDS),
        (_TEXT_FIELDS, _NEEDS),
        (_TAG_FIELDS, _TAGS),
        (metadata.keys() - set(_NOT_SETTINGS), _CONTROL_IMAGES),
    ):
        for name in sorted(fields):
            # Compiled at the first LoRA, because all together they take long.
            match = re.search(pattern, metadata.get(name, ""))
            if match:
                return f"{name} has {match[0].strip(', ')!r}"
    return next((name for name in _INPUT_FIELDS if name in metadata), None)


def _in_keys(entries: Mapping[str, StoredTensor], patch_columns: int | None) -> str | None:
    named = next(filter(re.compile(_KEYS).search, entries), None)
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
