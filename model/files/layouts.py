"""Finds the parts of a checkpoint in its files, for every supported layout.

The four parts are the transformer, the conditioner (the text adapter), the text_encoder (Qwen3)
and the vae. Reads only headers and configurations; does not need torch.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from model.card import Files
from model.errors import CheckpointError
from model.files.keymap import (
    ADAPTER_PREFIX,
    BUNDLE_PREFIXES,
    TEXT_ENCODER_PREFIX,
    TRANSFORMER_PREFIXES,
    adapter_to_original,
    is_ignored,
    transformer_to_original,
    vae_to_original,
)
from model.files.safetensors_header import SUFFIX, StoredTensor, first_keys, read_header

ORIGINAL = "original"
LIBRARY = "library"
FOLDER_INDEX = "modular_model_index.json"
"""The file that diffusers writes into a folder with a whole checkpoint."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
SUBFOLDERS = {
    "transformer": "transformer",
    "conditioner": "text_conditioner",
    "text_encoder": "text_encoder",
    "vae": "vae",
}
_QWEN_SUBFOLDER, _T5_SUBFOLDER = "tokenizer", "t5_tokenizer"
_DTYPES = frozenset({"F32", "BF16", "F16"})
_QUANTISED = re.compile(
    r"scale_weight$|weight_scale|scaled_fp8|comfy_quant|quant_(state|map)|absmax"
)
_LORA = re.compile(r"\.(lora_(A|B|down|up)\b|lora\.(down|up)\.|lokr_w|hada_w|dora_scale)")
_HEADS = "blocks|x_embedder|t_embedder|t_embedding_norm|final_layer|llm_adapter"
_KINDS = {
    ("conditioner", ""): re.compile(r"^(embed|in_proj|blocks|out_proj|norm)\."),
    ("transformer", ""): re.compile(
        r"^(patch_embed|transformer_blocks|time_embed|proj_out|norm_out)\."
    ),
    ("text_encoder", ""): re.compile(r"^(model\.)?(embed_tokens|layers|norm)\."),
    ("vae", ""): re.compile(r"^((encoder|decoder)\.|(post_)?quant_conv\.|conv[12]\.)"),
} | {
    ("single_file", prefix): re.compile(rf"^{re.escape(prefix)}({_HEADS})\.")
    for prefix in TRANSFORMER_PREFIXES
}
"""The contents that a file or folder may have, each with the start of most of its names."""

