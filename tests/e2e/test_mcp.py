"""MCP with the official client against the running service."""

import httpx2
import pytest
from mcp_types import ResourceLink

from tests.support.images import open_image
from tests.support.mcp_clients import ERAS, Era, mcp_client, text_of

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("era", ERAS)
async def test_a_picture_is_drawn_and_drawn_again_from_its_link(
    service: httpx2.Client, era: Era
) -> None:
    arguments = {"prompt": "1girl, green hair, smile", "steps": 4, "seed": 5}
    url = str(service.base_url).rstrip("/")
    async with mcp_client(url, era) as mcp:
        first = await mcp.call_tool("generate_image", arguments)
        (link,) = [part for part in first.content if isinstance(part, ResourceLink)]
        again = await mcp.call_tool(
            "generate_image", {**arguments, "init_image": str(link.uri), "strength": 0.5}
        )
    assert open_image(service.get(str(link.uri)).content).size == (128, 128)
    assert not again.is_error, text_of(again)
    (other,) = [part for part in again.content if isinstance(part, ResourceLink)]
    assert str(other.uri) != str(link.uri)
