"""Traces a job with OpenTelemetry spans, from HTTP through Redis and worker to the webhook.

Tracing is off unless the standard `OTEL_*` variables turn it on. If it is off, the SDK is not
imported; spans do nothing and pass on the caller's trace context.
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
"""Finds the tracer provider when it is first used."""


def start_tracing(service: str, variables: Mapping[str, str] = os.environ) -> None:  # noqa: TID251
    """Start to export the spans of this process, if the variables ask for it.

    Entry points call this once. Keeps the provider of an embedding program. `OTEL_SERVICE_NAME`
    overrides `service`; the SDK reads endpoint, headers, sampler and all else by itself.
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
        log.warning(
            "tracing is off: OTEL_* variables are set, but kirazuri-server[otel] is not installed"
        )
        return
    protocol = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or variables.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    if (exporter, protocol) != ("otlp", "http/protobuf"):
        log.warning(
            "tracing is off: exporter %s with protocol %s is not supported", exporter, protocol
        )
        return
    has_name = "service.name=" in variables.get("OTEL_RESOURCE_ATTRIBUTES", "")
    is_named = has_name or "OTEL_SERVICE_NAME" in variables
    resource = Resource.create({} if is_named else {"service.name": service})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_spans() -> None:
    """Export the remaining spans, in two seconds at most; needed before a signal ends a process."""
    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):
        provider.force_flush(2000)


def _has_endpoint(variables: Mapping[str, str]) -> bool:
    return any(variables.get(name) for name in _ENDPOINTS)


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id in a `traceparent`; None if it is invalid."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


def context_of(traceparent: str | None) -> Context:
    """The context in which to start a span with this remote parent."""
    return _W3C.extract({"traceparent": traceparent} if traceparent else {}, context=Context())


def traceparent_of(span: Span | None = None) -> str | None:
    """The `traceparent` of a span, by default the current one; None without a trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span) if span is not None else None)
    return carrier.get("traceparent")


def enqueue_span(queue: str) -> AbstractContextManager[Span]:
    """The span of adding a job to a queue; the job's record must hold its `traceparent`."""
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
    """The span of one attempt to send a webhook; yields a function for HTTP status and error."""
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
    """Add the request's id to the current span; remove the query, which may hold a secret."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute("kirazuri.request.id", request_id)
        if "url.query" in getattr(span, "attributes", {}):
            span.set_attribute("url.query", "REDACTED")


class AttemptSpan:
    """The span of one attempt at a job, and the spans of its stages. Times are `time.time_ns()`."""

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
        """The `traceparent` for later spans; the parent's own if tracing is off."""
        return traceparent_of(self._span)

    @property
    def is_recording(self) -> bool:
        """Whether the span will be exported."""
        return self._span.is_recording()

    def add_stage(self, name: str, began: int, ended: int | None = None, **attributes: Any) -> None:
        """Add a stage that ended at `ended`, by default now."""
        if self._span.is_recording():
            span = TRACER.start_span(
                name,
                self._context,
                start_time=began,
                attributes={f"kirazuri.{key}": value for key, value in attributes.items()},
            )
            span.end(ended or time.time_ns())

    def end(self, outcome: str, reason: str | None) -> None:
        """End the span with a final status, or with `retrying` or `released`."""
        self._span.set_attribute("kirazuri.outcome", outcome)
        if outcome in ("retrying", "released"):
            self._span.add_event("retrying", {"reason": reason or ""})
        if reason is not None:
            self._span.set_attribute("error.type", reason)
        if outcome in ("failed", "retrying", "lost"):
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()
