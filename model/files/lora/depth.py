"""Compares the number of transformer blocks of a LoRA with the checkpoint's.

Anima's published depths are 28, 40 and 52 blocks. A LoRA names the blocks that it changes, so that
its highest block shows the depth that it was made for.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from model.errors import LoraUnusable
from model.files.safetensors_header import first_keys

PUBLISHED_DEPTHS = (28, 40, 52)
_NEW_OF_40 = frozenset({2, 5, 8, 11, 14, 17, 21, 24, 27, 30, 33, 36})
"""The blocks that were inserted to make 40 of 28."""

_OLD_IN_40 = tuple(block for block in range(40) if block not in _NEW_OF_40)
_BLOCK = re.compile(
    r"(?:^|[.]|^lora_unet_|^lycoris_|^lora_transformer_)(?:transformer_)?blocks[._](\d{1,4})[._]"
)
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


def match_depth(stems: Iterable[str], depth: int) -> DepthMatch:
    """Compare the blocks that a LoRA changes with a checkpoint of `depth` blocks.

    Raises:
        LoraUnusable: it is made for another depth, and no published mapping leads to this one.
    """
    stem_of = {block: stem for stem in sorted(stems) if (block := block_of(stem)) is not None}
    if not stem_of or not depth:
        return DepthMatch()
    count = max(stem_of) + 1
    made_for = next((known for known in PUBLISHED_DEPTHS if known >= count), count)
    if count > depth:
        deep = [stem_of[block] for block in sorted(stem_of) if block >= depth]
        raise LoraUnusable(
            f"is made for {made_for if depth in PUBLISHED_DEPTHS else count} transformer blocks; "
            f"this checkpoint has {depth}: {first_keys(deep)}"
        )
    if depth not in PUBLISHED_DEPTHS:
        if 1 < count < depth and len(stem_of) == count:
            return DepthMatch(
                warning=f"It changes the first {count} of {depth} transformer blocks; it may be "
                f"made for a model of {count} blocks."
            )
        return DepthMatch()
    if made_for == depth:
        return DepthMatch()
    if (made_for, depth) == (28, 40):
        return DepthMatch(
            new_blocks=_OLD_IN_40,
            warning="It is made for 28 transformer blocks and is applied to the 28 of this "
            "checkpoint's 40 blocks that come from them.",
        )
    raise LoraUnusable(
        f"is made for {made_for} transformer blocks; this checkpoint has {depth}, and no mapping "
        "between them is published"
    )
