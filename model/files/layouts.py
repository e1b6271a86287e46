"""Where the parts of a checkpoint lie: in which files, under which names.

Four parts: transformer, conditioner (the text adapter), text_encoder (Qwen3) and vae. Reads
headers and configurations, never a weight, and needs no torch. Knows names, not sizes.
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
from model.files.safetensors_header import SUFFIX, StoredTensor, read_header

ORIGINAL = "original"
LIBRARY = "library"
FOLDER_INDEX = "modular_model_index.json"
"""What the library writes into a folder that holds a whole checkpoint."""

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
"""What a file or a folder may hold, and how most of its names begin then."""

_DEFAULT_RES_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a checkpoint as it is stored.

    `path` is the file or folder that messages name. `tensors` has all that is stored for the part,
    by its name there; `spell` gives that name for a parameter's name in the library's module.
    `prefix` is what stands before every name. `config` is what the library wrote beside the
    weights.
    """

    path: Path
    layout: str
    prefix: str
    tensors: Mapping[str, StoredTensor]
    spell: Callable[[str], str]
    config: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor by its name in the library. KeyError, with the name in the file."""
        return self.tensors[self.spell(name)].shape


@dataclass(frozen=True, slots=True)
class LocatedParts:
    """Every part of one checkpoint, and the folders of its tokenizers."""

    transformer: Part
    conditioner: Part
    text_encoder: Part
    vae: Part
    qwen_tokenizer: Path
    t5_tokenizer: Path


def locate(files: Files, folder: Path) -> LocatedParts:
    """Find all parts of the checkpoint in `folder` for which a card has `files`.

    The folder, or the place of the card's transformer, may be a folder that the library saved.
    The text encoder and the VAE may be in the transformer's file; if not, the card's own files
    are taken.

    Raises:
        CheckpointError: a file or part is missing, pickled, truncated, quantised or unknown.
    """
    root = library_folder(files, folder)
    main = folder / files.transformer.path
    if root:
        found = {name: _subfolder(root, name) for name in SUBFOLDERS if has_part(root, name)}
    else:
        found = read_parts(main)
    for name, own in (("text_encoder", files.text_encoder), ("vae", files.vae)):
        if name not in found:
            found[name] = _require(name, read_parts(folder / own.path), folder / own.path)
    for name in ("transformer", "conditioner"):
        _require(name, found, root or main)
    qwen, t5 = tokenizer_folders(files, folder)
    return LocatedParts(
        **{name: found[name] for name in SUBFOLDERS}, qwen_tokenizer=qwen, t5_tokenizer=t5
    )


def tokenizer_folders(files: Files, folder: Path) -> tuple[Path, Path]:
    """The folders of Qwen's and of T5's tokenizer: a library's folder has its own."""
    root = library_folder(files, folder)
    qwen, t5 = folder / files.qwen_tokenizer, folder / files.t5_tokenizer
    if root and (root / _QWEN_SUBFOLDER).is_dir():
        qwen = root / _QWEN_SUBFOLDER
    if root and (root / _T5_SUBFOLDER).is_dir():
        t5 = root / _T5_SUBFOLDER
    return qwen, t5


def library_folder(files: Files, folder: Path) -> Path | None:
    """The folder with a whole checkpoint as the library saves it, if that is what there is."""
    return next(filter(is_library_folder, (folder, folder / files.transformer.path)), None)


def is_library_folder(path: Path) -> bool:
    """Whether the library has saved a checkpoint to the folder `path`."""
    return (path / FOLDER_INDEX).is_file() or (path / "transformer" / "config.json").is_file()


def has_part(root: Path, name: str) -> bool:
    """Whether a folder that the library saved has a subfolder for the part `name`."""
    return (root / SUBFOLDERS[name]).is_dir()


def _subfolder(root: Path, name: str) -> Part:
    path = root / SUBFOLDERS[name]
    return _require(name, read_parts(path), path)


def _require(name: str, parts: Mapping[str, Part], path: Path) -> Part:
    if name not in parts:
        holds = " and ".join(parts) or "nothing"
        raise CheckpointError(f"{path} has no {name}; it holds {holds} of an Anima checkpoint")
    return parts[name]


# -- from names to parts -----------------------------------------------------------------------


