"""The A1111 surface as a whole: its routes, and the paths whose errors have its shape."""

from collections.abc import Mapping

from fastapi import APIRouter

from api.a1111 import generate as pictures
from api.a1111 import lists, png_info, progress
from api.a1111 import ping as outside
from api.a1111.response import as_a1111
from api.http.problem import ErrorRenderer

ERROR_SHAPES: Mapping[str, ErrorRenderer] = dict.fromkeys(
    ("/sdapi", "/internal", "/login"), as_a1111
)

router = APIRouter()
for part in (pictures, progress, png_info, lists, outside):
    router.include_router(part.router)
