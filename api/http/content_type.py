"""Refuses request bodies that are not JSON."""

import re

from fastapi import Request

from api.http.errors import UnsupportedMediaType


async def require_json(request: Request) -> None:
    """Refuse a body of another type before its fields are looked at."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"application/(?:[^/\s]+\+)?json", media_type):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type or 'missing'}; send application/json"
        )
