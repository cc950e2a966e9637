"""A stage as a user starts it: a command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def launched(
    stage: str,
    settings: Mapping[str, Any],
    folder: Path,
    *,
    launcher: Sequence[str] = (),
    timeout: float = 600,
    **environment: str,
) -> str:
    """Run `tierwise train STAGE` with a YAML of these settings, without a GPU; what it wrote. It must end well.

    Args:
        stage: of `tierwise train`.
        settings: of the run.
        folder: gets the YAML.
        launcher: module and arguments that start the command; none for one process.
        timeout: seconds.
        environment: variables beside the test's own.
    """
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}))
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "service", "train", stage, "--config", str(file)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
