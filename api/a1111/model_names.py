"""What the one checkpoint is called on the A1111 surface, whose clients choose among many."""

import re
from pathlib import PurePosixPath

from api.http.errors import UnknownModel
from model.card import Card
from model.recipes.imported import shown

_SHORT_HASH = re.compile(r"\s*\[[0-9a-f]{4,64}\]$", re.IGNORECASE)


def checkpoint_title(card: Card) -> str:
    """The name of its file; it does not depend on which workers are up."""
    return PurePosixPath(card.files.transformer.path).name


def check_checkpoint(text: str, card: Card) -> None:
    """Refuse another checkpoint than this; ending, folder and short hash may be missing.

    Raises:
        UnknownModel: it is another one.
    """
    path = PurePosixPath(card.files.transformer.path)
    known = {card.name, card.title, path.name, path.stem, str(path), str(path.with_suffix(""))}
    plain = _SHORT_HASH.sub("", text.strip()).replace("\\", "/").lower()
    if plain not in {name.lower() for name in known}:
        raise UnknownModel(f"model {shown(text)!r} not found; there is {checkpoint_title(card)}")
