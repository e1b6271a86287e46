"""A Discord bot with one command, /draw: the loop between Discord's gateway and the service.

    pip install httpx2 websockets
    DISCORD_TOKEN=… KIRAZURI_API_KEY=… python examples/discord_bot.py

The bot answers at once that it is drawing, follows the events of the job, and edits its answer:
the progress, then the picture. A job that has not ended after five minutes is cancelled.
"""

import asyncio
import json
import logging
import os
import random
from contextlib import suppress
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

DISCORD = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
TOKEN = os.environ["DISCORD_TOKEN"]
URL = os.environ.get("KIRAZURI_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("KIRAZURI_API_KEY", "")

COMMAND = {
    "name": "draw",
    "description": "Draw a picture",
    "options": [
        {"name": "prompt", "description": "Tags or a sentence", "type": 3, "required": True},
        {"name": "seed", "description": "For the same picture again", "type": 4},
    ],
}
DISPATCH, HEARTBEAT, IDENTIFY, RECONNECT, INVALID_SESSION = 0, 1, 2, 7, 9
"""Operations of the gateway."""

log = logging.getLogger("bot")


class Bot:
    """Reads commands from the gateway and answers them; many at a time."""

    def __init__(self, discord: httpx2.AsyncClient, service: httpx2.AsyncClient) -> None:
        self._discord = discord
        self._service = service
        self._last: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Announce the command and listen, through all reconnections, until it is cancelled."""
        application = (await self._call("GET", "/applications/@me"))["id"]
        await self._call("PUT", f"/applications/{application}/commands", json=[COMMAND])
        while True:
            gateway = (await self._call("GET", "/gateway/bot"))["url"]
            try:
                async with connect(f"{gateway}/?v=10&encoding=json") as socket:
                    await self._listen(socket)
            except (ConnectionClosed, OSError) as error:
                log.warning("gateway: %s", error)
            await asyncio.sleep(1 + random.random())

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        response = await self._discord.request(method, path, **arguments)
        response.raise_for_status()
        return response.json() if response.content else None

    async def _listen(self, socket: ClientConnection) -> None:
        hello = json.loads(await socket.recv())  # always the first message
        beats = asyncio.create_task(self._beat(socket, hello["d"]["heartbeat_interval"] / 1000))
        try:
            properties = {"os": "linux", "browser": "kirazuri", "device": "kirazuri"}
            identity = {"token": TOKEN, "intents": 0, "properties": properties}
            await self._send(socket, IDENTIFY, identity)
            async for text in socket:
                message = json.loads(text)
                self._last = message["s"] or self._last
                if message["op"] in (RECONNECT, INVALID_SESSION):
                    return
                if message["op"] == HEARTBEAT:
                    await self._send(socket, HEARTBEAT, self._last)
                if message["op"] == DISPATCH and message["t"] == "INTERACTION_CREATE":
                    self._start(message["d"])
        finally:
            beats.cancel()

    async def _beat(self, socket: ClientConnection, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._send(socket, HEARTBEAT, self._last)

    @staticmethod
    async def _send(socket: ClientConnection, operation: int, data: object) -> None:
        await socket.send(json.dumps({"op": operation, "d": data}))

    def _start(self, interaction: dict[str, Any]) -> None:
        task = asyncio.create_task(self._answer(interaction))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, interaction: dict[str, Any]) -> None:
        """Answer one command. Discord wants a sign within three seconds: 5 is "thinking"."""
        callback = f"/interactions/{interaction['id']}/{interaction['token']}/callback"
        answer = (
            f"/webhooks/{interaction['application_id']}/{interaction['token']}/messages/@original"
        )
        try:
            await self._call("POST", callback, json={"type": 5})
            options = interaction["data"]["options"]
            fields = {option["name"]: option["value"] for option in options}
            job = await self._draw(fields, answer)
            if job["status"] != "succeeded":
                text = job["error"]["detail"] if job["error"] else job["status"]
                await self._call("PATCH", answer, json={"content": text})
                return
            picture = await self._service.get(job["images"][0]["url"], follow_redirects=True)
            text = f"seed {job['request']['seed']}"
            await self._call(
                "PATCH",
                answer,
                data={"payload_json": json.dumps({"content": text})},
                files={"files[0]": ("picture.png", picture.content, "image/png")},
            )
        except httpx2.HTTPError as error:
            log.warning("interaction %s: %s", interaction["id"], error)

    async def _draw(self, fields: dict[str, Any], answer: str) -> dict[str, Any]:
        """The finished job; the answer shows its progress meanwhile."""
        response = await self._service.post(
            "/generate", json=fields, headers={"Cancel-After": "5m"}
        )
        if response.is_error:
            problem = response.json()
            return {"status": problem["title"], "error": {"detail": explanation(problem)}}
        path = f"/jobs/{response.json()['id']}"
        shown = 0
        async with self._service.stream("GET", f"{path}/events", timeout=600) as events:
            async for line in events.aiter_lines():
                if line.startswith("data: ") and "steps" in (data := json.loads(line[6:])):
                    percent = 100 * data["step"] // data["steps"]
                    if percent >= shown + 25:  # Discord limits how often a message is edited
                        shown = percent
                        await self._call("PATCH", answer, json={"content": f"{percent} %"})
        job: dict[str, Any] = (await self._service.get(path)).json()
        return job


def explanation(problem: dict[str, Any]) -> str:
    """What is wrong with a request, for the person who sent it."""
    fields = [f"{one['pointer'].lstrip('/')}: {one['detail']}" for one in problem["errors"]]
    return "\n".join(fields) or str(problem["detail"])


async def main() -> None:
    """Run until Ctrl-C."""
    keys = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    async with (
        httpx2.AsyncClient(base_url=DISCORD, headers={"Authorization": f"Bot {TOKEN}"}) as discord,
        httpx2.AsyncClient(base_url=URL, headers=keys, timeout=60) as service,
    ):
        await Bot(discord, service).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
