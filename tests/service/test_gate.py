"""The gate."""

from __future__ import annotations

import pytest

from service.errors import InvalidRequestError
from service.gate import deadline_of, header_budgets


def test_the_earliest_budget_counts_from_when_the_request_arrived() -> None:
    """Time already spent is gone, whoever set the budget."""
    assert deadline_of(100.0, [1000.0, 250.0, 500.0]).at == 100.25


def test_both_deadline_headers_are_read() -> None:
    """Our own header and Envoy's mean the same."""
    headers = {"x-request-deadline-ms": "120.5", "x-envoy-expected-rq-timeout-ms": "80", "other": "1"}
    assert header_budgets(headers) == [120.5, 80.0]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "", "1e999"])
def test_a_header_that_is_no_positive_number_is_refused_by_name(value: str) -> None:
    """A wrong deadline must not turn into no deadline."""
    with pytest.raises(InvalidRequestError, match="x-request-deadline-ms"):
        header_budgets({"x-request-deadline-ms": value})
