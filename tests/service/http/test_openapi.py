"""The OpenAPI document, and requests that are generated from it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from schemathesis import GenerationMode

from service.fetch import Fetcher
from service.gateway import assemble
from service.http.app import create_app
from service.settings import Settings
from tests.service.conftest import OverlapEngine, judge_on
from tests.service.generated import PATHS, check_generated

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI


@pytest.fixture(scope="module")
def app(checkpoint: Path) -> FastAPI:
    """The door around a tested fake engine; each generated request runs in a loop of its own."""
    configured = Settings(checkpoint=checkpoint, limits={"items": 4, "query_characters": 40})
    engine = OverlapEngine(rationale=(40,))
    gateway = assemble(configured, judge_on(checkpoint, engine), Fetcher(None, 1.0), embedded=True)
    asyncio.run(gateway.health.probe())
    return create_app(gateway)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    """What /openapi.json answers."""
    return app.openapi()


def test_every_request_body_has_an_example_that_is_valid(document: dict[str, Any]) -> None:
    """What the documentation shows can be sent as it stands."""
    bodies = [n for n in document["components"]["schemas"] if n in {"ScoreBody", "ExplainBody"} or "Rerank" in n]
    assert len(bodies) == 4
    for name in bodies:
        assert document["components"]["schemas"][name]["examples"]


def test_the_configured_limits_are_in_the_document(document: dict[str, Any]) -> None:
    """A generated client can check before it sends."""
    score = document["components"]["schemas"]["ScoreBody"]["properties"]
    assert (score["items"]["maxItems"], score["query"]["maxLength"]) == (4, 40)


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    """No route answers with an error format that is not in the document."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200" and path not in {"/livez", "/readyz"}:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert json.dumps(document)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("path", PATHS)
def test_generated_requests_never_break_the_service(app: FastAPI, path: str, mode: GenerationMode) -> None:
    """Whatever is sent, the answer is documented, schema-valid and no defect; what the schema forbids is refused."""
    check_generated(schemathesis.openapi.from_asgi("/openapi.json", app), path, mode, examples=20)
