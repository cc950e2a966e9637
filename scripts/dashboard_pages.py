"""What the Grafana dashboards show. `scripts/dashboards.py` writes them.

In an expression `S` inside braces stands for the selector of the chosen services, `R` for the window of rates.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Query(NamedTuple):
    """One PromQL expression and what its lines are called."""

    expression: str
    legend: str


class Look(Enum):
    """How a panel draws its queries."""

    LINES = auto()
    STACK = auto()
    HEAT = auto()


class Panel(NamedTuple):
    """One panel."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    look: Look = Look.LINES
    about: str = ""


class Page(NamedTuple):
    """One dashboard, with three panels in a row."""

    title: str
    rows: Mapping[str, Sequence[Panel]]


def legend(by: str) -> str:
    """Return a legend that names these labels."""
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return a counter's rate, summed over all labels but some."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{S{',' if where else ''}{where}}}[R]))"


def rates(metric: str, by: str, where: str = "") -> list[Query]:
    """Return a counter's rate as the only query, a line for each value of some labels."""
    return [Query(rate(metric, by, where), legend(by))]


def values(function: str, metric: str, by: str) -> list[Query]:
    """Return a gauge, aggregated, as the only query."""
    return [Query(f"{function} by ({by}) ({metric}{{S}})", legend(by))]


def part(metric: str, by: str, where: str) -> str:
    """Return which share of a counter's rate matches."""
    return f"{rate(metric, by, where)} / {rate(metric, by)}"


def mean(metric: str, by: str) -> list[Query]:
    """Return the mean of a summary as the only query."""
    return [Query(f"{rate(metric + '_sum', by)} / {rate(metric + '_count', by)}", legend(by))]


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', f'le, {by}' if by else 'le', where)})"


def quantiles(histogram: str) -> list[Query]:
    """Return three quantiles of a histogram."""
    return [Query(quantile(q, histogram), f"p{100 * q:g}") for q in (0.5, 0.95, 0.99)]


def heat(histogram: str) -> list[Query]:
    """Return a histogram as a heat map's query."""
    return [Query(f"sum by (le) (increase({histogram}_bucket{{S}}[R]))", "{{le}}")]


def burn(ratio: str, budget: float) -> list[Query]:
    """Return how many times too fast a budget is used up."""
    return [Query(f"tierwise:{ratio}:ratio_rate{window}{{S}} / {budget}", window) for window in ("5m", "1h", "6h")]


def by_stage(q: float) -> Panel:
    """Return a panel of one quantile, with a line for each stage."""
    queries = [Query(quantile(q, "tierwise_stage_seconds", "stage"), "{{stage}}")]
    return Panel(f"p{100 * q:g} by stage", queries, "s", about="embed and search lie within fetch, queue within score")


MEAN_STAGES: Final = Query(
    rate("tierwise_stage_seconds_sum", "stage", 'stage!~"total|embed|search|queue"')
    + " / ignoring (stage) group_left () "
    + rate("tierwise_stage_seconds_count", where='stage="total"'),
    "{{stage}}",
)
LATENCY: Final = Page(
    "Tierwise: latency and budget",
    {
        "Promises": [
            Panel("Budget burn: answers", burn("request_errors", 0.001), about="at 1 a month's budget lasts a month"),
            Panel("Budget burn: in time", burn("late_items", 0.01), about="at 14.4 it lasts two days, and pages"),
            Panel("Deadlines", rates("tierwise_deadlines_total", "outcome"), "reqps", Look.STACK),
        ],
        "Whole requests": [
            Panel("Time to answer", quantiles("tierwise_request_seconds"), "s"),
            Panel("Time to answer, heat map", heat("tierwise_request_seconds"), "s", Look.HEAT),
            Panel(
                "Share of the deadline used",
                heat("tierwise_deadline_used_ratio"),
                "percentunit",
                Look.HEAT,
                "near 1 is a budget without reserve",
            ),
        ],
        "Stages": [by_stage(0.5), by_stage(0.95), by_stage(0.99)],
        "Where the time goes": [
            Panel("Mean by stage", [MEAN_STAGES], "s", Look.STACK, "of all scored requests, with the stage or without"),
            Panel(
                "p95 by path",
                [Query(quantile(0.95, "tierwise_request_seconds", "door, path"), "{{door}} {{path}}")],
                "s",
            ),
            Panel(
                "Event loop lag",
                values("max", "tierwise_event_loop_lag_seconds", "instance"),
                "s",
                about="the delay of everything that the process does beside computing",
            ),
        ],
    },
)

