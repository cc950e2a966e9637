"""The command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from service import cli, errors
from service.settings import Settings
from tests.service.test_errors import every_kind

DOCS = Path(__file__).parents[2] / "docs" / "http.md"


def test_help_lists_every_command_and_imports_none() -> None:
    """Help is quick: no engine, no numpy, no web framework is loaded for it."""
    code = (
        "import sys; from typer.testing import CliRunner; from service import cli\n"
        "print(CliRunner().invoke(cli.app, ['--help']).output)\n"
        "assert not {'numpy', 'fastapi', 'onnxruntime', 'faiss', 'tokenizers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(re.search(rf"\b{name}\b", done.stdout) for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    """Each command in the table loads, and its help goes through."""
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_arguments_reach_the_command_as_they_were_given() -> None:
    """Options and their values pass through unchanged, and so does the exit code."""
    ports = {"TIERWISE_GRPC_PORT": "0", "TIERWISE_ADMIN_PORT": "0"}
    result = CliRunner().invoke(cli.app, ["serve", "--checkpoint", "no-such-folder", "--http-port", "0"], env=ports)
    assert result.exit_code == 2
    assert "no-such-folder is not a checkpoint" in result.output


def test_a_wrong_setting_stops_serve_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the variable, no traceback."""
    monkeypatch.setenv("TIERWISE_LIMITS__ITEMS", "many")
    result = CliRunner().invoke(cli.app, ["serve"])
    assert result.exit_code == 2
    assert "TIERWISE_LIMITS__ITEMS" in result.output
    assert "Traceback" not in result.output


def test_the_version_is_the_packages() -> None:
    """`tierwise --version` says what is installed."""
    assert re.fullmatch(r"tierwise \d+\.\d+\.\d+\n", CliRunner().invoke(cli.app, ["--version"]).output)


def test_the_documentation_lists_every_setting_and_error_code() -> None:
    """docs/http.md is complete and has nothing that is gone."""
    text = DOCS.read_text()
    settings = set()
    for name, field in Settings.model_fields.items():
        group = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and field.annotation
        settings |= {f"{name}.{member}" for member in group.model_fields} if group else {name}
    listed = set(
        re.findall(r"^\| `([a-z_.]+)` \|", text.partition("## Settings")[2].partition("## Offline")[0], re.MULTILINE)
    )
    assert listed == settings
    codes = set(re.findall(r"^\| \d{3} \| `([a-z-]+)` \|", text, re.MULTILINE))
    assert codes == {kind.code for kind in every_kind(errors.ServiceError)}
