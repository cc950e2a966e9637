import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.vllm_server.routing import RetryBudget, prefix_key, ranked, with_spill

URLS = [f"http://server-{n}:8000" for n in range(5)]
KEYS = [prefix_key([n, n + 1], "") for n in range(2000)]


def test_equal_prefixes_prefer_the_same_server() -> None:
    """Any gateway, whatever order it lists the servers in, must rank them the same way for a prefix."""
    assert all(ranked(key, URLS) == ranked(key, URLS[::-1]) for key in KEYS)


def test_prefixes_spread_evenly() -> None:
    """No server may be preferred by much more than its share of prefixes."""
    first = [ranked(key, URLS)[0] for key in KEYS]
    assert all(320 < first.count(url) < 480 for url in URLS)


def test_a_leaving_server_moves_only_its_own_prefixes() -> None:
    """When a server goes, every prefix that preferred another one must stay where its cache is warm."""
    for key in KEYS:
        order = ranked(key, URLS)
        assert ranked(key, [u for u in URLS if u != order[-1]]) == order[:-1]


def test_tenants_do_not_share_a_preference() -> None:
    """The scope is part of what a cache is keyed by, so it must be part of the routing key."""
    assert prefix_key([1, 2], "a") != prefix_key([1, 2], "b") != prefix_key([1, 2], "")


def test_ids_do_not_run_together() -> None:
    """Different id sequences must never make the same key by concatenation."""
    assert len({prefix_key(ids, "") for ids in ([1, 23], [12, 3], [123], [1, 2, 3])}) == 4


def test_a_short_queue_keeps_its_prefix() -> None:
    """Waiting behind little is cheaper than computing the prefix elsewhere."""
    assert with_spill(["a", "b"], {"a": 900, "b": 0}, 1000) == ["a", "b"]


def test_a_long_queue_spills_to_the_least_loaded() -> None:
    """Behind a long queue the warm cache is not worth the wait."""
    assert with_spill(["a", "b", "c"], {"a": 5000, "b": 2000, "c": 100}, 1000) == ["c", "b", "a"]


def test_an_equally_loaded_pool_does_not_spill() -> None:
    """When all queues are long, moving gains nothing and loses the cache."""
    assert with_spill(["a", "b"], {"a": 5000, "b": 4000}, 1000) == ["a", "b"]


@given(st.lists(st.booleans(), max_size=400))
def test_extra_calls_stay_within_a_tenth(failures: list[bool]) -> None:
    """Whatever fails, extra calls must never exceed 10 % of the calls and the single one saved at the start."""
    budget = RetryBudget()
    extra = 0
    for n, failed in enumerate(failures, start=1):
        budget.call()
        extra += failed and budget.take()
        assert extra <= 1 + 0.1 * n + 1e-9


@pytest.mark.parametrize("calls", [1000])
def test_saved_retries_are_limited(calls: int) -> None:
    """A long quiet time must not allow a storm of retries later."""
    budget = RetryBudget(most=10)
    for _ in range(calls):
        budget.call()
    assert sum(budget.take() for _ in range(calls)) == 10
