"""OpenTelemetry: one span for a request, one within it for each stage. Spans are written down after the answer is sent.

While a request runs nothing is recorded but when its stages began and ended, which its timings know anyway. A queue of
bounded length hands finished spans to a thread; a collector that is slow, hangs or is down costs spans, not time.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from service.arrival import Arrival

EXPORT_SECONDS: Final = 2.0  # for one batch
CLOSE_SECONDS: Final = 1.0
OPERATIONS: Final = {
    "score": "score",
    "explain": "text_completion",
    "fetch": "retrieval",
}  # GenAI operation by stage
INTERNAL_ERROR: Final = 500


class TracingSettings(BaseModel):
    """Where traces go. Credentials for the collector: OTEL_EXPORTER_OTLP_HEADERS, as OpenTelemetry has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        default=None, pattern="^https?://", description="collector that takes OTLP over HTTP; no traces if unset"
    )
    share: float = Field(
        default=0.05, ge=0, le=1, description="of the requests that are traced; a caller's own decision goes first"
    )


class Begun(NamedTuple):
    """A request's span.

    Attributes:
        trace: its trace's id, 32 hexadecimal digits.
        headers: that name it as the parent, for the next service.
    """

    span: Span
    trace: str
    headers: dict[str, str]


def open_tracing(settings: TracingSettings) -> Tracing | None:
    """Tracing as configured, None when it is off.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if settings.endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 # an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
    except ImportError as error:
        from service.settings import SettingsError  # noqa: PLC0415 # it imports this module

        raise SettingsError("tracing.endpoint (TIERWISE_TRACING__ENDPOINT): install tierwise[otel]") from error
    exporter = OTLPSpanExporter(endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
    resource = Resource.create({"service.name": "tierwise", "service.version": version("tierwise")})
    provider = TracerProvider(ParentBasedTraceIdRatio(settings.share), resource, shutdown_on_exit=False)
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    return Tracing(provider, lambda: processor._batch_processor.shutdown(int(CLOSE_SECONDS * 1000)))  # noqa: SLF001 # the public one waits half a minute


class Tracing:
    """Makes the spans of one process.

    Args:
        provider: where they go.
        close: ends that, in bounded time.
    """

    def __init__(self, provider: TracerProvider, close: Any) -> None:
        from opentelemetry import trace  # noqa: PLC0415 # an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("tierwise", version("tierwise"))
        self._context = TraceContextTextMapPropagator()
        self._close = close

    def begin(self, headers: Mapping[str, str], within: Span | None = None) -> Begun:
        """A request has come.

        Args:
            headers: its well-formed W3C trace context; empty without one.
            within: the call that it is one of several requests of, instead.
        """
        if within is None:
            parent, kind = self._context.extract(headers), self._api.SpanKind.SERVER
        else:
            parent, kind = self._api.set_span_in_context(within), self._api.SpanKind.INTERNAL
        span = self._tracer.start_span("request", parent, kind)
        onward: dict[str, str] = {}
        self._context.inject(onward, self._api.set_span_in_context(span))
        return Begun(span, f"{span.get_span_context().trace_id:032x}", onward)

    def end(self, span: Span, arrival: Arrival, name: str, status: int, facts: Mapping[str, Any]) -> None:
        """Its answer is out.

        Args:
            span: of the request.
            arrival: with its stages and notes.
            name: of the route.
            status: what HTTP says, or would say.
            facts: of the protocol, by the names of OpenTelemetry's conventions.
        """
        if span.is_recording():
            span.update_name(name)
            span.set_attributes({**facts, "tierwise.request.id": arrival.id, **_notes(arrival)})
            if status >= INTERNAL_ERROR:
                span.set_status(self._api.StatusCode.ERROR)
            self._stages(span, arrival)
        span.end()

    def _stages(self, span: Span, arrival: Arrival) -> None:
        within = self._api.set_span_in_context(span)
        zero = time.time_ns() - time.monotonic_ns()
        for stage, began, ended in arrival.timings_ms.spans:
            child = self._tracer.start_span(stage, within, start_time=zero + int(began * 1e9))
            if operation := OPERATIONS.get(stage):
                child.set_attributes({"gen_ai.operation.name": operation, **_steps(stage, arrival)})
            if stage in ("score", "explain"):
                child.set_attributes({"gen_ai.provider.name": "tierwise", **_usage(arrival)})
            child.end(zero + int(ended * 1e9))

    def flush(self) -> None:
        """Hand over what is finished. Blocks."""
        self._provider.force_flush()

    def close(self) -> None:
        """Hand over what can be in a second, then forget the rest. Blocks."""
        self._close()


def _usage(arrival: Arrival) -> dict[str, Any]:
    """What scored, and how many tokens; nothing when nothing was scored."""
    checkpoint, tokens = arrival.notes.get("checkpoint"), arrival.notes.get("tokens")
    if checkpoint is None or tokens is None:
        return {}
    return {
        "gen_ai.request.model": checkpoint.partition("@")[0],
        "gen_ai.response.model": checkpoint,
        "gen_ai.usage.input_tokens": tokens,
    }


def _steps(stage: str, arrival: Arrival) -> dict[str, float]:
    """Milliseconds of what lies within a stage."""
    steps = {"fetch": ("embed", "search"), "score": ("queue",)}.get(stage, ())
    return {f"tierwise.{step}_ms": arrival.timings_ms[step] for step in steps if step in arrival.timings_ms}


def _notes(arrival: Arrival) -> dict[str, Any]:
    notes = {f"tierwise.{name}": value for name, value in arrival.notes.items() if value is not None}
    if arrival.principal is not None:
        notes["tierwise.tenant"] = arrival.principal.caller.tenant
    return notes
