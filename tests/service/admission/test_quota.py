"""Quotas: who may ask how much, whatever the load."""

from __future__ import annotations

import pytest

from service.admission import quota
from service.admission.quota import Quotas
from service.errors import QuotaError
from service.request import Caller, Quota

NONE = Quota("")


def passes(quotas: Quotas, caller: Caller, now: float) -> bool:
    """Whether one more request is let in."""
    try:
        quotas.knock(caller, now)
    except QuotaError:
        return False
    return True


def test_without_a_quota_everything_passes() -> None:
    """And nothing is remembered of the caller."""
    quotas = Quotas(NONE, burst_seconds=1.0)
    assert all(passes(quotas, Caller(), 0.0) for _ in range(1_000))
    quotas.charge(Caller(), 1e9, 0.0)
    assert not quotas._kept


def test_a_burst_passes_and_then_the_rate() -> None:
    """The refusal says how long to wait, and waiting so long is enough."""
    quotas = Quotas(Quota("", requests_per_second=10.0), burst_seconds=2.0)
    assert sum(passes(quotas, Caller(), 0.0) for _ in range(100)) == 20
    with pytest.raises(QuotaError) as refused:
        quotas.knock(Caller(), 0.0)
    assert refused.value.retry_after_ms is not None
    assert passes(quotas, Caller(), refused.value.retry_after_ms / 1000.0)
    assert sum(passes(quotas, Caller(), t / 100.0) for t in range(100, 1_100)) <= 20 + 100


def test_tokens_are_paid_for_after_they_were_known() -> None:
    """A large request is let in and computed; the tenant's next ones wait until it is paid for."""
    quotas = Quotas(Quota("", tokens_per_second=100.0), burst_seconds=1.0)
    quotas.knock(Caller("a"), 0.0)
    quotas.charge(Caller("a"), 500.0, 0.0)
    assert not passes(quotas, Caller("a"), 3.9)
    assert passes(quotas, Caller("b"), 0.0)
    assert passes(quotas, Caller("a"), 4.1)


def test_every_quota_of_a_caller_must_have_room_and_equal_names_share_one() -> None:
    """A key's own allowance and its tenant's, which another key of the tenant draws on too."""
    tenant = Quota("tenant:a", requests_per_second=3.0)
    one = Caller("a", quotas=(tenant, Quota("key:1", requests_per_second=2.0)))
    two = Caller("a", quotas=(tenant, Quota("key:2", requests_per_second=2.0)))
    quotas = Quotas(NONE, burst_seconds=1.0)
    assert [passes(quotas, one, 0.0) for _ in range(3)] == [True, True, False]
    assert [passes(quotas, two, 0.0) for _ in range(2)] == [True, False]  # a refused request was not charged for


def test_a_quota_that_was_changed_is_in_force_at_once() -> None:
    """A reload of the keys needs no restart; the new rate counts from then on, up to the new burst."""
    quotas = Quotas(NONE, burst_seconds=1.0)
    small = Caller("a", quotas=(Quota("tenant:a", requests_per_second=1.0),))
    assert [passes(quotas, small, 0.0) for _ in range(2)] == [True, False]
    large = Caller("a", quotas=(Quota("tenant:a", requests_per_second=5.0),))
    assert not passes(quotas, large, 0.0)
    assert [passes(quotas, large, 0.2) for _ in range(2)] == [True, False]
    assert sum(passes(quotas, large, 9.0) for _ in range(10)) == 5


def test_a_change_of_a_quota_gives_nothing_back() -> None:
    """Calls that began before it and calls that begin after it, in turns, get no more than the larger burst."""
    quotas = Quotas(NONE, burst_seconds=1.0)
    old, new = (
        Caller("a", quotas=(Quota("tenant:a", requests_per_second=rate, tokens_per_second=rate),))
        for rate in (100.0, 1.0)
    )
    assert sum(passes(quotas, caller, 0.0) for _ in range(1_000) for caller in (old, new)) <= 100
    quotas.charge(new, 500.0, 0.0)
    assert not passes(quotas, old, 4.0)  # a debt stays one


def test_a_quota_of_a_key_stands_beside_the_default() -> None:
    """Only a quota of the tenant's own takes its place."""
    quotas = Quotas(Quota("", requests_per_second=2.0), burst_seconds=1.0)
    own = (Quota("key:1", requests_per_second=9.0),)
    assert [passes(quotas, Caller("a", quotas=own), 0.0) for _ in range(3)] == [True, True, False]
    assert not passes(quotas, Caller("a"), 0.0)  # another key of the tenant draws on the same
    assert sum(passes(quotas, Caller("b", quotas=own, by_default=False), 0.0) for _ in range(10)) == 7


def test_workers_divide_a_quota() -> None:
    """Two processes let in together what one would."""
    workers = [Quotas(Quota("", requests_per_second=10.0), burst_seconds=2.0, workers=2) for _ in range(2)]
    assert sum(passes(w, Caller(), 0.0) for w in workers for _ in range(100)) == 20


def test_names_are_forgotten_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used goes first; memory does not grow with tenants."""
    monkeypatch.setattr(quota, "MOST_NAMES", 2)
    quotas = Quotas(Quota("", requests_per_second=1.0), burst_seconds=1.0)
    for tenant in "abac":
        passes(quotas, Caller(tenant), 0.0)
    assert list(quotas._kept) == ["default:a", "default:c"]
