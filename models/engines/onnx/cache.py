"""Keeps built graphs on disk, one folder per recipe. A folder is complete or absent, and checked before it is used."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from models.engines.onnx.build import FILES, build
from models.manifest import file_hash

if TYPE_CHECKING:
    from models.engines.onnx.build import Recipe

_log = logging.getLogger(__name__)
_SEAL: Final = "graphs.json"  # sha256 per file, written last
VARIABLE: Final = "TIERWISE_CACHE_DIR"


def default_root() -> Path:
    """`TIERWISE_CACHE_DIR`, or the platform's cache folder for this user."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("tierwise"))


def graphs(recipe: Recipe, root: Path | None = None) -> Path:
    """The folder with a recipe's graphs; built first when it is absent or damaged.

    A cache that cannot be written, e.g. one in an image, still serves what it holds; what it lacks is built into a
    temporary folder, for this process alone.

    Raises:
        CheckpointError: the checkpoint is not one that this engine computes.
        OSError: there is no room for a temporary folder either.
    """
    root = (root or default_root()) / "graphs"
    target = root / recipe.key
    if target.is_dir():
        if _intact(target):
            return target
        _log.warning("the cached graphs in %s are damaged and will be built again", target)
        shutil.rmtree(target, ignore_errors=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{recipe.key}-", dir=root))
    except OSError as error:
        root = Path(tempfile.mkdtemp(prefix="tierwise-graphs-"))
        _log.warning("the graph cache cannot be written (%s); building into %s", error, root)
        work, target = root / "work", root / recipe.key
        work.mkdir()
    try:
        build(recipe, work)
        (work / _SEAL).write_text(json.dumps({name: file_hash(work / name) for name in FILES}))
        work.chmod(0o755)
        with suppress(OSError):  # another process was first; its graphs are the same
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _intact(folder: Path) -> bool:
    try:
        seal = json.loads((folder / _SEAL).read_bytes())
        return all(file_hash(folder / name) == seal[name] for name in FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False
