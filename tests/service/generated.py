"""Requests that schemathesis generates from the OpenAPI document, and what every answer to them must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

if TYPE_CHECKING:
    from schemathesis import GenerationMode

PATHS = ("/v1/score", "/v1/explain", "/v1/rerank", "/v2/rerank")
CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance, negative_data_rejection)
TOO_LATE = 504  # what a generated deadline of a fraction of a millisecond rightly gets


def check_generated(schema: Any, path: str, mode: GenerationMode, examples: int) -> None:
    """Send so many requests to a path, those that its schema allows or those that it forbids.

    Every answer is documented, schema-valid and no defect; what the schema forbids is refused.
    """
    operation = next(iter(schema[path].values()))

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500 or response.status_code == TOO_LATE
        case.validate_response(response, checks=CHECKS)

    check()
