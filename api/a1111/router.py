"""All routes of the A1111 API, and the paths whose errors use the A1111 format."""

from collections.abc import Mapping

from fastapi import APIRouter

from api.a1111 import extras, ping, png_info
from api.a1111.errors import a1111_error
from api.a1111.generation import generate
from api.a1111.jobs import progress
from api.a1111.lists import empty, options, resources
from api.http.problem import ErrorRenderer

ERROR_RENDERERS: Mapping[str, ErrorRenderer] = dict.fromkeys(
    ("/sdapi", "/internal", "/login"), a1111_error
)

router = APIRouter()
for module in (generate, progress, png_info, extras, options, resources, empty, ping):
    router.include_router(module.router)
