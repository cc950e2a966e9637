"""What must hold for every committed file: folders keep their distance, modules stay small, nothing names a machine."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 350
FORBIDDEN_IMPORTS = {"models": {"service", "retrieval"}, "retrieval": {"service", "models"}, "service": set[str]()}
MACHINE_PATHS = re.compile(r"(?<![\w.$}-])/(?:work|root|home|Users|opt/wheels|opt/pypi)(?:/|\b)")
TEMPORARY_PATHS = re.compile(r"(?<![\w.$}-])/tmp/")
REGISTRIES = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs\.org|pypi\.nvidia\.com|(?:docker|ghcr|quay|gcr)\.io|"
    r"registry\.k8s\.io)\b"
)


def committed(*patterns: str) -> list[Path]:
    """Return the committed files, as paths from the root, that match any of git's patterns."""
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listed.stdout.split("\0") if name and (ROOT / (path := Path(name))).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every committed text file but this one, which spells out what it looks for."""
    for path in committed():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data and (ROOT / path) != Path(__file__).resolve():
            yield path, data.decode(errors="replace")


def imported_packages(path: Path) -> set[str]:
    """Return the top-level packages that a module imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN_IMPORTS)
def test_imports_point_one_way(package: str) -> None:
    """Service may import retrieval and models; those two import neither service nor each other; none imports tests."""
    forbidden = FORBIDDEN_IMPORTS[package] | {"tests", "bench", "scripts"}
    wrong = {str(path): bad for path in committed(f"{package}/*.py") if (bad := imported_packages(path) & forbidden)}
    assert not wrong


def test_modules_stay_small() -> None:
    """No Python file is longer than one can read in a sitting."""
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in committed("*.py")}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_modules_have_telling_names() -> None:
    """No module or folder is a drawer for whatever had no place."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [str(path) for path in committed("*.py") if drawers & {path.stem, *path.parent.parts}] == []


def test_nothing_names_a_machine() -> None:
    """No committed file holds a path of somebody's machine; deployments alone may name the container's /tmp."""
    wrong = []
    for path, text in texts():
        in_container = path.name == "Dockerfile" or path.is_relative_to("deploy") or path.is_relative_to("tests/deploy")
        patterns = (MACHINE_PATHS,) if in_container else (MACHINE_PATHS, TEMPORARY_PATHS)
        wrong += [f"{path}: {match.group()}" for pattern in patterns for match in pattern.finditer(text)]
    assert wrong == []


def test_nothing_names_a_registry() -> None:
    """Where packages and images come from is the user's configuration, never the project's."""
    assert [f"{path}: {match.group()}" for path, text in texts() for match in REGISTRIES.finditer(text)] == []


def test_constraints_are_plain_pins() -> None:
    """The constraints hold exact versions only: no host, no path, no build of one platform."""
    plain = re.compile(r"[a-z0-9-]+==[\w.!]+(?: ; [\w\s.'\"<>=!()]+)?")
    files = [path for path in committed("*.txt") if path.stem.endswith("constraints")]
    assert len(files) > 1
    for path in files:
        first, *pins = (ROOT / path).read_text().splitlines()
        assert first.startswith("#")
        assert pins
        assert [pin for pin in pins if not plain.fullmatch(pin)] == []


def test_licences_travel_with_the_project() -> None:
    """The licence is whole, and every work that weights or data derive from is credited."""
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for credit in (
        "Product data: Icecat, icecat.biz, Open Content License",
        "querqy/chorus",
        "Shopify product taxonomy",
        "all-MiniLM-L6-v2",
    ):
        assert credit in notice
