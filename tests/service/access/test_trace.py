"""Which trace contexts are believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.trace import Trace, trace_of

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{ID}-{PARENT}-01"


def test_a_trace_is_handed_on_as_it_came() -> None:
    """The state comes along when there is one."""
    assert trace_of({"traceparent": GOOD}) == Trace(ID, {"traceparent": GOOD})
    both = {"traceparent": GOOD, "tracestate": "a=1,b=2"}
    assert trace_of(both) == Trace(ID, both)


def test_a_version_to_come_may_say_more() -> None:
    """The parts that are known are read, as the standard asks."""
    later = f"cc-{ID}-{PARENT}-01-more"
    assert trace_of({"traceparent": later}) == Trace(ID, {"traceparent": later})


@pytest.mark.parametrize(
    "parent",
    [
        "",
        GOOD.upper(),
        GOOD + "-more",
        GOOD + "\n",
        f"ff-{ID}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID[1:]}-{PARENT}-01",
        f"cc-{ID}-{PARENT}-01-" + "a" * 512,
    ],
)
def test_what_is_not_well_formed_is_no_trace(parent: str) -> None:
    """It reaches neither the log nor an engine."""
    assert trace_of({"traceparent": parent, "tracestate": "a=1"}) is None


@pytest.mark.parametrize("state", ["", "a=\u00e4", "a=1\n", "a" * 513])
def test_a_bad_state_is_left_out(state: str) -> None:
    """The trace itself goes on without it."""
    assert trace_of({"traceparent": GOOD, "tracestate": state}) == Trace(ID, {"traceparent": GOOD})


@given(st.text(), st.text())
def test_any_text_is_safe(parent: str, state: str) -> None:
    """Whatever comes out can stand in a header."""
    found = trace_of({"traceparent": parent, "tracestate": state})
    assert found is None or all(value.isascii() and value.isprintable() for value in found.headers.values())
