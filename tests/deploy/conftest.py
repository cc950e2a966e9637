"""Fixtures for what is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy.chart import SWITCHES, Object, render


@pytest.fixture(params=SWITCHES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """Render the chart under each switch in turn."""
    return render(SWITCHES[request.param])


@pytest.fixture(scope="session")
def schemas() -> dict[str, Object]:
    """Load the schemas of kinds that Kubernetes itself does not know."""
    folder = Path(__file__).parent / "schemas"
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
