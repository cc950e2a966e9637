"""The structured log."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from service.logs import JsonFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    """A record as the logging module makes it."""
    return logging.getLogger("x").makeRecord("x", logging.INFO, __file__, 1, message, (), None, extra=dict(extra))


def test_a_line_is_one_line_of_ascii_json_whatever_it_holds() -> None:
    """No text can begin a line of its own, not with any of the separators that readers split on."""
    hostile = 'a\nb\r\u2028\u2029\x85\x0b\x0c"{}\\'
    line = JsonFormatter().format(record(hostile, fields={"path": hostile}))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    parsed = json.loads(line)
    assert parsed["message"] == parsed["path"] == hostile
    assert parsed["level"] == "info"


def test_an_exception_comes_along_in_the_same_line() -> None:
    """The traceback is a field, not lines that a log reader takes for records."""
    failure = record("failed")
    with pytest.raises(ValueError, match="boom") as caught:
        int("boom")
    failure.exc_info = (caught.type, caught.value, caught.tb)
    line = JsonFormatter().format(failure)
    assert "\n" not in line
    assert "ValueError: invalid" in json.loads(line)["exception"]


@pytest.mark.parametrize(("level", "told"), [("info", False), ("debug", True)])
def test_what_faiss_tries_at_its_start_is_no_news(level: str, told: bool) -> None:  # noqa: FBT001 # a parameter
    """Builds that a wheel has not look like errors; they are told to who asks for everything."""
    code = f"from service.logs import configure_logging; configure_logging({level!r}); import faiss"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("faiss.loader" in done.stdout) is told
    assert not done.stderr
