"""Write the Grafana dashboards of scripts/dashboard_pages.py into the Helm chart, as JSON."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.common import StackingConfig
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from scripts.dashboard_pages import PAGES, Look, Page, Panel, Query

FOLDER: Final = Path(__file__).resolve().parents[1] / "deploy" / "helm" / "tierwise" / "files" / "dashboards"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
NAMESPACE: Final = 'namespace=~"$namespace"'
SELECTOR: Final = f'{NAMESPACE},service=~"$service"'


def expression(query: Query) -> str:
    """Return PromQL with Grafana's variables."""
    return query.expression.replace("[R]", "[$__rate_interval]").replace("{S", "{" + SELECTOR)


def rendered(name: str, page: Page) -> str:
    """Return a dashboard's JSON."""
    board = (
        Dashboard(page.title)
        .uid(f"tierwise-{name}")
        .tags(["tierwise"])
        .readonly()
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(_variable("namespace", "tierwise_ready"))
        .with_variable(_variable("service", f"tierwise_ready{{{NAMESPACE}}}"))
    )
    number = count(1)
    for title, panels in page.rows.items():
        board.with_row(Row(title).id(next(number)))
        for panel in panels:
            board.with_panel(_panel(panel).id(next(number)))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def _variable(name: str, series: str) -> QueryVariable:
    variable = QueryVariable(name).label(name.capitalize()).datasource(SOURCE)
    variable.query(f"label_values({series}, {name})").refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.multi(multi=True).include_all(include_all=True).all_value(".*")


def _panel(panel: Panel) -> Timeseries | Heatmap:
    made: Timeseries | Heatmap
    if panel.look is Look.HEAT:
        made = Heatmap()
    else:
        made = Timeseries().min(0).fill_opacity(30 if panel.look is Look.STACK else 5)
        if panel.look is Look.STACK:
            made.stacking(StackingConfig().mode(StackingMode.NORMAL))
    made.title(panel.title).description(panel.about).unit(panel.unit).datasource(SOURCE).span(8).height(8)
    shape = PromQueryFormat.HEATMAP if panel.look is Look.HEAT else PromQueryFormat.TIME_SERIES
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        made.with_target(Dataquery().expr(expression(query)).legend_format(query.legend).ref_id(letter).format(shape))
    return made


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / f"{name}.json").write_text(rendered(name, page))


if __name__ == "__main__":
    main()
