"""`GET /tags`: completes tags, for clients with a field for prompts."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.http.error_handlers import problem_responses
from api.http.service_schemas import CompletedTag, TagCompletions
from api.submit.dependencies import TagList
from model.tags import MAX_TAG_CHARS

router = APIRouter(tags=["service"])

_MAX_ITEMS = 100


@router.get(
    "/tags",
    operation_id="completeTags",
    summary="Complete a tag",
    responses=problem_responses(422),
)
async def complete_tags(
    tags: TagList,
    prefix: Annotated[
        str,
        Query(
            max_length=MAX_TAG_CHARS,
            description="Start of a tag or alias, in any case, with `_` or spaces, and with or "
            "without the escapes of a prompt. After the card's `artist_prefix`, artists.",
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=_MAX_ITEMS, description="Maximum number of tags.")] = 20,
) -> TagCompletions:
    """Complete a tag by name or alias, from the operator's list or the words of the card."""
    return TagCompletions(
        items=[
            CompletedTag(tag=tag.name, category=tag.group, count=tag.posts, alias_of=tag.alias_of)
            for tag in tags.complete(prefix, limit)
        ]
    )