def read_parts(path: Path) -> dict[str, Part]:
    """All parts in a file, or in a folder to which the library saved one part.

    Raises:
        CheckpointError: missing, pickled, truncated or quantised; or a name belongs to no part.
    """
    tensors = read_tensors(path)
    bad = quantised(tensors.values())
    if bad:
        raise CheckpointError(
            f"{path}: {bad.key} ({bad.dtype}) belongs to a quantised checkpoint; "
            "weights must be float32, bfloat16 or float16"
        )
    if is_lora(tensors):
        raise CheckpointError(f"{path} is a LoRA, no checkpoint")
    parts, unknown = sort_into_parts(path, tensors)
    if unknown:
        raise CheckpointError(f"{path} has unknown {few(unknown)}")
    return parts


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """All tensors of a file, or of the file or shards in a folder; without ignored buffers."""
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(path):
        for key, tensor in read_header(file).tensors.items():
            if key in tensors:
                raise CheckpointError(f"{file}: {key} is in {tensors[key].path.name} too")
            if not is_ignored(key):
                tensors[key] = tensor
    if not tensors:
        raise CheckpointError(f"{path} holds no weights")
    return tensors


def weight_files(path: Path) -> list[Path]:
    """The files at `path`: itself, or what is in the folder, one file or the shards of an index."""
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
        raise CheckpointError(f"{index} is no index of shards: {exc}") from exc
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is no file beside it")
    return sorted(names)


def quantised(tensors: Iterable[StoredTensor]) -> StoredTensor | None:
    """A tensor that only a quantised checkpoint has; None if there is none."""
    return next((t for t in tensors if _QUANTISED.search(t.key) or t.dtype not in _DTYPES), None)


def is_lora(names: Iterable[str]) -> bool:
    """Whether these are the names of a LoRA, of any family."""
    return any(map(_LORA.search, names))


def sort_into_parts(
    path: Path, tensors: Mapping[str, StoredTensor]
) -> tuple[dict[str, Part], list[str]]:
    """Tell the parts by the names of their tensors; the second value are names of no part."""
    parts: dict[str, Part] = {}
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
) -> dict[str, Part]:
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    adapter = {k: t for k, t in own.items() if k.startswith(prefix + ADAPTER_PREFIX)}
    transformer = {key: tensor for key, tensor in own.items() if key not in adapter}
    found = {}
    if transformer:
        spell = partial(_prefixed, prefix, transformer_to_original)
        found["transformer"] = Part(path, ORIGINAL, prefix, transformer, spell)
    if adapter:
        spell = partial(_prefixed, prefix, adapter_to_original)
        found["conditioner"] = Part(path, ORIGINAL, prefix, adapter, spell)
    return found


def _as_library(path: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> Part:
    return Part(path, LIBRARY, prefix, tensors, partial(_prefixed, prefix, str), _config(path))


def _text_encoder(path: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> Part:
    # The head is tied to the embedding, and nothing here predicts words.
    kept = {key: t for key, t in tensors.items() if key != f"{prefix}lm_head.weight"}
    inner = prefix + TEXT_ENCODER_PREFIX
    is_original = any(key.startswith(inner) for key in kept)
    prefix, layout = (inner, ORIGINAL) if is_original else (prefix, LIBRARY)
    return Part(path, layout, prefix, kept, partial(_prefixed, prefix, str), _config(path))


def _vae(path: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> Part:
    if any(".conv_in." in key or "quant_conv." in key for key in tensors):
        return _as_library(path, tensors, prefix)
    to_original = partial(_vae_to_original, res_blocks(tensors))
    return Part(path, ORIGINAL, prefix, tensors, partial(_prefixed, prefix, to_original))


_MAKERS: dict[str, Callable[[Path, Mapping[str, StoredTensor], str], Part]] = {
    "transformer": _as_library,
    "conditioner": _as_library,
    "text_encoder": _text_encoder,
    "vae": _vae,
}


def _prefixed(prefix: str, to_original: Callable[[str], str], name: str) -> str:
    return prefix + to_original(name)


def _vae_to_original(num_res_blocks: int, name: str) -> str:
    return vae_to_original(name, num_res_blocks)


def res_blocks(names: Iterable[str]) -> int:
    """A VAE's residual blocks per level, less the one that follows an up-sampler, by its names."""
    flat = (re.search(r"decoder\.upsamples\.(\d+)\.resample\.", name) for name in names)
    first = min((int(match[1]) for match in flat if match), default=None)
    if first is not None:
        return first - 1
    inner = (re.search(r"decoder\.up_blocks\.0\.resnets\.(\d+)\.", name) for name in names)
    return max((int(match[1]) for match in inner if match), default=_DEFAULT_RES_BLOCKS)


def _config(path: Path) -> Mapping[str, Any]:
    """What the library wrote beside the weights in the folder `path`; nothing for a file."""
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"cannot read {file}: {exc}") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} is no table of names and values")
    return config


def few(keys: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more keys"
