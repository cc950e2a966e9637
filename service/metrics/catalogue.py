"""Every metric, declared once: the recorder and the state make them from here, docs/metrics.md shows them. Pure.

Base units; `_total` for what only grows; no label whose values a caller can choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Seconds. From a cached answer to one that is much too late; a budget adds its own edges, see `edges`.
LADDER: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
SHARES: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25)  # of a deadline
ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)  # items in a forward pass


class Kind(StrEnum):
    """What Prometheus calls it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family.

    Attributes:
        name: as in a query; a histogram's and a summary's without their endings.
        help: its meaning in one line.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def edges(budget: float) -> tuple[float, ...]:
    """Buckets of a latency, in seconds, finer around the budget: whether answers are in time must be read exactly."""
    return tuple(sorted({*LADDER, round(0.8 * budget, 6), round(budget, 6), round(1.1 * budget, 6)}))


_COUNTER, _GAUGE, _HISTOGRAM, _SUMMARY = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM, Kind.SUMMARY

# Fed while requests run.
REQUESTS: Final = Metric(
    "tierwise_requests_total",
    _COUNTER,
    "Requests answered; status is HTTP's at every door, 499 for a caller that left. Probes are not counted",
    ("door", "path", "status", "tenant"),
)
REQUEST_SECONDS: Final = Metric(
    "tierwise_request_seconds", _HISTOGRAM, "Time from the first byte of a request to its answer", ("door", "path")
)
DEADLINES: Final = Metric(
    "tierwise_deadlines_total",
    _COUNTER,
    "Scoring requests: met, partial (some items are missing), late (answered after it), missed (504), refused (503)",
    ("outcome", "tenant"),
)
DEADLINE_USED: Final = Metric(
    "tierwise_deadline_used_ratio", _HISTOGRAM, "Share of its deadline that a scored request took"
)
STAGE_SECONDS: Final = Metric("tierwise_stage_seconds", _HISTOGRAM, "Time of a scored request in a stage", ("stage",))
ITEMS: Final = Metric("tierwise_items_total", _COUNTER, "Items by what became of them", ("status", "tenant"))
TOKENS: Final = Metric(
    "tierwise_prompt_tokens_total",
    _COUNTER,
    "Prompt tokens of scored requests by source: computed, or reused from a kept prefix",
    ("source", "tenant"),
)
CACHED_ITEMS: Final = Metric(
    "tierwise_cached_items_total", _COUNTER, "Items answered without being computed for the request", ("tenant",)
)
DEGRADED: Final = Metric("tierwise_degraded_total", _COUNTER, "Answers by flag in `degraded`", ("flag",))
CHUNKS: Final = Metric(
    "tierwise_chunks_total",
    _COUNTER,
    "Scored requests by chunk: used, none (below the gate or unwanted), caller (its own), failed (error, timeout)",
    ("outcome",),
)
TIERS: Final = Metric(
    "tierwise_item_tiers_total", _COUNTER, "Scored items by tier; its shares drift when traffic or judge do",
    ("checkpoint", "tier"),
)  # fmt: skip
SCORE: Final = Metric("tierwise_item_score", _SUMMARY, "Scores of items: sum over count is the mean", ("checkpoint",))
MARGIN: Final = Metric(
    "tierwise_item_margin",
    _SUMMARY,
    "Distance to another tier in probability: a falling mean is drift",
    ("checkpoint",),
)
LABEL_MASS: Final = Metric(
    "tierwise_item_label_mass",
    _SUMMARY,
    "Probability of any label at all, where the engine gives it; what is missing to 1 lies outside of the labels",
    ("checkpoint",),
)
TRUNCATED: Final = Metric("tierwise_truncated_items_total", _COUNTER, "Items with a field cut to its token budget")
SHADOW_REQUESTS: Final = Metric(
    "tierwise_shadow_requests_total",
    _COUNTER,
    "Requests sampled for the candidate: compared, dropped (no idle time), failed",
    ("outcome",),
)
SHADOW_ITEMS: Final = Metric(
    "tierwise_shadow_items_total",
    _COUNTER,
    "Items that the candidate judged: same (tier), tier (another one of the same band), band (another one)",
    ("checkpoint", "index", "outcome"),
)
SHADOW_FLIPS: Final = Metric(
    "tierwise_shadow_flips_total",
    _COUNTER,
    "Items with another tier, by what was answered and found",
    ("live", "found"),
)
SHADOW_DISTANCE: Final = Metric(
    "tierwise_shadow_score_distance", _SUMMARY, "Distance of the two scores of an item, absolute", ("checkpoint",)
)
SHADOW_STAGES: Final = Metric(
    "tierwise_shadow_stage_seconds",
    _HISTOGRAM,
    "Time of the candidate in a stage; compare tierwise_stage_seconds",
    ("stage",),
)
FED: Final = (
    REQUESTS, REQUEST_SECONDS, DEADLINES, DEADLINE_USED, STAGE_SECONDS, ITEMS, TOKENS, CACHED_ITEMS, DEGRADED, CHUNKS,
    TIERS, SCORE, MARGIN, LABEL_MASS, TRUNCATED, SHADOW_REQUESTS, SHADOW_ITEMS, SHADOW_FLIPS, SHADOW_DISTANCE,
    SHADOW_STAGES,
)  # fmt: skip

