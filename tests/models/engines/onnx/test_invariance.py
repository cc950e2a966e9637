"""Neighbours, order, merging and padding never change an answer, not by one bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.engines.onnx.batch import KeysValues, Row
from tests.models.engines.onnx.checkpoints import VOCABULARY

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray

    from models.engines.onnx.runner import Runner
    from tests.models.engines.onnx.conftest import Tiny

ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60)
requests = st.lists(st.tuples(ids, st.lists(ids, min_size=1, max_size=4)), min_size=1, max_size=4)
with_fixture = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(prefixes: list[KeysValues], cases: list[tuple[list[int], list[list[int]]]]) -> list[Row]:
    """All rows of all cases."""
    return [Row(s, kv) for kv, (_, suffixes) in zip(prefixes, cases, strict=True) for s in suffixes]


def one_by_one(runner: Runner, cases: list[tuple[list[int], list[list[int]]]]) -> NDArray[np.float32]:
    """Every prefix and every row in a pass of its own."""
    prefixes = [runner.prefixes([prefix])[0] for prefix, _ in cases]
    return np.concatenate([runner.score([row]) for row in rows(prefixes, cases)])


@with_fixture
@given(cases=requests)
def test_int8_rows_do_not_see_each_other(mini: Tiny, cases: list[tuple[list[int], list[list[int]]]]) -> None:
    """Prefixes merged in one pass and rows merged in one pass score as each does alone."""
    runner = mini.runner("int8")
    merged = runner.score(rows(runner.prefixes([prefix for prefix, _ in cases]), cases))
    np.testing.assert_array_equal(merged, one_by_one(runner, cases))


@with_fixture
@given(cases=requests)
def test_float32_rows_do_not_see_each_other(mini: Tiny, cases: list[tuple[list[int], list[list[int]]]]) -> None:
    """The same in float32, where the matrix products themselves could differ."""
    runner = mini.runner("float32")
    merged = runner.score(rows(runner.prefixes([prefix for prefix, _ in cases]), cases))
    np.testing.assert_array_equal(merged, one_by_one(runner, cases))


@with_fixture
@given(prefix=ids, suffixes=st.lists(ids, min_size=2, max_size=6), order=st.randoms(use_true_random=False))
def test_order_changes_nothing(mini: Tiny, prefix: list[int], suffixes: list[list[int]], order: Random) -> None:
    """Rows in another order score the same."""
    runner = mini.runner("int8")
    keys_values = runner.prefixes([prefix])[0]
    places = list(range(len(suffixes)))
    order.shuffle(places)
    straight = runner.score([Row(s, keys_values) for s in suffixes])
    shuffled = runner.score([Row(suffixes[i], keys_values) for i in places])
    np.testing.assert_array_equal(shuffled, straight[places])


def test_every_shape_is_blind_to_its_neighbours(tiny: Tiny) -> None:
    """Shared key heads, rotary positions and gates keep rows apart as well."""
    random = np.random.default_rng(11)

    def draw(length: int) -> list[int]:
        return [int(i) for i in random.integers(0, VOCABULARY, length)]

    cases = [(draw(p), [draw(n) for n in lengths]) for p, lengths in ((3, (1, 20)), (31, (50,)), (16, (7, 16, 17)))]
    for precision in ("int8", "float32"):
        runner = tiny.runner(precision)
        merged = runner.score(rows(runner.prefixes([prefix for prefix, _ in cases]), cases))
        np.testing.assert_array_equal(merged, one_by_one(runner, cases))
