"""The loaded checkpoint as A1111 clients know it: its names and its hashes."""

import re
from contextlib import suppress
from pathlib import PurePosixPath

from api.http.errors import UnknownModel
from model.card import Card
from model.recipes.imported import one_line
from model.recipes.recipe import Recipe
from worker.errors import QueueUnavailable
from worker.queue.job_queue import JobQueue

_SHORT_HASH = re.compile(r"\s*\[[0-9a-f]{4,64}\]$", re.IGNORECASE)


def checkpoint_title(card: Card) -> str:
    """The file name of the checkpoint. It is the same whether or not a worker is running."""
    return PurePosixPath(card.files.transformer.path).name


def check_checkpoint(text: str, card: Card) -> None:
    """Check that a client asks for the loaded checkpoint.

    The name may lack the file extension and the folder, and may end with a short hash.

    Raises:
        UnknownModel: it is another checkpoint.
    """
    path = PurePosixPath(card.files.transformer.path)
    known = {card.name, card.title, path.name, path.stem, str(path), str(path.with_suffix(""))}
    plain = _SHORT_HASH.sub("", text.strip()).replace("\\", "/").lower()
    if plain not in {name.lower() for name in known}:
        raise UnknownModel(
            f"model {one_line(text)!r} not found; the available model is {checkpoint_title(card)!r}"
        )


async def worker_recipe(queue: JobQueue) -> Recipe:
    """The hashes of the model files, as a running worker reports them; empty if there is none."""
    with suppress(QueueUnavailable):
        for worker in await queue.state.workers():
            if worker.recipe:
                return worker.recipe
    return Recipe()
