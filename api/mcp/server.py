"""The MCP server of the `mcp` package: its tools, and their answers in the format of MCP.

Importing this module takes most of a second: the route does it when the first client calls.
"""

from base64 import b64encode
from typing import Any, cast

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    ResourceLink,
    TextContent,
    Tool,
    ToolAnnotations,
)
from mcp_types.version import is_version_at_least
from sse_starlette.sse import AppStatus
from starlette.requests import Request

from api.http.field_errors import printable
from api.http.problem import FieldError, ProblemResponse
from api.http.problem_types import VALIDATION_FAILED
from api.mcp.answers import Answer
from api.mcp.arguments import (
    JobArguments,
    NoArguments,
    WaitArguments,
    generation_schema,
    plain_schema,
)
from api.mcp.calls import ToolCalls
from api.mcp.messages import error_data
from api.mcp.previews import PREVIEW_MEDIA_TYPE
from api.version import package_version
from model.card import Card
from model.request import GenerationRequest

_Context = ServerRequestContext[dict[str, Any], Request]

_LINKS_SINCE = "2025-06-18"
"""The first version of the protocol with links in the answers of tools."""


def build_server(card: Card, request_model: type[GenerationRequest]) -> Server[Any]:
    """The server; it keeps nothing between two calls, so any process can answer each."""
    tools = {tool.name: tool for tool in _tools(card, request_model)}

    async def list_tools(_: _Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=list(tools.values()))

    async def call_tool(context: _Context, params: CallToolRequestParams) -> CallToolResult:
        request = cast(Request, context.request)  # it came over HTTP
        if params.name not in tools:
            known = ", ".join(tools)
            message = f"unknown tool {printable(params.name)!r}; the tools are {known}"
            wrong = FieldError(pointer="/params/name", detail=message, limit=list(tools))
            problem = ProblemResponse(VALIDATION_FAILED, message, request.state.request_id, [wrong])
            raise MCPError(code=INVALID_PARAMS, message=message, data=error_data(problem))
        calls: ToolCalls = request.state.tool_calls
        report = context.session.report_progress
        answer = await calls.run(params.name, params.arguments or {}, report)
        has_links = is_version_at_least(context.protocol_version, _LINKS_SINCE)
        limits = {f"kirazuri/{name}": value for name, value in calls.limits_left().items()}
        return CallToolResult(
            content=_content(answer, has_links=has_links),
            is_error=answer.is_error,
            _meta=limits or None,
        )

    server = Server[Any](
        "kirazuri-server",
        version=package_version(),
        title="Kirazuri Server",
        instructions=_instructions(card),
        get_tool_input_schema=lambda name: tools[name].input_schema if name in tools else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    server.middleware.clear()  # its tracing: the service traces the HTTP request
    # Calls may finish while the process stops, like all other requests.
    AppStatus.enable_automatic_graceful_drain = False
    return server


def _instructions(card: Card) -> str:
    return (
        f"Draws images with {card.title}: {card.summary} Prompts are tags as on Danbooru, "
        f"separated by commas, such as: {card.prompting.example}. "
        "Only generate_image draws; if it answers that its job still runs, call get_job."
    )


def _tools(card: Card, request_model: type[GenerationRequest]) -> list[Tool]:
    return [
        Tool(
            name="generate_image",
            title="Generate an image",
            description=f"Draw images with {card.title}. {card.summary} The answer has links to "
            "the files and small previews. If drawing takes long, it has the id of the job "
            "instead; ask get_job for the rest. Fields that are left out take good defaults.",
            input_schema=generation_schema(request_model),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=False, open_world_hint=False
            ),
        ),
        Tool(
            name="get_job",
            title="Get a job",
            description="The state of a job: its progress, or its images.",
            input_schema=plain_schema(WaitArguments),
            annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        ),
        Tool(
            name="cancel_job",
            title="Cancel a job",
            description="Cancel a job that waits or runs. Its images are lost.",
            input_schema=plain_schema(JobArguments),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=True, open_world_hint=False
            ),
        ),
        Tool(
            name="list_presets",
            title="List presets",
            description="The sizes, samplers, schedules, LoRAs, limits and defaults of "
            "generate_image, and how to write prompts for it.",
            input_schema=plain_schema(NoArguments),
            annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        ),
    ]


def _content(answer: Answer, *, has_links: bool) -> list[ContentBlock]:
    content: list[ContentBlock] = [TextContent(text=answer.text)]
    for image in answer.images:
        if has_links:
            content.append(
                ResourceLink(
                    uri=image.url, name=image.name, mime_type=image.media_type, size=image.size
                )
            )
        if image.preview is not None:
            data = b64encode(image.preview).decode("ascii")
            content.append(ImageContent(data=data, mime_type=PREVIEW_MEDIA_TYPE))
    return content
