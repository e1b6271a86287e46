"""Whether spans are exported, and what happens to the caller's context without them."""

import subprocess
import sys
import time

import pytest
from opentelemetry import trace

from worker.telemetry import tracing

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

PROGRAM = """
import os, sys
from opentelemetry import trace
from worker.telemetry import tracing
tracing.start_tracing("kirazuri-test")
provider = trace.get_tracer_provider()
print("opentelemetry.sdk.trace" in sys.modules)
if "opentelemetry.sdk.trace" in sys.modules:
    print(provider.resource.attributes["service.name"])
"""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["False"]),
        ({"OTEL_SERVICE_NAME": "x"}, ["False"]),
        ({ENDPOINT: NOWHERE}, ["True", "kirazuri-test"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, ["True", "kirazuri-test"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["True", "kirazuri-test"]),
        ({ENDPOINT: NOWHERE, "OTEL_SERVICE_NAME": "mine"}, ["True", "mine"]),
        ({ENDPOINT: NOWHERE, "OTEL_RESOURCE_ATTRIBUTES": "service.name=a"}, ["True", "a"]),
        ({ENDPOINT: NOWHERE, "OTEL_SDK_DISABLED": "true"}, ["False"]),
        ({ENDPOINT: NOWHERE, "OTEL_TRACES_EXPORTER": "none"}, ["False"]),
    ],
)
def test_the_standard_variables_turn_tracing_on(
    variables: dict[str, str], expected: list[str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == expected


def test_an_unsupported_exporter_only_logs_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing.start_tracing("x", {ENDPOINT: NOWHERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "grpc" in caplog.text
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_an_invalid_parent_makes_no_trace() -> None:
    for parent in (None, "", "nonsense", TRACEPARENT[:-1], "00-" + TRACEPARENT):
        assert tracing.trace_id_of(parent) is None
        with tracing.delivery_span(parent):
            assert tracing.traceparent_of() is None


def test_without_spans_the_callers_context_is_passed_on() -> None:
    assert tracing.trace_id_of(TRACEPARENT) == "0af7651916cd43dd8448eb211c80319c"
    with tracing.delivery_span(TRACEPARENT) as sent:
        assert tracing.traceparent_of() == TRACEPARENT
        sent(503, "bad_status")
    attempt = tracing.AttemptSpan(
        "job", parent=TRACEPARENT, previous=TRACEPARENT, began=time.time_ns(), attributes={}
    )
    attempt.add_stage("denoise", time.time_ns())
    attempt.end("failed", "engine_error")
    assert not attempt.is_recording
    assert attempt.traceparent == TRACEPARENT
