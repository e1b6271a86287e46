"""Tells which inputs of known ComfyUI nodes a reader must not pass over.

Facts about nodes of ComfyUI and of common extensions. For each known node, an input is read by the
reader, has no effect on the image, or has no effect at some values. Every other input is unread.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from model.recipes.comfyui.nodes import REPEATED_INPUTS

_NO_EFFECT = frozenset(
    {
        *("control_after_generate", "control after generate", "speak_and_recognation"),
        *("Select to add LoRA", "Select to add Wildcard", "PowerLoraLoaderHeaderWidget"),
        *("➕ Add Lora", "insert_lora", "insert_embedding", "insert_saved", "preview_method"),
    }
)
"""Inputs that only the frontend of ComfyUI uses, in any node."""

_LINKS = "model positive negative latent_image"
_LORA = "lora_name strength_model strength_clip model clip"
_SIZE = "width height batch_size"
_ASPECT = f"{_SIZE} aspect_ratio swap_dimensions upscale_factor prescale_factor"

_READ: Mapping[str, str] = {
    "KSampler": f"seed steps cfg sampler_name scheduler denoise {_LINKS}",
    "KSamplerAdvanced": "add_noise noise_seed steps cfg sampler_name scheduler start_at_step "
    f"end_at_step {_LINKS}",
    "SamplerCustom": f"add_noise noise_seed cfg sampler sigmas {_LINKS}",
    "SamplerCustomAdvanced": "noise guider sampler sigmas latent_image",
    "KSampler (Efficient)": "seed steps cfg sampler_name scheduler denoise vae_decode "
    f"optional_vae script {_LINKS}",
    "KSampler Adv. (Efficient)": "add_noise noise_seed steps cfg sampler_name scheduler "
    f"start_at_step end_at_step vae_decode optional_vae script {_LINKS}",
    "RandomNoise": "noise_seed",
    "CFGGuider": "cfg model positive negative",
    "BasicGuider": "model conditioning",
    "KSamplerSelect": "sampler_name",
    "BasicScheduler": "scheduler steps denoise model",
    "UNETLoader": "unet_name",
    "UnetLoaderGGUF": "unet_name",
    "UNet loader with Name (Image Saver)": "unet_name",
    "CheckpointLoaderSimple": "ckpt_name",
    "CheckpointLoader|pysssss": "ckpt_name prompt",
    "Checkpoint Loader Simple (Image Saver)": "ckpt_name",
    "Checkpoint Loader with Name (Image Saver)": "ckpt_name",
    "ModelSamplingSD3": "shift model",
    "ModelSamplingAuraFlow": "shift model",
    "CLIPLoader": "clip_name type device",
    "CLIPLoaderGGUF": "clip_name type",
    "DualCLIPLoader": "clip_name# type device",
    "DualCLIPLoaderGGUF": "clip_name# type",
    "TripleCLIPLoader": "clip_name#",
    "CLIPSetLastLayer": "clip",
    "CLIPTextEncode": "text clip",
    "BNK_CLIPTextEncodeAdvanced": "text clip",
    "smZ CLIPTextEncode": "text clip smZ_steps",
    "CLIPTextEncodeSDXL": "text_g text_l clip",
    "CLIPTextEncodeFlux": "clip_l t5xxl clip",
    "Power Prompt (rgthree)": "prompt opt_model opt_clip",
    "Power Prompt - Simple (rgthree)": "prompt opt_clip",
    "ImpactWildcardProcessor": "wildcard_text populated_text mode seed",
    "ImpactWildcardEncode": "wildcard_text populated_text mode seed model clip",
    "LoraLoader": _LORA,
    "LoraLoaderModelOnly": "lora_name strength_model model",
    "LoraLoader|pysssss": f"{_LORA} prompt",
    "CR Load LoRA": f"{_LORA} switch",
    "Efficient Loader": "ckpt_name lora_name lora_model_strength lora_clip_strength positive "
    "negative empty_latent_width empty_latent_height batch_size lora_stack",
    "Power Lora Loader (rgthree)": "lora_# model clip",
    "Lora Loader Stack (rgthree)": "lora_# strength_# model clip",
    "CR LoRA Stack": "switch_# lora_name_# model_weight_# clip_weight_# lora_stack",
    "CR Apply LoRA Stack": "lora_stack model clip",
    "LoRA Stacker": "input_mode lora_count lora_name_# lora_wt_# model_str_# clip_str_# lora_stack",
    "Lora Loader (LoraManager)": "text loras model clip lora_stack",
    "Lora Stacker (LoraManager)": "text loras lora_stack",
    "LoraTagLoader": "text model clip",
    "EmptyLatentImage": _SIZE,
    "EmptySD3LatentImage": _SIZE,
    "EmptyHunyuanLatentVideo": _SIZE,
    "EmptyCosmosLatentVideo": _SIZE,
    "EmptyFlux2LatentImage": _SIZE,
    "EmptyHunyuanImageLatent": _SIZE,
    "CR Aspect Ratio": _ASPECT,
    "CR SDXL Aspect Ratio": _ASPECT,
    "CR SD1.5 Aspect Ratio": _ASPECT,
    "CR Aspect Ratio Banners": _ASPECT,
    "CR Aspect Ratio Social Media": _ASPECT,
    "SDXL Empty Latent Image (rgthree)": "dimensions clip_scale batch_size",
    "Context (rgthree)": "base_ctx",
    "Context Big (rgthree)": "base_ctx",
    "VAELoader": "vae_name",
    "Power Primitive (rgthree)": "type value",
    "ShowText|pysssss": "text text_#",
    "StringConcatenate": "string_a string_b delimiter",
    "StringReplace": "string find replace",
    "StringSubstring": "string start end",
    "StringTrim": "string mode",
    "CaseConverter": "string mode",
    "JoinStrings": "string# delimiter",
    "JoinStringMulti": "inputcount string_# delimiter",
    "Text Concatenate": "text_a text_b text_c text_d delimiter clean_whitespace",
    "Text Multiline": "text",
    "StringConstantMultiline": "string strip_newlines",
    "StringFunction|pysssss": "action tidy_tags text_a text_b text_c result",
    "Seed Generator (Image Saver)": "seed increment",
}
"""The inputs of each known node that are read or have no effect; `#` stands for a number."""

_WITHOUT_EFFECT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "KSamplerAdvanced": {"return_with_leftover_noise": ("disable",)},
    "KSampler Adv. (Efficient)": {"return_with_leftover_noise": ("disable",)},
    "UNETLoader": {"weight_dtype": ("default",)},
    "UNet loader with Name (Image Saver)": {"weight_dtype": ("default",)},
    "CLIPSetLastLayer": {"stop_at_clip_layer": (-1,)},
    "BNK_CLIPTextEncodeAdvanced": {
        "token_normalization": ("none",),
        "weight_interpretation": ("comfy",),
    },
    "smZ CLIPTextEncode": {
        "parser": ("comfy",),
        "with_SDXL": (False,),
        "use_old_emphasis_implementation": (False,),
    },
    "Efficient Loader": {
        "clip_skip": (-1,),
        "vae_name": ("Baked VAE",),
        "token_normalization": ("none",),
        "weight_interpretation": ("comfy",),
    },
    "EmptyHunyuanLatentVideo": {"length": (1,)},
    "EmptyCosmosLatentVideo": {"length": (1,)},
    "JoinStringMulti": {"return_list": (False,)},
}
"""Values of further inputs that do not affect the image."""

_ONE_SWITCH: Mapping[str, tuple[str, str]] = {"smZ CLIPTextEncode": ("parser", "comfy")}
"""Nodes whose other options have no effect while one input has this value."""

_NUMBER = re.compile(r"\d{1,6}$")


def is_known(kind: str) -> bool:
    """Whether the inputs of nodes of this type are known."""
    return kind in _READ or kind in REPEATED_INPUTS


def unread_inputs(kind: str, inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The inputs of a known node that affect the image and that no reader knows, with their values.

    Nothing for a node that is not known: readers note such a node as a whole.
    """
    if not is_known(kind):
        return
    read = {*_READ.get(kind, "").split(), *REPEATED_INPUTS.get(kind, ())}
    neutral = _WITHOUT_EFFECT.get(kind, {})
    switch, off = _ONE_SWITCH.get(kind, ("", ""))
    for name, value in inputs.items():
        if name in read or _NUMBER.sub("#", name) in read or name in _NO_EFFECT:
            continue
        if value in (None, "") or value in neutral.get(name, ()):
            continue
        if switch and inputs.get(switch) == off and name not in neutral:
            continue
        yield name, value
