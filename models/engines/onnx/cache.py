"""Keeps built graphs on disk, one folder per recipe. A folder is complete or absent, and checked before it is used."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from models.engines.onnx.build import FILES, PROBE, build, build_probe, probe_key
from models.manifest import file_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.engines.onnx.build import Recipe

_log = logging.getLogger(__name__)
_SEAL: Final = "graphs.json"  # sha256 per file, written last
_KEPT_SECONDS: Final = 90 * 86400
_BUILD_SECONDS: Final = 86400  # no build takes longer: what is older was killed
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
    return _kept(recipe.key, FILES, lambda work: build(recipe, work), root)


def probe(root: Path | None = None) -> Path:
    """The file of the graph that shows how this processor sums int8 products; kept as graphs are.

    Raises:
        OSError: there is no room for it.
    """
    return _kept(probe_key(), (PROBE,), build_probe, root) / PROBE


def _kept(key: str, files: Sequence[str], make: Callable[[Path], None], root: Path | None) -> Path:
    root = (root or default_root()) / "graphs"
    target = root / key
    if target.is_dir():
        if _intact(target, files):
            with suppress(OSError):
                os.utime(target)  # was used: see _forget_unused
            return target
        _log.warning("the cached graphs in %s are damaged and will be built again", target)
        shutil.rmtree(target, ignore_errors=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
    except OSError as error:
        root = Path(tempfile.mkdtemp(prefix="tierwise-graphs-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        _log.warning("the graph cache cannot be written (%s); building into %s", error, root)
        work, target = root / "work", root / key
        work.mkdir()
    try:
        make(work)
        (work / _SEAL).write_text(json.dumps({name: file_hash(work / name) for name in files}))
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not _intact(target, files):  # else another process was first, and its graphs are the same
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _forget_unused(root)
    return target


def _forget_unused(root: Path) -> None:
    """Remove graphs that no start has asked for in a long time, and what killed builds have left."""
    for folder in root.iterdir():
        kept = _BUILD_SECONDS if folder.name.startswith(".") else _KEPT_SECONDS
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - kept:
                shutil.rmtree(folder)


def _intact(folder: Path, files: Sequence[str]) -> bool:
    try:
        seal = json.loads((folder / _SEAL).read_bytes())
        return all(file_hash(folder / name) == seal[name] for name in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False
