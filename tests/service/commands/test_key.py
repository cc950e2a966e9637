"""Making keys."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from service.access.principal import Scope
from service.access.roster import parse_roster
from service.cli import app
from service.request import Priority


def test_a_new_key_is_known_by_its_line() -> None:
    """What is printed can be stored as it stands, and opens the door with the key; the key itself is not in it."""
    asked = ["key", "new", "--tenant", "shop", "--scopes", "score, explain", "--priority", "critical"]
    result = CliRunner().invoke(app, [*asked, "--expires", "2099-12-31"])
    assert result.exit_code == 0, result.output
    key, line = result.stdout.splitlines()
    record = parse_roster(f"keys:\n{line}").by_key(key)
    assert record is not None
    assert (record.tenant, set(record.scopes)) == ("shop", {Scope.SCORE, Scope.EXPLAIN})
    assert record.priority is Priority.CRITICAL
    assert str(record.expires) == "2099-12-31"
    assert key.rpartition("_")[2] not in line
    assert CliRunner().invoke(app, asked).stdout.splitlines()[0] != key


@pytest.mark.parametrize(
    ("option", "value"),
    [("--tenant", "a shop"), ("--scopes", "everything"), ("--scopes", ""), ("--expires", "2020-01-01")],
)
def test_what_the_service_would_refuse_is_refused_here(option: str, value: str) -> None:
    """Before the key is handed out; the option is named."""
    asked = {"--tenant": "shop", option: value}
    result = CliRunner().invoke(app, ["key", "new", *(part for pair in asked.items() for part in pair)])
    assert result.exit_code == 2
    assert option in re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert "tw_" not in result.output
