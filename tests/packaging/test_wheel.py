"""The wheel, installed with nothing but its base dependencies, is the whole product, and a light one."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_MEGABYTES = 400
INSTALLERS = {"pip", "setuptools", "uv"}
HEAVY = {"torch", "transformers", "pyarrow", "vllm", "pandas", "scipy"}
IMPORT_ALL = """
import importlib, pathlib, service
root = pathlib.Path(service.__file__).parent.parent
for package in ("models", "retrieval", "service"):
    for path in sorted((root / package).rglob("[!_]*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if not f"{name}.".startswith(("models.train.", "models.engines.vllm.", "retrieval.distill.")):
            importlib.import_module(name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("tierwise-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and its base dependencies into a fresh environment."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([ROOT / "scripts" / "venv.sh", folder, wheel], check=True)
    return folder


@pytest.fixture(scope="module")
def installed(environment: Path) -> list[Distribution]:
    """List what was installed, without the installers themselves."""
    (site,) = environment.glob("lib/python*/site-packages")
    return [found for found in distributions(path=[str(site)]) if found.metadata["Name"].lower() not in INSTALLERS]


def run(environment: Path, *command: str | Path, folder: Path) -> str:
    """Run a program of the environment in a folder that holds nothing of the project; return what it printed."""
    done = subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd=folder,
        env=os.environ | {"TIERWISE_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    """The three packages, their type markers, the checkpoint and the licences are in; tests and caches are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"service", "retrieval", "models", metadata}
    assert {f"{package}/py.typed" for package in ("service", "retrieval", "models")} <= names
    assert {f"{metadata}/licenses/LICENSE", f"{metadata}/licenses/NOTICE"} <= names
    checkpoint = {name.rpartition("/")[2] for name in names if name.startswith("models/checkpoints/tierwise-mini/")}
    assert {"tierwise.json", "config.json", "tokenizer.json", "model.safetensors"} <= checkpoint
    assert {"service/demo/products.jsonl", "retrieval/demo/cards.jsonl", "retrieval/embedder/table.npy"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_base_install_is_light(installed: list[Distribution]) -> None:
    """Everything a base install brings stays below the limit in megabytes, without torch and the like."""
    names = {found.metadata["Name"].lower() for found in installed}
    assert "tierwise" in names
    assert not names & HEAVY
    sizes = {
        found.metadata["Name"]: sum(
            Path(str(file.locate())).stat().st_size for file in found.files or () if Path(str(file.locate())).is_file()
        )
        for found in installed
    }
    assert sum(sizes.values()) < MAX_MEGABYTES * 10**6, sorted(sizes.items(), key=lambda size: -size[1])[:8]


def test_every_module_imports_on_the_base_install(environment: Path, tmp_path: Path) -> None:
    """Training and vLLM need more than the base: every other module imports, and asks for extras when it uses them."""
    run(environment, "python", "-c", IMPORT_ALL, folder=tmp_path)


def test_command_explains_itself_anywhere(environment: Path, tmp_path: Path) -> None:
    """`tierwise --help` works in an empty folder and names the commands that matter."""
    printed = run(environment, "tierwise", "--help", folder=tmp_path)
    assert all(command in printed for command in ("serve", "score", "demo"))


def test_scores_a_pair_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    """The installed command scores a file with what the wheel brings, beside nothing of the project."""
    pair = {"query": "laptop", "item": {"id": "a", "title": "Notebook 15.6 inch, 16 GB, 512 GB SSD", "brand": "Acme"}}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    run(environment, "tierwise", "score", "--input", "pairs.jsonl", "--output", "scores.jsonl", folder=tmp_path)
    (scored,) = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert scored["id"] == "a"
    assert scored["status"] == "ok"
    assert abs(sum(scored["probabilities"].values()) - 1) < 1e-6
