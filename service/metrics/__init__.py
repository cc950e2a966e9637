"""Metrics: what this process counts, what it is asked for when it is scraped, and how several processes become one."""

from service.metrics.recorder import Metrics

__all__ = ["Metrics"]
