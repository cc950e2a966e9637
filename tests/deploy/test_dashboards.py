"""The dashboards: current, sound, installed by the chart, and about metrics that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from scripts.dashboard_pages import PAGES
from scripts.dashboards import FOLDER, rendered
from service.metrics import catalogue
from tests.deploy.chart import CHART, SWITCHES, of_kind, render

RECORDED = re.compile(r"record: (tierwise:\S+)")


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dashboard's panels without the titles of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_committed_files_are_current() -> None:
    """Each file is what its page writes, and there is no other; `make format` mends it."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == {
        f"{name}.json": rendered(name, page) for name, page in PAGES.items()
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_is_sound(name: str) -> None:
    """Ids and titles are unique, panels fit the grid without overlap, and everything asks the chosen source."""
    board = json.loads((FOLDER / f"{name}.json").read_text())
    ids = [panel["id"] for panel in board["panels"] if "id" in panel]
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    cells: set[tuple[int, int]] = set()
    for panel in panels(board):
        place = panel["gridPos"]
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells
        cells |= taken
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace", "service"]


def test_queries_name_metrics_and_labels_that_exist() -> None:
    """Every series is one that the service exports or a rule records, and is chosen by namespace and service."""
    labels = {metric.name: {*metric.labels, "le", "instance", "namespace", "service"} for metric in catalogue.ALL}
    recorded = set(RECORDED.findall((CHART / "files" / "rules.yaml").read_text()))
    for page in PAGES.values():
        for query in (query for row in page.rows.values() for panel in row for query in panel.queries):
            series = re.findall(r"(?:tierwise|process)[_:][a-z0-9_:]+(?=\{)", query.expression)
            assert series, query.expression
            assert len(series) == query.expression.count("{S")
            for name in series:
                bare = re.sub("_(bucket|sum|count)$", "", name)
                assert bare in labels or name in recorded or name.startswith("process_"), name
            for group in re.findall(r"by \(([^)]*)\)", query.expression):
                known = set().union(
                    *(labels.get(re.sub("_(bucket|sum|count)$", "", name), {"instance"}) for name in series)
                )
                assert {label.strip() for label in group.split(",")} <= known


def test_the_chart_installs_all_of_them() -> None:
    """The ConfigMap has every dashboard as it is, under the label that Grafana's sidecar looks for."""
    maps = of_kind(render(SWITCHES["watched"]), "ConfigMap")
    (found,) = [one for one in maps if one["metadata"]["name"].endswith("-dashboards")]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {key: json.loads(text) for key, text in found["data"].items()} == {
        f"tierwise-{path.name}": json.loads(path.read_text()) for path in FOLDER.iterdir()
    }
