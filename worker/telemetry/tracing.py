"""A job's way as OpenTelemetry spans, from HTTP through Redis and worker to the webhook.

Off unless the standard `OTEL_*` variables ask for it: then the SDK is not even imported, and spans
are the API's, which do nothing and hand the caller's trace context on.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_W3C = TraceContextTextMapPropagator()

TRACER = trace.get_tracer("kirazuri")
"""Asks for the provider when it is first used."""


def start_tracing(service: str, variables: Mapping[str, str] = os.environ) -> None:  # noqa: TID251
    """Send spans of this process where the variables say; once, in the entry points.

    An embedding program's own provider is kept. `OTEL_SERVICE_NAME` wins over `service`; endpoint,
    headers, sampler, batches and the rest are read by the SDK itself.
    """
    exporter = variables.get("OTEL_TRACES_EXPORTER", "otlp" if _has_endpoint(variables) else "none")
    is_disabled = variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
    is_set_up = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if is_disabled or is_set_up or exporter == "none":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("OTEL_ variables ask for traces; they need kirazuri-server[otel]")
        return
    protocol = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or variables.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    if (exporter, protocol) != ("otlp", "http/protobuf"):
        log.warning("no traces: exporter %s with %s is not known here", exporter, protocol)
        return
    has_name = "service.name=" in variables.get("OTEL_RESOURCE_ATTRIBUTES", "")
    is_named = has_name or "OTEL_SERVICE_NAME" in variables
    resource = Resource.create({} if is_named else {"service.name": service})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_spans() -> None:
    """Send what is left, for two seconds at most: a process that a signal ends does not do it."""
    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):
        provider.force_flush(2000)


def _has_endpoint(variables: Mapping[str, str]) -> bool:
    return any(variables.get(name) for name in _ENDPOINTS)


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace that a `traceparent` belongs to; None where it is none."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


def context_of(traceparent: str | None) -> Context:
    """What a span with this remote parent is to be started in."""
    return _W3C.extract({"traceparent": traceparent} if traceparent else {}, context=Context())


def traceparent_of(span: Span | None = None) -> str | None:
    """The header value of a span, or of the current one; None where there is no trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span) if span is not None else None)
    return carrier.get("traceparent")


def enqueue_span(queue: str) -> AbstractContextManager[Span]:
    """The span in which a job is put into a queue; the record is to hold its `traceparent`."""
    return TRACER.start_as_current_span(
        "enqueue job",
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": "rq",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
        },
    )


@contextmanager
def delivery_span(
    parent: str | None, **attributes: Any
) -> Iterator[Callable[[int | None, str | None], None]]:
    """The span of one attempt to send a webhook; call what it gives with HTTP status and error."""
    with TRACER.start_as_current_span(
        "send webhook",
        context_of(parent),
        kind=SpanKind.CLIENT,
        attributes={"http.request.method": "POST", **attributes},
    ) as span:

        def sent(status: int | None, error: str | None) -> None:
            if status is not None:
                span.set_attribute("http.response.status_code", status)
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(StatusCode.ERROR, error)

        yield sent


def annotate_request_span(request_id: str) -> None:
    """Give the current span its request's id, and take away the query: it may hold a secret."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute("kirazuri.request.id", request_id)
        if "url.query" in getattr(span, "attributes", {}):
            span.set_attribute("url.query", "REDACTED")


class AttemptSpan:
    """The span of one attempt at a job, and its parts. Times are `time.time_ns()`."""

    def __init__(
        self,
        job_id: str,
        *,
        parent: str | None,
        previous: str | None,
        began: int,
        attributes: Mapping[str, Any],
    ) -> None:
        last = trace.get_current_span(context_of(previous)).get_span_context()
        self._span = TRACER.start_span(
            "process job",
            context_of(parent),
            kind=SpanKind.CONSUMER,
            start_time=began,
            attributes={"kirazuri.job.id": job_id, **attributes},
            links=[Link(last, {"kirazuri.link": "previous attempt"})] if last.is_valid else (),
        )
        self._context = trace.set_span_in_context(self._span)

    @property
    def traceparent(self) -> str | None:
        """For what follows from it; the parent's own where spans are off."""
        return traceparent_of(self._span)

    @property
    def is_recording(self) -> bool:
        """Whether anybody will see it."""
        return self._span.is_recording()

    def add_stage(self, name: str, began: int, ended: int | None = None, **attributes: Any) -> None:
        """A part that is over by now, or was at `ended`."""
        if self._span.is_recording():
            span = TRACER.start_span(
                name,
                self._context,
                start_time=began,
                attributes={f"kirazuri.{key}": value for key, value in attributes.items()},
            )
            span.end(ended or time.time_ns())

    def end(self, outcome: str, reason: str | None) -> None:
        """How it ended: as a final status, or with another try to come."""
        self._span.set_attribute("kirazuri.outcome", outcome)
        if outcome in ("retrying", "released"):
            self._span.add_event("retrying", {"reason": reason or ""})
        if reason is not None:
            self._span.set_attribute("error.type", reason)
        if outcome in ("failed", "retrying", "lost"):
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()
