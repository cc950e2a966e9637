"""What the view shows, as rich renderables. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from service.top.scrape import Between

STAGES: Final = (
    "parse", "recall", "fetch", "embed", "search", "write", "score", "queue", "judge", "explain", "total",
)  # fmt: skip
WITHIN: Final = {"embed", "search", "queue"}  # another stage
QUANTILES: Final = (0.5, 0.95, 0.99)
STEPS: Final = ("everything", "no retrieval", "cache only", "first items")


def view(seen: Between, now: float) -> RenderableType:
    """The whole view, of what happened between two scrapes; `now` in seconds since the epoch."""
    return Group(
        _head(seen, now),
        "",
        Columns([_requests(seen), _stages(seen)], padding=(0, 4)),
        "",
        Columns(
            [_shares("Tiers", seen.rates("tierwise_item_tiers_total", "tier")), _queue(seen), _cache(seen)],
            padding=(0, 4),
        ),
    )


def _head(seen: Between, now: float) -> Text:
    after = seen.after
    readies = after.samples.get("tierwise_ready", [])
    ready = sum(value for _, value in readies)
    head = Text("tierwise ")
    head.append(next((labels["version"] for labels in after.labels("tierwise_build_info")), "?"), "bold")
    state = "ready" if ready == len(readies) else "not ready" if not ready else f"{ready:.0f} of {len(readies)} ready"
    head.append(f"  {state}", "green" if ready == len(readies) else "bold red")
    started = after.total("tierwise_checkpoint_loaded_timestamp_seconds") / max(1, len(readies))
    head.append(f"  up {timedelta(seconds=max(0, round(now - started)))}")
    if len(readies) > 1:
        head.append(f"  {len(readies)} workers")
    for labels in _unique(after.labels("tierwise_checkpoint_info")):
        head.append(f"\ncheckpoint {labels['checkpoint']}  tiers {labels['tiers']}  engine {labels['engine']}")
    for labels in _unique(after.labels("tierwise_index_info")):
        head.append(f"\n{labels['knowledge']} {labels['version']}")
    return head


def _requests(seen: Between) -> Table:
    table = _table("Requests", "a second", *(f"p{100 * q:g} ms" for q in QUANTILES), "4xx", "5xx")
    for path in seen.after.by("tierwise_requests_total", "path"):
        status = seen.rates("tierwise_requests_total", "status", path=path)
        times = [_ms(seen.quantile(q, "tierwise_request_seconds", path=path)) for q in QUANTILES]
        wrong = [_number(sum(rate for code, rate in status.items() if code[0] == kind)) for kind in "45"]
        table.add_row(path, _number(sum(status.values())), *times, *wrong)
    items = seen.rates("tierwise_items_total", "status")
    table.add_section()
    for name, rate in items.items():
        table.add_row(f"items {name}", _number(rate))
    return table


def _stages(seen: Between) -> Table:
    table = _table("Stage", "a second", *(f"p{100 * q:g} ms" for q in QUANTILES))
    rates = seen.rates("tierwise_stage_seconds_count", "stage")
    for stage in (*STAGES, *(rates.keys() - set(STAGES))):
        if stage in rates:
            times = [_ms(seen.quantile(q, "tierwise_stage_seconds", stage=stage)) for q in QUANTILES]
            table.add_row(f"  {stage}" if stage in WITHIN else stage, _number(rates[stage]), *times)
    return table


def _queue(seen: Between) -> Table:
    after = seen.after
    table = _table("Engine", "")
    step = max((int(value) for _, value in after.samples.get("tierwise_brown_out_step", ())), default=0)
    table.add_row("requests under way", _number(after.total("tierwise_admitted_requests")))
    table.add_row("tokens waiting", _number(after.total("tierwise_engine_queued_tokens")))
    table.add_row("tokens a second", _number(seen.rate("tierwise_prompt_tokens_total", source="computed")))
    table.add_row("reused", _number(seen.rate("tierwise_prompt_tokens_total", source="reused")))
    table.add_row("forward passes a second", _number(seen.rate("tierwise_engine_steps_total")))
    table.add_row("turned away a second", _number(_refused(seen)))
    table.add_row("brown-out", STEPS[step])
    return table


def _cache(seen: Between) -> Table:
    table = _shares("Items found in", seen.rates("tierwise_cache_items_total", "found"))
    table.add_section()
    table.add_row("entries", _number(seen.after.total("tierwise_cache_entries")))
    table.add_row("MiB", f"{seen.after.total('tierwise_cache_bytes') / 2**20:.1f}")
    if seen.after.samples.get("tierwise_breaker_open"):
        alone = seen.after.total("tierwise_breaker_open")
        table.add_row("Redis", "left alone" if alone else "answers")
    return table


def _refused(seen: Between) -> float:
    rates = seen.rates("tierwise_admissions_total", "outcome")
    return sum(rate for outcome, rate in rates.items() if outcome not in ("admitted", "shortened"))


def _shares(title: str, rates: Mapping[str, float]) -> Table:
    table = _table(title, "share", "a second")
    whole = sum(rates.values())
    for name, rate in rates.items():
        table.add_row(name, f"{rate / whole:.1%}" if whole else "-", _number(rate))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _unique(labels: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Workers have the same versions most of the time; `worker` alone tells them apart."""
    found: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    for one in labels:
        found.setdefault(tuple(sorted((k, v) for k, v in one.items() if k != "worker")), one)
    return list(found.values())


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004 # digits that help