_DEFAULT_RES_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """One part of a checkpoint as it is stored.

    `path` is the file or folder, for messages. `tensors` holds the part's tensors by their names
    in the file. `stored_name` converts a parameter's name in the library's module to that name.
    `prefix` precedes every name. `config` is the library's configuration file beside the weights.
    """

    path: Path
    layout: str
    prefix: str
    tensors: Mapping[str, StoredTensor]
    stored_name: Callable[[str], str]
    config: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor by its name in the library. KeyError with its name in the file."""
        return self.tensors[self.stored_name(name)].shape


@dataclass(frozen=True, slots=True)
class LocatedParts:
    """All parts of a checkpoint, and the folders of its tokenizers."""

    transformer: CheckpointPart
    conditioner: CheckpointPart
    text_encoder: CheckpointPart
    vae: CheckpointPart
    qwen_tokenizer: Path
    t5_tokenizer: Path


def locate_parts(files: Files, folder: Path) -> LocatedParts:
    """Find all parts of a checkpoint. `files` are the card's paths, relative to `folder`.

    `folder`, or the path of the card's transformer, may be a folder saved by diffusers. The text
    encoder and the VAE may be in the transformer's file; if not, they are read from the card's
    paths.

    Raises:
        CheckpointError: a file or part is missing, pickled, truncated, quantised or unknown.
    """
    root = library_folder(files, folder)
    main = folder / files.transformer.path
    if root:
        found = {name: _subfolder(root, name) for name in SUBFOLDERS if has_part(root, name)}
    else:
        found = find_parts(main)
    for name, file in (("text_encoder", files.text_encoder), ("vae", files.vae)):
        if name not in found:
            found[name] = _require(name, find_parts(folder / file.path), folder / file.path)
    for name in ("transformer", "conditioner"):
        _require(name, found, root or main)
    qwen, t5 = tokenizer_folders(files, folder)
    return LocatedParts(
        **{name: found[name] for name in SUBFOLDERS}, qwen_tokenizer=qwen, t5_tokenizer=t5
    )


def tokenizer_folders(files: Files, folder: Path) -> tuple[Path, Path]:
    """The folders of the Qwen and the T5 tokenizer. A folder saved by diffusers has its own."""
    root = library_folder(files, folder)
    qwen, t5 = folder / files.qwen_tokenizer, folder / files.t5_tokenizer
    if root and (root / _QWEN_SUBFOLDER).is_dir():
        qwen = root / _QWEN_SUBFOLDER
    if root and (root / _T5_SUBFOLDER).is_dir():
        t5 = root / _T5_SUBFOLDER
    return qwen, t5


def library_folder(files: Files, folder: Path) -> Path | None:
    """The folder of a whole checkpoint saved by diffusers; None if there is none."""
    return next(filter(is_library_folder, (folder, folder / files.transformer.path)), None)


def is_library_folder(path: Path) -> bool:
    """Whether `path` is a folder with a checkpoint saved by diffusers."""
    return (path / FOLDER_INDEX).is_file() or (path / "transformer" / "config.json").is_file()


def has_part(root: Path, name: str) -> bool:
    """Whether a folder saved by diffusers has a subfolder for the part `name`."""
    return (root / SUBFOLDERS[name]).is_dir()


def _subfolder(root: Path, name: str) -> CheckpointPart:
    path = root / SUBFOLDERS[name]
    return _require(name, find_parts(path), path)


def _require(name: str, parts: Mapping[str, CheckpointPart], path: Path) -> CheckpointPart:
    if name not in parts:
        contents = " and ".join(parts) or "nothing"
        raise CheckpointError(f"{path} has no {name}; it has {contents} of an Anima checkpoint")
    return parts[name]


# -- reading parts -----------------------------------------------------------------------


def find_parts(path: Path) -> dict[str, CheckpointPart]:
    """Find all parts in a file, or in a folder to which diffusers saved one part.

    Raises:
        CheckpointError: missing, pickled, truncated or quantised, or a name belongs to no part.
    """
    tensors = read_tensors(path)
    bad = find_quantised(tensors.values())
    if bad:
        raise CheckpointError(
            f"{path}: {bad.key} ({bad.dtype}) belongs to a quantised checkpoint; "
            "weights must be float32, bfloat16 or float16"
        )
    if is_lora(tensors):
        raise CheckpointError(f"{path} is a LoRA, not a checkpoint")
    parts, unknown = sort_into_parts(path, tensors)
    if unknown:
        raise CheckpointError(f"{path} has unknown {first_keys(unknown)}")
    return parts


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Read all tensors of a file, or of the file or shards in a folder, except ignored buffers."""
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(path):
        for key, tensor in read_header(file).tensors.items():
            if key in tensors:
                raise CheckpointError(f"{file}: {key} is in {tensors[key].path.name} too")
            if not is_ignored(key):
                tensors[key] = tensor
    if not tensors:
        raise CheckpointError(f"{path} has no weights")
    return tensors


def weight_files(path: Path) -> list[Path]:
    """The weight files at `path`: itself, or the single file or the shards in a folder."""
    if not path.is_dir():
        return [path]
    indexes = list(path.glob(f"*{SUFFIX}.index.json"))
    if len(indexes) == 1:
        return [path / name for name in _shards(indexes[0])]
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        pickled = sorted(p.name for p in path.glob("*.bin"))
        also = f" (pickles are refused: {', '.join(pickled)})" if pickled else ""
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(
            f"{path} must have one {SUFFIX} file or one index; it has {names}{also}"
        )
    return found


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{index} is not an index of shards: {exc}") from exc
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is not a file beside it")
    return sorted(names)


def find_quantised(tensors: Iterable[StoredTensor]) -> StoredTensor | None:
    """Find a tensor that only a quantised checkpoint has; None if there is none."""
    return next((t for t in tensors if _QUANTISED.search(t.key) or t.dtype not in _DTYPES), None)


def is_lora(names: Iterable[str]) -> bool:
    """Whether these are the names of a LoRA, for any family of models."""
    return any(map(_LORA.search, names))