QUALITY: Final = Page(
    "Tierwise: traffic and quality",
    {
        "Traffic": [
            Panel("Requests", rates("tierwise_requests_total", "door, path"), "reqps", Look.STACK),
            Panel("Answers by status", rates("tierwise_requests_total", "status"), "reqps", Look.STACK),
            Panel("Items", rates("tierwise_items_total", "status"), "ops", Look.STACK),
        ],
        "Verdicts": [
            Panel(
                "Tiers",
                [
                    Query(
                        rate("tierwise_item_tiers_total", "checkpoint, tier")
                        + " / ignoring (tier) group_left () "
                        + rate("tierwise_item_tiers_total", "checkpoint"),
                        "{{tier}} {{checkpoint}}",
                    )
                ],
                "percentunit",
                Look.STACK,
                "shares of scored items, for each checkpoint",
            ),
            Panel("Mean score", mean("tierwise_item_score", "checkpoint")),
            Panel(
                "Mean margin",
                mean("tierwise_item_margin", "checkpoint"),
                about="distance in probability to another tier; falls when traffic leaves what the judge knows",
            ),
        ],
        "Drift": [
            Panel(
                "Shift of the tiers",
                [Query("tierwise:tier_shift:distance1h_1d{S}", "{{checkpoint}}")],
                "percentunit",
                about="share of items whose tier would have to be another for the last hour to look like the last day",
            ),
            Panel(
                "Margin beside the last day's",
                [Query("tierwise:item_margin:ratio1h_1d{S}", "{{checkpoint}}")],
                "percentunit",
            ),
            Panel(
                "Probability of the labels",
                mean("tierwise_item_label_mass", "checkpoint"),
                "percentunit",
                about="of all answers; only engines that compute the whole vocabulary know it (vllm)",
            ),
        ],
        "Candidate in shadow mode": [
            Panel(
                "Items by agreement",
                [
                    Query(
                        rate("tierwise_shadow_items_total", "checkpoint, index, outcome")
                        + " / ignoring (outcome) group_left () "
                        + rate("tierwise_shadow_items_total", "checkpoint, index"),
                        "{{outcome}} {{checkpoint}} {{index}}",
                    )
                ],
                "percentunit",
                Look.STACK,
                "same tier, another one of the same band, or another band than what was answered",
            ),
            Panel("Distance of the scores", mean("tierwise_shadow_score_distance", "checkpoint")),
            Panel(
                "p95 by stage, of the candidate",
                [Query(quantile(0.95, "tierwise_shadow_stage_seconds", "stage"), "{{stage}}")],
                "s",
            ),
        ],
        "What was less than it could be": [
            Panel("Degraded answers", rates("tierwise_degraded_total", "flag"), "reqps", Look.STACK),
            Panel("Items with a field cut", [Query(rate("tierwise_truncated_items_total"), "items")], "ops"),
            Panel("Versions", values("count", "tierwise_checkpoint_info", "name, checkpoint, engine")),
        ],
    },
)

