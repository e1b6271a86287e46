"""Tables of ComfyUI nodes: which output repeats which input, and what text nodes write.

Facts about nodes of ComfyUI and of common extensions. An output that is not in these tables is not
followed.
"""

import re
from collections.abc import Callable, Mapping

_CONTEXT = ("base_ctx", "model", "clip", "vae", "positive", "negative", "latent", "images", "seed")
_CONTEXT_BIG = (
    *_CONTEXT,
    *("steps", "step_refiner", "cfg", "ckpt_name", "sampler", "scheduler", "clip_width"),
    *("clip_height", "text_pos_g", "text_pos_l", "text_neg_g", "text_neg_l", "mask", "control_net"),
)
CONTEXTS = frozenset({"Context (rgthree)", "Context Big (rgthree)"})
"""Nodes that take what they are not given from the node at `base_ctx`."""

REROUTES = frozenset(
    {"Reroute", "Reroute (rgthree)", "ReroutePrimitive|pysssss", "Any Switch (rgthree)"}
)
"""Nodes whose output is their input, if they have just one."""

REPEATED_INPUTS: Mapping[str, tuple[str | None, ...]] = {
    **{
        f"Primitive{name}": ("value",)
        for name in ("Node", "Int", "Float", "String", "StringMultiline", "Boolean")
    },
    "Context (rgthree)": _CONTEXT,
    "Context Big (rgthree)": _CONTEXT_BIG,
    "KSampler Config (rgthree)": (
        *("steps_total", "refiner_step", "cfg", "sampler_name", "scheduler"),
    ),
    "Seed (rgthree)": ("seed",),
    "Power Primitive (rgthree)": ("value",),
    "Input Parameters (Image Saver)": (
        *("seed", "steps", "cfg", "sampler", "scheduler", "denoise"),
    ),
    "Sampler Selector (Image Saver)": ("sampler_name", "sampler_name"),
    "Scheduler Selector (Image Saver)": ("scheduler", "scheduler"),
    "Scheduler Selector (inspire) (Image Saver)": ("scheduler", "scheduler"),
    "Scheduler Selector (Eff.) (Image Saver)": ("scheduler", "scheduler"),
    "Any to String (Image Saver)": ("value",),
    "String Literal (Image Saver)": ("string",),
    "Width/Height Literal (Image Saver)": ("size",),
    "Cfg Literal (Image Saver)": ("cfg",),
    "Int Literal (Image Saver)": ("int",),
    "Float Literal (Image Saver)": ("float",),
    "UNet loader with Name (Image Saver)": (None, "unet_name"),
    "CR Seed": ("seed",),
    "CR Prompt Text": ("prompt",),
    "CR Text": ("text",),
    "easy seed": ("seed",),
    "easy int": ("value",),
    "easy float": ("value",),
    "easy string": ("value",),
    "easy positive": ("positive",),
    "easy negative": ("negative",),
    "ttN text": ("text",),
    "INTConstant": ("value",),
    "FloatConstant": ("value",),
    "StringConstant": ("string",),
    "ImpactInt": ("value",),
    "ImpactFloat": ("value",),
    "ShowText|pysssss": ("text",),
    "ImpactWildcardProcessor": ("populated_text",),
    "ImpactWildcardEncode": (None, None, None, "populated_text"),
    "KSampler (Efficient)": ("model", "positive", "negative"),
}
"""The input that each output repeats, by node type; None for outputs that are something else."""

_MAX_TEXT_CHARS = 100_000

Get = Callable[[str], object]
"""Gives the value of an input; "" if the node does not have it."""


def _texts(get: Get, *names: str) -> list[str]:
    return [str(get(name)) for name in names]


def _concatenate(get: Get) -> str:
    return str(get("delimiter")).join(_texts(get, "string_a", "string_b"))


def _join_two(get: Get) -> str:
    return str(get("delimiter")).join(_texts(get, "string1", "string2"))


def _join_many(get: Get) -> str:
    count = get("inputcount")
    numbers = range(1, min(count, 100) + 1) if isinstance(count, int) else ()
    return str(get("delimiter")).join(_texts(get, *(f"string_{number}" for number in numbers)))


def _replace(get: Get) -> str | None:
    return _replaced(*_texts(get, "string", "find", "replace"))


def _replaced(text: str, find: str, replace: str) -> str | None:
    """The text with replacements; None if it grew too long."""
    if not find:
        return text
    is_short = text.count(find) * len(replace) <= _MAX_TEXT_CHARS
    return text.replace(find, replace) if is_short else None


def _substring(get: Get) -> str | None:
    start, end = get("start"), get("end")
    if not (isinstance(start, int) and isinstance(end, int)):
        return None
    return str(get("string"))[start:end]


def _trim(get: Get) -> str:
    text, mode = _texts(get, "string", "mode")
    return {"Left": text.lstrip(), "Right": text.rstrip()}.get(mode, text.strip())


