"""Tests of the mean of checkpoints."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from models.errors import TrainingError
from models.manifest import SHIPPED, PromptTemplate, load_manifest, save_manifest
from models.train.averaging import average
from models.train.data.schema import parse_row
from models.train.release import checkpoint_files
from service.cli import COMMANDS, load_command

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"
ROWS = [
    parse_row("here", {"query": "keyboard", "title": "Logitech K120 wired keyboard", "brand": "Logitech", "tier": "4"}),
    parse_row("there", {"query": "keyboard", "title": "HP 305 black ink cartridge", "brand": "HP", "tier": "1"}),
]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The shipped judge with noise on every weight that is not zero."""
    folder = tmp_path / "other"
    shutil.copytree(SHIPPED, folder)
    noise = torch.Generator().manual_seed(1)
    tensors = load_file(folder / WEIGHTS)
    moved = {n: (t * (1 + 0.01 * torch.randn(t.shape, generator=noise))).to(t.dtype) for n, t in tensors.items()}
    _put(moved, folder)
    return folder


def _put(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    save_manifest(load_manifest(folder, verify=False).model_copy(update={"files": checkpoint_files(folder)}), folder)


def test_the_mean_of_two(other: Path, tmp_path: Path) -> None:
    """Every weight lies between both by its share; the folder loads, has canaries, and tells what it is made of."""
    output = tmp_path / "mean"
    made = average([SHIPPED, other], [0.75, 0.25], output, ROWS, name="mean")
    first, second, mean = (load_file(folder / WEIGHTS) for folder in (SHIPPED, other, output))
    for name, tensor in mean.items():
        assert tensor.dtype == first[name].dtype
        expected = 0.75 * first[name].float() + 0.25 * second[name].float()
        torch.testing.assert_close(tensor.float(), expected, atol=1e-6, rtol=2**-8)
    assert load_manifest(output) == made
    assert [canary.tier for canary in made.canaries] == ["4-Excellent", "1-Irrelevant"]
    assert (made.beta, made.temperature) == (0.5, 1.0)
    parts = [(part["share"], part["base"]) for part in made.training["of"]]
    assert parts == [(0.75, load_manifest(SHIPPED).checkpoint_id), (0.25, load_manifest(other).checkpoint_id)]
    with pytest.raises(TrainingError, match="mean is not empty"):
        average([SHIPPED, other], [0.75, 0.25], output, ROWS, name="mean")


def test_the_whole_of_one(other: Path, tmp_path: Path) -> None:
    """A share of 1 gives that checkpoint's weights, bit for bit."""
    average([other, SHIPPED], [0, 1], tmp_path / "mean", ROWS, name="mean")
    expected = load_file(SHIPPED / WEIGHTS)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(tmp_path / "mean" / WEIGHTS).items())


@pytest.mark.parametrize("shares", [[0.5, 0.4], [1.0], [1.5, -0.5], []])
def test_shares_that_do_not_add_up(shares: list[float], tmp_path: Path) -> None:
    """Shares must be as many as the checkpoints and add up to 1."""
    with pytest.raises(TrainingError, match="add up to 1"):
        average([SHIPPED, SHIPPED], shares, tmp_path / "mean", ROWS, name="mean")


def test_checkpoints_that_do_not_fit(other: Path, tmp_path: Path) -> None:
    """Another template or another shape is refused by the folder's name, before anything is written."""
    path = other / "tierwise.json"
    told = json.loads(path.read_text())
    told["prompt"]["budgets"]["title"] -= 1
    path.write_text(json.dumps({**told, "prompt_hash": _hash(told)}))
    with pytest.raises(TrainingError, match="other has another template"):
        average([SHIPPED, other], [0.5, 0.5], tmp_path / "mean", ROWS, name="mean")
    shutil.copyfile(SHIPPED / "tierwise.json", path)
    _put({name: tensor[:1].clone() for name, tensor in load_file(other / WEIGHTS).items()}, other)
    with pytest.raises(TrainingError, match="other holds weights of another shape"):
        average([SHIPPED, other], [0.5, 0.5], tmp_path / "mean", ROWS, name="mean")
    assert not (tmp_path / "mean").exists()


def test_the_command(other: Path, tmp_path: Path) -> None:
    """Shares are equal unless given, and shares that are no numbers are refused in words."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in ROWS))
    command = load_command(COMMANDS["train"][0])
    given = ["average", str(SHIPPED), str(other), "--pairs", str(pairs), "--output", str(tmp_path / "mean")]
    refused = CliRunner().invoke(command, [*given, "--shares", "half,half"])
    assert refused.exit_code == 2
    assert "could not convert" in refused.output
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 0, done.output
    assert "tierwise calibrate" in done.output
    assert [part["share"] for part in load_manifest(tmp_path / "mean").training["of"]] == [0.5, 0.5]


def _hash(told: dict[str, object]) -> str:
    return PromptTemplate.model_validate(told["prompt"]).hash
