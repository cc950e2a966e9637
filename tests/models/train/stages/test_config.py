"""A run's YAML: paths, unknown names, settings that cannot work together, and the command around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from models.errors import TrainingError
from models.train.stages.base import manifest_of, open_base
from models.train.stages.config import CONFIGS, SftConfig, load_config
from service.cli import COMMANDS, load_command
from service.commands.train import STAGES

LEAST = {"base": "tierwise-mini", "output": "run", "train": "train.jsonl"}
RECIPES = Path(__file__).parents[4] / "docs" / "recipes"


def written(path: Path, **more: object) -> Path:
    path.write_text(yaml.safe_dump({**LEAST, **more}))
    return path


def test_paths(tmp_path: Path) -> None:
    """Paths are relative to the file; a base that is no folder there stays a name."""
    (tmp_path / "mine").mkdir()
    config = load_config("sft", written(tmp_path / "run.yaml", base="mine"))
    assert config.train == tmp_path / "train.jsonl"
    assert config.base == str(tmp_path / "mine")
    assert load_config("sft", written(tmp_path / "run.yaml")).base == "tierwise-mini"


@pytest.mark.parametrize(
    ("stage", "change", "told"),
    [
        ("sft", {"learning_rat": 1}, "learning_rat"),
        ("sft", {"batch_size": 0}, "batch_size"),
        ("sft", {"save_steps": 15}, "multiple of log_steps"),
        ("grpo", {"batch_size": 12}, "multiple of group"),
        ("dyknow", {"batch_size": 8}, r"multiple of 2 \* group"),
        ("grpo", {"vllm": "server"}, "vllm_url"),
        ("grpo", {"vllm": "colocate", "vllm_url": "http://pool:8000"}, "vllm_url"),
        ("agrl", {"vllm": "colocate", "top_k": 0}, "top_k above 0"),
        ("agrl", {"vllm": "server", "vllm_url": "http://pool:8000", "guided": 4}, "guided must be group"),
    ],
)
def test_refused(tmp_path: Path, stage: str, change: dict[str, object], told: str) -> None:
    """A bad setting is refused by its name before anything heavy is loaded."""
    with pytest.raises(TrainingError, match=told):
        load_config(stage, written(tmp_path / "run.yaml", **change))


@pytest.mark.parametrize("text", ["a: [", "- a", "\xff"])
def test_not_yaml(tmp_path: Path, text: str) -> None:
    """A file that is no YAML mapping is refused with its path."""
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingError, match=r"run\.yaml"):
        load_config("sft", path)


def test_every_stage_has_a_command_and_a_recipe() -> None:
    """Stages, commands and recipes are the same list, and every recipe is valid."""
    assert STAGES.keys() == CONFIGS.keys()
    assert {path.stem for path in RECIPES.glob("*.yaml")} == CONFIGS.keys()
    for stage in CONFIGS:
        load_config(stage, RECIPES / f"{stage}.yaml")


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    """A missing file and an unknown base are one sentence and status 2."""
    app = load_command(COMMANDS["train"][0])
    result = CliRunner().invoke(app, ["sft", "--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml" in result.output


def test_base_without_a_manifest(tiny: Path, tmp_path: Path) -> None:
    """A plain language model gets a template of words, and digits as labels."""
    for path in tiny.iterdir():
        if path.name != "tierwise.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    made = manifest_of(tmp_path, "mine")
    assert [tier.label for tier in made.tiers] == ["4", "3", "2", "1"]
    assert len(set(made.label_token_ids)) == 4


def test_no_such_base(tmp_path: Path) -> None:
    """A folder without a model is refused with its name."""
    (tmp_path / "empty").mkdir()
    config = SftConfig.model_validate({**LEAST, "base": str(tmp_path / "empty")})
    with pytest.raises(TrainingError, match="empty"):
        open_base(config)
