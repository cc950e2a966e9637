"""Requests generated from the OpenAPI document, through the real door, tokenizer and engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import schemathesis
from schemathesis import GenerationMode

from tests.chaos.conftest import LONG
from tests.service.generated import PATHS, check_generated
from tests.service.processes import Service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = 400 if LONG else 5


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """One for all: no request may leave it worse than it was."""
    with serving(folder, limits={"items": 4}, deadline_ms=60_000) as running:
        yield running


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("path", PATHS)
def test_generated_requests_never_break_the_real_service(service: Service, path: str, mode: GenerationMode) -> None:
    """Every answer is documented, schema-valid and no defect; what the schema forbids is refused; it stays ready."""
    check_generated(schemathesis.openapi.from_url(f"{service.http}/openapi.json"), path, mode, EXAMPLES)
    assert service.ready()
    assert not any("exception" in line for line in service.lines), service.lines
