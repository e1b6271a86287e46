"""Compares the number of transformer blocks of a LoRA with the checkpoint's.

Anima's published depths are 28, 40 and 52 blocks. A LoRA names the blocks that it changes, so that
its highest block shows the depth that it was made for.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from model.errors import LoraUnusable
from model.files.lora.targets import DOTTED_PREFIXES, FLAT_PREFIXES
from model.files.safetensors_header import first_keys

PUBLISHED_DEPTHS = (28, 40, 52)
_NEW_OF_40 = frozenset({2, 5, 8, 11, 14, 17, 21, 24, 27, 30, 33, 36})
"""The blocks that were inserted to make 40 of 28."""

_OLD_IN_40 = tuple(block for block in range(40) if block not in _NEW_OF_40)
_PREFIXES = "|".join(
    prefix.replace(".", "_")
    for prefix in (*DOTTED_PREFIXES["transformer"], *FLAT_PREFIXES["transformer"])
)
_BLOCK = re.compile(rf"(?:[.]|^(?:{_PREFIXES}))(?:transformer_)?blocks[._](\d{{1,4}})[._]")
_BASE_FIELD = "ss_base_model_version"
_VERSION = re.compile(r"anima[-_ ]?(28|40|52)[-_ ]?(?:b|blocks?|l|layers?)", re.IGNORECASE)
_NOT_TRANSFORMER = re.compile(r"llm[_.]adapter|text_conditioner|^text_encoder|^lora_te")


@dataclass(frozen=True, slots=True)
class DepthMatch:
    """How a LoRA's blocks fit: `new_blocks[i]` replaces block i; a warning if in doubt."""

    new_blocks: tuple[int, ...] | None = None
    warning: str | None = None


def block_of(stem: str) -> int | None:
    """The transformer block that a module's name in a LoRA file means."""
    match = None if _NOT_TRANSFORMER.search(stem) else _BLOCK.search(stem)
    return int(match[1]) if match else None


def stated_depth(metadata: Mapping[str, str]) -> int | None:
    """The number of blocks of the base model that the metadata says; None if it does not.

    AnimaLoraStudio writes `base_num_blocks`; other writers may give the version of the base model
    as `anima-40b`. Names of files do not count: `v40b` in one is a version.
    """
    match = re.search(r'"base_num_blocks"\s*+:\s*+"?(\d{1,3})', metadata.get("ss_network_args", ""))
    if match:
        return int(match[1])
    version = _VERSION.fullmatch(metadata.get(_BASE_FIELD, "").strip())
    return int(version[1]) if version else None


def match_depth(stems: Iterable[str], depth: int, stated: int | None = None) -> DepthMatch:
    """Compare the blocks that a LoRA changes with a checkpoint of `depth` blocks.

    `stated` is the depth that the file says.

    Raises:
        LoraUnusable: it is made for another depth, and no published mapping leads to this one.
    """
    stem_of = {block: stem for stem in sorted(stems) if (block := block_of(stem)) is not None}
    if not stem_of or not depth:
        return DepthMatch()
    count = max(stem_of) + 1
    if stated is not None and stated < count:
        raise LoraUnusable(
            f"contradicts itself: it is said to be made for {stated} transformer blocks, and has "
            f"{stem_of[count - 1]}"
        )
    made_for = stated or next((known for known in PUBLISHED_DEPTHS if known >= count), count)
    if count > depth:
        deep = [stem_of[block] for block in sorted(stem_of) if block >= depth]
        known = made_for if stated or depth in PUBLISHED_DEPTHS else count
        raise LoraUnusable(
            f"is made for {known} transformer blocks; this checkpoint has {depth}: "
            f"{first_keys(deep)}"
        )
    if stated is None and depth not in PUBLISHED_DEPTHS:
        return _unknown_depth(count, depth, is_filled=len(stem_of) == count)
    if made_for == depth:
        return DepthMatch()
    seems = "is" if stated or count == made_for else "seems to be"
    if (made_for, depth) == (28, 40):
        return DepthMatch(
            new_blocks=_OLD_IN_40,
            warning=f"It {seems} made for 28 transformer blocks and is applied to the 28 of this "
            "checkpoint's 40 blocks that come from them.",
        )
    if seems != "is":
        return DepthMatch(
            warning=f"It changes no transformer block after {count} of {depth}; it may be made for "
            f"a model of {made_for} blocks."
        )
    raise LoraUnusable(
        f"is made for {made_for} transformer blocks; this checkpoint has {depth}, and no mapping "
        "between them is published"
    )


def _unknown_depth(count: int, depth: int, *, is_filled: bool) -> DepthMatch:
    """For a checkpoint of another depth: a warning if the file changes exactly its first blocks."""
    if not (1 < count < depth and is_filled):
        return DepthMatch()
    return DepthMatch(
        warning=f"It changes the first {count} of {depth} transformer blocks; it may be made for a "
        f"model of {count} blocks."
    )
