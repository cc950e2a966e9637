from collections.abc import Callable
from pathlib import Path

import pytest

from models.engines.vllm.adapters import highest_rank
from models.engines.vllm.arguments import CPU_BLOCK, Options, engine_arguments
from models.errors import CheckpointError
from models.manifest import Manifest

from .conftest import CHECKPOINT, RANK


@pytest.mark.parametrize(
    ("change", "adapters", "said"),
    [
        (lambda m: m.model_copy(update={"max_tokens": 512}), {}, "lower max_tokens"),
        (lambda m: m, {"toys": CHECKPOINT}, "adapter_config.json"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_before_it_starts(
    manifest: Manifest, change: Callable[[Manifest], Manifest], adapters: dict[str, Path], said: str
) -> None:
    """Prompts longer than the context and folders without an adapter are named at once."""
    with pytest.raises(CheckpointError, match=said):
        engine_arguments(CHECKPOINT, change(manifest), Options(adapters=adapters))


def test_a_folder_without_config_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """What is no checkpoint must be named, not guessed."""
    with pytest.raises(CheckpointError, match=r"config\.json"):
        engine_arguments(tmp_path, manifest, Options())


def test_arguments_carry_what_scoring_depends_on(manifest: Manifest) -> None:
    """Prefix sharing, scheduling by deadline, the checkpoint's own arithmetic, none of its sampling defaults."""
    made = engine_arguments(CHECKPOINT, manifest, Options(more={"max_num_seqs": 7}))
    assert made.enable_prefix_caching
    assert made.scheduling_policy == "priority"
    assert made.block_size == CPU_BLOCK
    assert made.dtype == "bfloat16"
    assert made.generation_config == "vllm"
    assert made.max_num_seqs == 7


def test_room_is_made_for_the_largest_adapter(adapter: Path) -> None:
    """The buffers' rank is the least of the sizes on offer that holds every adapter."""
    assert highest_rank({"a": adapter, "b": adapter}) == RANK