# Read when they are asked for.
BUILD: Final = Metric("tierwise_build_info", _GAUGE, "1, labelled with the version of Tierwise", ("version",))
READY: Final = Metric("tierwise_ready", _GAUGE, "1 when ready for traffic")
JUDGE_READY: Final = Metric(
    "tierwise_judge_ready", _GAUGE, "1 while requests that name this judge are answered", ("model",)
)
LOOP_LAG: Final = Metric("tierwise_event_loop_lag_seconds", _GAUGE, "Delay of the event loop's last tick")
ENGINE_ALIVE: Final = Metric("tierwise_engine_alive", _GAUGE, "1 while the engine makes progress or has nothing to do")
QUEUED_TOKENS: Final = Metric("tierwise_engine_queued_tokens", _GAUGE, "Tokens that the engine has not begun")
STEPS: Final = Metric("tierwise_engine_steps_total", _COUNTER, "Forward passes finished; a heartbeat")
BATCH: Final = Metric(
    "tierwise_engine_batch_items", _HISTOGRAM, "Items in a forward pass, where the engine can say it (onnx)"
)
ADMITTED_REQUESTS: Final = Metric("tierwise_admitted_requests", _GAUGE, "Requests with room in the engine's queue")
ADMITTED_TOKENS: Final = Metric("tierwise_admitted_tokens", _GAUGE, "Tokens of these that are not finished")
ADMITTED_BYTES: Final = Metric("tierwise_in_flight_bytes", _GAUGE, "Bytes of request bodies held")
RATE: Final = Metric(
    "tierwise_engine_tokens_per_second", _GAUGE, "Tokens that the busy engine finishes; NaN until it is known"
)
ADMISSIONS: Final = Metric(
    "tierwise_admissions_total",
    _COUNTER,
    "Requests: admitted, shortened (of those), throttled (at the door), refused (behind it), over_bytes, over_quota",
    ("outcome",),
)
BROWN_OUT: Final = Metric(
    "tierwise_brown_out_step", _GAUGE, "Default priority: 0 everything, 1 no retrieval, 2 cache only, 3 first items"
)
CACHE_ITEMS: Final = Metric(
    "tierwise_cache_items_total", _COUNTER, "Items looked up, by where they were found: memory, redis, miss", ("found",)
)
CACHE_EVENTS: Final = Metric(
    "tierwise_cache_events_total",
    _COUNTER,
    "Items: stored, evicted, joined (another request computed them), corrupted (not what was written), "
    "other_chunk (scored with another one), dropped (not written to Redis), crowded (Redis not asked), refreshes",
    ("event",),
)
CACHE_ENTRIES: Final = Metric("tierwise_cache_entries", _GAUGE, "Entries in memory")
CACHE_BYTES: Final = Metric("tierwise_cache_bytes", _GAUGE, "Bytes that they take")
REDIS_FAILURES: Final = Metric(
    "tierwise_redis_failures_total", _COUNTER, "Failed calls to Redis by kind: timeout, other", ("kind",)
)
BREAKER_OPEN: Final = Metric(
    "tierwise_breaker_open",
    _GAUGE,
    "1 while a part is left alone because it failed: redis_reads, redis_writes",
    ("part",),
)
BREAKER_OPENED: Final = Metric("tierwise_breaker_opened_total", _COUNTER, "Times that it began", ("part",))
CHECKPOINT: Final = Metric(
    "tierwise_checkpoint_info",
    _GAUGE,
    "1, labelled with what judges",
    ("name", "checkpoint", "prompt", "tiers", "engine"),
)
CHECKPOINT_LOADED: Final = Metric("tierwise_checkpoint_loaded_timestamp_seconds", _GAUGE, "When it was taken into use")
INDEX: Final = Metric(
    "tierwise_index_info",
    _GAUGE,
    "1, labelled with the snapshot in force; knowledge is the setting that names its folder",
    ("knowledge", "version"),
)
INDEX_BUILT: Final = Metric(
    "tierwise_index_built_timestamp_seconds", _GAUGE, "When the snapshot in force was made", ("knowledge",)
)
INDEX_CHECKED: Final = Metric(
    "tierwise_index_checked_timestamp_seconds",
    _GAUGE,
    "When a look last found that the newest snapshot is in force; old when it is refused or unreadable",
    ("knowledge",),
)
ACCESS_REFUSED: Final = Metric(
    "tierwise_access_refused",
    _GAUGE,
    "1 while the newest keys or certificate were refused and older ones are in force",
    ("files",),
)
CHECKPOINT_REFUSED: Final = Metric(
    "tierwise_checkpoint_refused",
    _GAUGE,
    "1 while a reload has refused the newest checkpoint and the one before serves",
)
STATE: Final = (
    BUILD, READY, JUDGE_READY, LOOP_LAG, ENGINE_ALIVE, QUEUED_TOKENS, STEPS, BATCH, ADMITTED_REQUESTS, ADMITTED_TOKENS,
    ADMITTED_BYTES, RATE, ADMISSIONS, BROWN_OUT, CACHE_ITEMS, CACHE_EVENTS, CACHE_ENTRIES, CACHE_BYTES, REDIS_FAILURES,
    BREAKER_OPEN, BREAKER_OPENED, CHECKPOINT, CHECKPOINT_LOADED, INDEX, INDEX_BUILT, INDEX_CHECKED,
    ACCESS_REFUSED, CHECKPOINT_REFUSED,
)  # fmt: skip

ALL: Final = FED + STATE