def _change_case(get: Get) -> str:
    text, mode = _texts(get, "string", "mode")
    changed = {"UPPERCASE": text.upper(), "lowercase": text.lower(), "Title Case": text.title()}
    return text.capitalize() if mode == "Capitalize" else changed.get(mode, text)


def _was_concatenate(get: Get) -> str:
    """Text Concatenate of the WAS suite; empty texts are left out."""
    texts = _texts(get, "text_a", "text_b", "text_c", "text_d")
    if get("clean_whitespace") == "true":
        texts = [text.strip() for text in texts]
    return str(get("delimiter")).replace("\\n", "\n").join(filter(None, texts))


def _without_comments(get: Get) -> str | None:
    """Text Multiline of the WAS suite; None if its tokens in square brackets may be replaced."""
    lines = str(get("text")).split("\n")
    kept = [line for line in lines if not line.strip().startswith("#")]
    return None if any("[" in line for line in kept) else "\n".join(kept)


def _constant_lines(get: Get) -> str:
    """StringConstantMultiline of KJNodes, which doubles the line ends that it does not strip."""
    text = str(get("string"))
    return text if get("strip_newlines") else text.replace("\n", "\n\n")


def _string_function(get: Get) -> str | None:
    """String Function of Custom Scripts; None for regular expressions."""
    first, second, third = (
        "" if text == "undefined" else text for text in _texts(get, "text_a", "text_b", "text_c")
    )
    is_tidy = get("tidy_tags") == "yes"
    text: str | None = None
    if get("action") == "append":
        text = (", " if is_tidy else "").join(filter(None, (first, second, third)))
    elif not (second.startswith("/") and second.endswith("/")):
        text = _replaced(first, second, third)
    if text is not None and is_tidy:
        text = text.replace("  ", " ").replace(" ,", ",").replace(",,", ",").replace(",,", ",")
    return text


def _seed_with_increment(get: Get) -> int | None:
    seed, increment = get("seed"), get("increment") or 0
    if not (isinstance(seed, int) and isinstance(increment, int)):
        return None
    return seed + increment


COMPUTED: Mapping[str, Callable[[Get], object]] = {
    "StringConcatenate": _concatenate,
    "StringReplace": _replace,
    "StringSubstring": _substring,
    "StringTrim": _trim,
    "CaseConverter": _change_case,
    "JoinStrings": _join_two,
    "JoinStringMulti": _join_many,
    "Text Concatenate": _was_concatenate,
    "Text Multiline": _without_comments,
    "StringConstantMultiline": _constant_lines,
    "StringFunction|pysssss": _string_function,
    "Seed Generator (Image Saver)": _seed_with_increment,
}
"""What the first output of a node is, from its inputs; None if it cannot be computed here."""

_LABELLED_SIZE = re.compile(r"(\d{2,5})\s?x\s?(\d{2,5})\s*(?:\([^()]*\))?\s*$")
_SIZE_NODES: Mapping[str, tuple[str, int]] = {
    "CR Aspect Ratio": ("aspect_ratio", 5),
    "CR SDXL Aspect Ratio": ("aspect_ratio", 4),
    "CR SD1.5 Aspect Ratio": ("aspect_ratio", 4),
    "CR Aspect Ratio Banners": ("aspect_ratio", 5),
    "CR Aspect Ratio Social Media": ("aspect_ratio", 5),
    "SDXL Empty Latent Image (rgthree)": ("dimensions", 0),
}
"""Nodes that choose a size by a label that ends with it: the input, and the output of latents."""


def labelled_size(kind: str, get: Get) -> tuple[int, int] | None:
    """The size that a node chooses by a label, or by its sides if the label is `custom`."""
    if kind not in _SIZE_NODES:
        return None
    label = str(get(_SIZE_NODES[kind][0]))
    if found := _LABELLED_SIZE.search(label[-100:]):
        width, height = int(found[1]), int(found[2])
    elif label.lower() == "custom" and all(isinstance(get(side), int) for side in _SIDES):
        width, height = (int(str(get(side))) for side in _SIDES)
    else:
        return None
    if get("swap_dimensions") == "On":
        width, height = height, width
    factor = get("prescale_factor")
    if isinstance(factor, int | float) and 0 < factor < 100:
        width, height = int(width * factor), int(height * factor)
    return width, height


def labelled_side(kind: str, slot: int, get: Get) -> int | None:
    """The width or height that a node of `labelled_size` has at one of its outputs.

    A node whose first output is latents has the sides after it, scaled for the text encoder.
    """
    size = labelled_size(kind, get)
    place = slot if size is None or latent_output(kind) else slot - 1
    if size is None or place not in (0, 1):
        return None
    if latent_output(kind):
        return size[place]
    scale = get("clip_scale")
    is_scale = isinstance(scale, int | float) and 0 < scale < 100
    return int(size[place] * float(str(scale))) if is_scale else None


_SIDES = ("width", "height")


def latent_output(kind: str) -> int:
    """The output of a node of `labelled_size` that has its latents."""
    return _SIZE_NODES[kind][1]
