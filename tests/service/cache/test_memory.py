"""The cache in the process."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from service.cache.memory import OVERHEAD_BYTES, MemoryCache

ROOM = 3 * (1 + 8 + OVERHEAD_BYTES)
operations = st.lists(st.tuples(st.sampled_from("gpd"), st.binary(min_size=1, max_size=1)), max_size=60)


def test_the_least_recently_used_goes_first() -> None:
    """Reading keeps an entry young."""
    cache = MemoryCache(ROOM)
    for key in (b"a", b"b", b"c"):
        cache.put(key, b"x" * 8)
    assert cache.get(b"a") == b"x" * 8
    cache.put(b"d", b"y" * 8)
    assert cache.get_all([b"a", b"b", b"c", b"d"]) == [b"x" * 8, None, b"x" * 8, b"y" * 8]
    assert cache.evicted == 1


def test_what_alone_is_over_the_bound_is_not_kept() -> None:
    """Nor does it push the others out; without room nothing is kept."""
    cache = MemoryCache(ROOM)
    cache.put(b"a", b"x" * 8)
    cache.put(b"b", b"x" * ROOM)
    assert (cache.get(b"a"), cache.get(b"b")) == (b"x" * 8, None)
    nothing = MemoryCache(0)
    nothing.put(b"a", b"")
    assert (nothing.get(b"a"), nothing.bytes) == (None, 0)


@given(operations)
def test_the_count_of_bytes_is_exact_and_bounded(done: list[tuple[str, bytes]]) -> None:
    """Whatever was put, replaced, read and dropped."""
    cache = MemoryCache(ROOM)
    for what, key in done:
        if what == "g":
            cache.get(key)
        elif what == "p":
            cache.put(key, key * (key[0] % 12))
        else:
            cache.drop(key)
        held = [(k, v) for k, v in cache._entries.items()]
        assert cache.bytes == sum(len(k) + len(v) + OVERHEAD_BYTES for k, v in held) <= ROOM


def test_the_bound_holds_for_the_memory_that_python_takes() -> None:
    """What an entry costs beside its bytes is counted, not guessed too low."""
    limit = 4 * 2**20
    tracemalloc.start()
    try:
        cache = MemoryCache(limit)
        before = tracemalloc.get_traced_memory()[0]
        for n in range(40_000):
            cache.put(n.to_bytes(16, "little"), bytes(64))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.evicted > 0
    assert 0.5 * limit < taken <= limit