def sort_into_parts(
    path: Path, tensors: Mapping[str, StoredTensor]
) -> tuple[dict[str, CheckpointPart], list[str]]:
    """Sort tensors into parts by their names. Also returns the names that belong to no part."""
    parts: dict[str, CheckpointPart] = {}
    rest = dict(tensors)
    for name, prefix in BUNDLE_PREFIXES.items():
        bundled = {key: rest.pop(key) for key in tensors if key.startswith(prefix)}
        if bundled:
            parts[name] = _MAKERS[name](path, bundled, prefix)
    if not rest:
        return parts, []
    matches = {kind: sum(map(bool, map(head.match, rest))) for kind, head in _KINDS.items()}
    name, prefix = kind = max(matches, key=lambda kind: matches[kind])
    if not matches[kind] or name in parts:
        return parts, sorted(rest)
    if name == "single_file":
        parts |= _transformer_and_adapter(path, rest, prefix)
    else:
        parts[name] = _MAKERS[name](path, rest, prefix)
    return parts, sorted(key for key in rest if not key.startswith(prefix))


def _transformer_and_adapter(
    path: Path, tensors: Mapping[str, StoredTensor], prefix: str
) -> dict[str, CheckpointPart]:
    prefixed = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    adapter = {k: t for k, t in prefixed.items() if k.startswith(prefix + ADAPTER_PREFIX)}
    transformer = {key: tensor for key, tensor in prefixed.items() if key not in adapter}
    found = {}
    if transformer:
        stored_name = partial(_prefixed, prefix, transformer_to_original)
        found["transformer"] = CheckpointPart(path, ORIGINAL, prefix, transformer, stored_name)
    if adapter:
        stored_name = partial(_prefixed, prefix, adapter_to_original)
        found["conditioner"] = CheckpointPart(path, ORIGINAL, prefix, adapter, stored_name)
    return found


def _as_library(path: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> CheckpointPart:
    return CheckpointPart(
        path, LIBRARY, prefix, tensors, partial(_prefixed, prefix, str), _config(path)
    )


def _text_encoder(path: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> CheckpointPart:
    # The head is tied to the embedding, and the text encoder does not predict words.
    kept = {key: t for key, t in tensors.items() if key != f"{prefix}lm_head.weight"}
    inner = prefix + TEXT_ENCODER_PREFIX
    is_original = any(key.startswith(inner) for key in kept)
    prefix, layout = (inner, ORIGINAL) if is_original else (prefix, LIBRARY)
    return CheckpointPart(
        path, layout, prefix, kept, partial(_prefixed, prefix, str), _config(path)
    )


def _vae(path: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> CheckpointPart:
    if any(".conv_in." in key or "quant_conv." in key for key in tensors):
        return _as_library(path, tensors, prefix)
    to_original = partial(_vae_to_original, count_res_blocks(tensors))
    return CheckpointPart(path, ORIGINAL, prefix, tensors, partial(_prefixed, prefix, to_original))


_MAKERS: dict[str, Callable[[Path, Mapping[str, StoredTensor], str], CheckpointPart]] = {
    "transformer": _as_library,
    "conditioner": _as_library,
    "text_encoder": _text_encoder,
    "vae": _vae,
}


def _prefixed(prefix: str, to_original: Callable[[str], str], name: str) -> str:
    return prefix + to_original(name)


def _vae_to_original(num_res_blocks: int, name: str) -> str:
    return vae_to_original(name, num_res_blocks)


def count_res_blocks(names: Iterable[str]) -> int:
    """A VAE's residual blocks per level without the one after an up-sampler, from its names."""
    flat = (re.search(r"decoder\.upsamples\.(\d+)\.resample\.", name) for name in names)
    first = min((int(match[1]) for match in flat if match), default=None)
    if first is not None:
        return first - 1
    inner = (re.search(r"decoder\.up_blocks\.0\.resnets\.(\d+)\.", name) for name in names)
    return max((int(match[1]) for match in inner if match), default=_DEFAULT_RES_BLOCKS)


def _config(path: Path) -> Mapping[str, Any]:
    """The configuration beside the weights in the folder `path`; empty for a file."""
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"cannot read {file}: {exc}") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return config