ENGINE: Final = Page(
    "Tierwise: engine and retrieval",
    {
        "Queue": [
            Panel("Tokens that wait", values("sum", "tierwise_engine_queued_tokens", "instance"), look=Look.STACK),
            Panel("Requests under way", values("sum", "tierwise_admitted_requests", "instance"), look=Look.STACK),
            Panel("Admission", rates("tierwise_admissions_total", "outcome"), "reqps"),
        ],
        "Work": [
            Panel("Prompt tokens", rates("tierwise_prompt_tokens_total", "source"), "ops", Look.STACK),
            Panel(
                "Share of tokens not computed",
                [Query(part("tierwise_prompt_tokens_total", "service", 'source="reused"'), "{{service}}")],
                "percentunit",
                about="prefixes that requests share, and items from the cache",
            ),
            Panel("Items in a forward pass", quantiles("tierwise_engine_batch_items")),
        ],
        "Health": [
            Panel("Forward passes", rates("tierwise_engine_steps_total", "instance"), "ops"),
            Panel("What the engine can do", values("sum", "tierwise_engine_tokens_per_second", "service"), "ops"),
            Panel(
                "Ready, alive, brown-out",
                [
                    Query("min by (service) (tierwise_ready{S})", "ready"),
                    Query("min by (service) (tierwise_engine_alive{S})", "engine alive"),
                    Query("max by (service) (tierwise_brown_out_step{S})", "brown-out step"),
                ],
            ),
        ],
        "Knowledge": [
            Panel("Chunks", rates("tierwise_chunks_total", "outcome"), "reqps", Look.STACK),
            Panel(
                "Retrieval, p95",
                [Query(quantile(0.95, "tierwise_stage_seconds", "stage", 'stage=~"embed|search|fetch"'), "{{stage}}")],
                "s",
            ),
            Panel(
                "Age of the snapshot",
                [
                    Query(f"time() - min by (knowledge) (tierwise_index_{what}_timestamp_seconds{{S}})", what)
                    for what in ("built", "checked")
                ],
                "s",
            ),
        ],
        "Process": [
            Panel("Cores", rates("process_cpu_seconds_total", "instance"), look=Look.STACK),
            Panel("Memory", values("sum", "process_resident_memory_bytes", "instance"), "bytes", Look.STACK),
            Panel("Snapshots in force", values("count", "tierwise_index_info", "knowledge, version")),
        ],
    },
)

CACHE: Final = Page(
    "Tierwise: cache and Redis",
    {
        "Hits": [
            Panel("Items by where they were found", rates("tierwise_cache_items_total", "found"), "ops", Look.STACK),
            Panel(
                "Share found",
                [Query(part("tierwise_cache_items_total", "service", 'found!="miss"'), "{{service}}")],
                "percentunit",
            ),
            Panel(
                "Lookup",
                [
                    Query(quantile(q, "tierwise_stage_seconds", where='stage="recall"'), f"p{100 * q:g}")
                    for q in (0.5, 0.95, 0.99)
                ],
                "s",
            ),
        ],
        "Memory": [
            Panel("Bytes", values("sum", "tierwise_cache_bytes", "instance"), "bytes", Look.STACK),
            Panel("Entries", values("sum", "tierwise_cache_entries", "instance"), look=Look.STACK),
            Panel("Events", rates("tierwise_cache_events_total", "event"), "ops"),
        ],
        "Redis": [
            Panel("Left alone", values("max", "tierwise_breaker_open", "part"), about="1 while it is not asked"),
            Panel("Failed calls", rates("tierwise_redis_failures_total", "kind"), "ops", Look.STACK),
            Panel("Times that it began", rates("tierwise_breaker_opened_total", "part"), "ops"),
        ],
    },
)

TENANTS: Final = Page(
    "Tierwise: tenants",
    {
        "Asked": [
            Panel("Requests", rates("tierwise_requests_total", "tenant"), "reqps", Look.STACK),
            Panel("Items", rates("tierwise_items_total", "tenant"), "ops", Look.STACK),
            Panel(
                "Tokens computed",
                rates("tierwise_prompt_tokens_total", "tenant", 'source="computed"'),
                "ops",
                Look.STACK,
                "what a tenant costs",
            ),
        ],
        "Answered": [
            Panel(
                "Share not in time",
                [Query(part("tierwise_deadlines_total", "tenant", 'outcome!="met"'), "{{tenant}}")],
                "percentunit",
                about="late, in part, missed or refused",
            ),
            Panel(
                "Refused callers",
                rates("tierwise_requests_total", "tenant, status", 'status=~"4.."'),
                "reqps",
                Look.STACK,
                "401 and 403: credentials, 422: the request, 429: quotas",
            ),
            Panel("Items from the cache", rates("tierwise_cached_items_total", "tenant"), "ops", Look.STACK),
        ],
    },
)

PAGES: Final = {"latency": LATENCY, "quality": QUALITY, "engine": ENGINE, "cache": CACHE, "tenants": TENANTS}
