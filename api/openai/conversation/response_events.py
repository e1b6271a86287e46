"""The stream of a response: its beginning, previews, images, the message, its end."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from api.openai.conversation.response_format import (
    FunctionCall,
    ImageCall,
    ModelResponse,
    OutputMessage,
    ResponseFailure,
)
from api.openai.errors import OpenAIErrorBody
from api.openai.job_events import Preview


@dataclass(slots=True)
class ResponseEvents:
    """Encodes the events of one response and numbers them.

    `begun` is the response without its output.
    """

    begun: ModelResponse
    _numbers: Iterator[int] = field(default_factory=count)

    def begin(self, calls: Sequence[ImageCall] = ()) -> bytes:
        """The first events; `calls` are the images that are going to be made."""
        events = [
            self._event(f"response.{name}", response=self.begun)
            for name in ("created", "in_progress")
        ]
        for index, call in enumerate(calls):
            events.append(self._item("added", index, call))
            events += [self._image(name, index, call) for name in ("in_progress", "generating")]
        return b"".join(events)

    def preview(self, preview: Preview, call: ImageCall) -> bytes:
        """A preview of an image."""
        return self._image(
            "partial_image",
            preview.image,
            call,
            partial_image_b64=preview.b64,
            partial_image_index=preview.number,
            background=call.background,
            output_format="webp",
            quality=call.quality,
            size=call.size,
        )

    def end(self, response: ModelResponse, *, has_begun_images: bool = True) -> Iterator[bytes]:
        """The finished output and the response."""
        for index, item in enumerate(response.output):
            if isinstance(item, ImageCall) and has_begun_images:
                yield self._image("completed", index, item) + self._item("done", index, item)
            elif isinstance(item, OutputMessage):
                yield self._message(index, item)
            else:
                yield self._item("added", index, item) + self._item("done", index, item)
        yield self._event("response.completed", response=response)

    def fail(self, error: OpenAIErrorBody) -> bytes:
        """The last events of a job without images."""
        code, message = error.code, error.message
        told = {"code": code, "message": message, "param": error.param, "job_id": error.job_id}
        failure = ResponseFailure(code=code, message=message)
        failed = self.begun.model_copy(update={"status": "failed", "error": failure})
        return self._event("error", **told) + self._event("response.failed", response=failed)

    def _message(self, index: int, item: OutputMessage) -> bytes:
        (part,) = item.content
        begun = item.model_copy(update={"status": "in_progress", "content": []})
        at = {"item_id": item.id, "output_index": index, "content_index": 0}
        empty = part.model_copy(update={"text": ""})
        return b"".join(
            (
                self._item("added", index, begun),
                self._event("response.content_part.added", **at, part=empty),
                self._event("response.output_text.delta", **at, delta=part.text, logprobs=[]),
                self._event("response.output_text.done", **at, text=part.text, logprobs=[]),
                self._event("response.content_part.done", **at, part=part),
                self._item("done", index, item),
            )
        )

    def _item(self, name: str, index: int, item: ImageCall | OutputMessage | FunctionCall) -> bytes:
        return self._event(f"response.output_item.{name}", output_index=index, item=item)

    def _image(self, name: str, index: int, call: ImageCall, **data: Any) -> bytes:
        kind = f"response.image_generation_call.{name}"
        return self._event(kind, item_id=call.id, output_index=index, **data)

    def _event(self, kind: str, **data: Any) -> bytes:
        event = {"type": kind, "sequence_number": next(self._numbers), **data}
        return format_sse_event(event=kind, data_str=json.dumps(event, default=_plain))


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump()
