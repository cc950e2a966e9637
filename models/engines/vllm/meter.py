"""vLLM's own counters, as the engine loop reports them after each step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats


@dataclass(slots=True)
class Meter:
    """Heartbeat and totals; outlives the engine processes it counts.

    Attributes:
        steps: engine steps reported since start.
        stepped_at: monotonic time of the last one, seconds.
        running, waiting: requests in the scheduler after the last step.
        prompt_tokens, cached_tokens: prompt tokens scheduled, and how many of them the prefix cache held.
        preemptions: requests thrown out of a full key/value cache, to be computed again.
    """

    steps: int = 0
    stepped_at: float = 0.0
    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that went through the model."""
        return self.prompt_tokens - self.cached_tokens

    def logger(self, config: VllmConfig, engine_index: int = 0) -> MeterLogger:
        """A factory of statistics loggers, as vLLM wants one."""
        del config, engine_index
        return MeterLogger(self)


class MeterLogger:
    """Duck-typed `vllm.v1.metrics.loggers.StatLoggerBase`, which vLLM does not call stable either."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        """One step was finished."""
        del mm_cache_stats, engine_idx
        meter = self._meter
        meter.steps += 1
        meter.stepped_at = time.monotonic()
        if scheduler_stats is not None:
            meter.running = scheduler_stats.num_running_reqs
            meter.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            meter.prompt_tokens += scheduler_stats.prefix_cache_stats.queries
            meter.cached_tokens += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            meter.preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say: the engine logs it."""

    def log(self) -> None:
        """Nothing to say: the service exports the meter."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """The engine never sleeps here."""

    def record_admission_rejection(self, reason: str) -> None:
        """The caller is told by an error."""
