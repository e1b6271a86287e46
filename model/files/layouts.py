"""Finds the parts of a checkpoint in its files, for every supported layout.

The four parts are the transformer, the conditioner (the text adapter), the text_encoder (Qwen3)
and the vae. Reads only headers and configurations; does not need torch.
"""

import json
import logging
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
    transformer_to_original,
    vae_to_original,
)
from model.files.safetensors_header import StoredTensor, first_keys
from model.files.stored_weights.reading import StoredWeights, read_weights

logger = logging.getLogger(__name__)

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
PARTS = tuple(SUBFOLDERS)
"""The names of the four parts."""

_QWEN_SUBFOLDER, _T5_SUBFOLDER = "tokenizer", "t5_tokenizer"
_LORA = re.compile(
    r"\.(\w*lora|lokr|hada|b?oft|ia3|vera)_\w|[._]lora\.(down|up)\.|^bundle_emb\."
    r"|\.(dora_scale|dora_multiplier|initial_norm|diff|diff_b|[wb]_norm|on_input)$"
    r"|\.[ab][12]\.weight$"
)
"""Names of every LoRA method that is read, and of those that are refused."""

_HEADS = "blocks|x_embedder|t_embedder|t_embedding_norm|final_layer|llm_adapter"
_KINDS = {
    ("conditioner", ""): re.compile(r"^(embed|in_proj|blocks|out_proj|norm)\."),
    ("transformer", ""): re.compile(
        r"^(patch_embed|transformer_blocks|time_embed|proj_out|norm_out)\."
    ),
    ("text_encoder", ""): re.compile(r"^(model\.)?(embed_tokens|layers|norm)\."),
    ("vae", ""): re.compile(r"^((encoder|decoder)\.(?!block\.)|(post_)?quant_conv\.|conv[12]\.)"),
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
    in the file, without wrappers. `stored_name` converts a parameter's name in the library's
    module to that name. `prefix` precedes every name. `config` is the library's configuration
    file beside the weights.
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
    """All parts of a checkpoint by their names, and the folders of its tokenizers."""

    parts: Mapping[str, CheckpointPart]
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
    found: dict[str, CheckpointPart] = {}
    for path, names in part_places(files, folder):
        if set(names) <= set(found):
            continue
        here = find_parts(path)
        if len(names) == 1:
            _require(names[0], here, path)
        found |= {name: part for name, part in here.items() if name in names}
    for name in PARTS:
        _require(name, found, library_folder(files, folder) or folder / files.transformer.path)
    return LocatedParts(found, *tokenizer_folders(files, folder))


def readable_parts(files: Files, folder: Path) -> tuple[dict[str, CheckpointPart], dict[Path, str]]:
    """The parts that `locate_parts` finds and can read, and why not, by path, for the others."""
    found: dict[str, CheckpointPart] = {}
    problems = {}
    for path, names in part_places(files, folder):
        if set(names) <= set(found):
            continue
        try:
            here = find_parts(path)
        except CheckpointError as exc:
            problems[path] = str(exc)
        else:
            found |= {name: part for name, part in here.items() if name in names}
    return found, problems


def part_places(files: Files, folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """The paths to read parts from, in order, and the parts to take from each.

    A path is not read if all of its parts were found before it.
    """
    root = library_folder(files, folder)
    places: list[tuple[Path, tuple[str, ...]]] = [(folder / files.transformer.path, PARTS)]
    if root:
        places = [(root / SUBFOLDERS[name], (name,)) for name in PARTS if has_part(root, name)]
    return [
        *places,
        (folder / files.text_encoder.path, ("text_encoder",)),
        (folder / files.vae.path, ("vae",)),
    ]


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
    stored = read_weights(path)
    if is_lora(stored.raw):
        raise CheckpointError(f"{path} is a LoRA, not a checkpoint")
    parts, problems = sort_into_parts(stored)
    if problems:
        raise CheckpointError(problems[0])
    for kind, keys in stored.passed_over.items():
        logger.info("%s: passed over %d tensors (%s): %s", path, len(keys), kind, first_keys(keys))
    return parts


def is_lora(names: Iterable[str]) -> bool:
    """Whether these are the names of a LoRA, for any family of models."""
    return any(map(_LORA.search, names))


def sort_into_parts(stored: StoredWeights) -> tuple[dict[str, CheckpointPart], list[str]]:
    """Sort weights into parts by their names. Also returns what refuses the file."""
    parts: dict[str, CheckpointPart] = {}
    rest = dict(stored.weights)
    for name, prefixes in BUNDLE_PREFIXES.items():
        for prefix in prefixes:
            bundled = {key: rest.pop(key) for key in list(rest) if key.startswith(prefix)}
            if bundled:
                parts[name] = _MAKERS[name](stored.path, bundled, prefix)
                break
    unknown = _sort_rest(stored.path, rest, parts)
    keys = sorted(stored.weights[name].key for name in unknown)
    problems = [f"{stored.path} has unknown {first_keys(keys)}"] if keys else []
    return parts, stored.problems + problems


def _sort_rest(
    path: Path, rest: Mapping[str, StoredTensor], parts: dict[str, CheckpointPart]
) -> list[str]:
    """Add the part of the names outside bundles to `parts`. Returns names of no part."""
    if not rest:
        return []
    matches = {kind: sum(map(bool, map(head.match, rest))) for kind, head in _KINDS.items()}
    name, prefix = kind = max(matches, key=lambda kind: matches[kind])
    if not matches[kind] or name in parts:
        return list(rest)
    if name == "single_file":
        parts |= _transformer_and_adapter(path, rest, prefix)
    else:
        parts[name] = _MAKERS[name](path, rest, prefix)
    return [key for key in rest if not key.startswith(prefix)]


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
