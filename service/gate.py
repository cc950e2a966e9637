"""The gate: how long a call may take. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.deadline import Deadline
from service.errors import FieldError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What each header holds: milliseconds that the caller still waits, counted from when it sent the request.
DEADLINE_HEADERS = ("x-request-deadline-ms", "x-envoy-expected-rq-timeout-ms")


def header_budgets(headers: Mapping[str, str]) -> list[float]:
    """Budgets in milliseconds that the caller's headers name.

    Raises:
        InvalidRequestError: a header is not a positive number.
    """
    budgets = []
    for name in DEADLINE_HEADERS:
        text = headers.get(name)
        if text is None:
            continue
        try:
            budget = float(text)
        except ValueError:
            budget = math.nan
        if not 0 < budget < math.inf:
            detail = f"header {name} must be a positive number of milliseconds, it is {text[:40]!r}"
            raise InvalidRequestError(detail, errors=(FieldError("", detail),))
        budgets.append(budget)
    return budgets


def deadline_of(started: float, budgets_ms: Iterable[float]) -> Deadline:
    """The earliest of the budgets, all counted from `started` (monotonic seconds): time already spent is gone."""
    return Deadline(started + min(budgets_ms) / 1000.0)
