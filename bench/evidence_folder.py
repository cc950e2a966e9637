"""What an evidence folder was made with: figures of other rows or settings never stand in one table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from models.errors import DataError
from service.measuring import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STAMP = "made_with.json"


def hold_to(folder: Path, settings: Mapping[str, Any]) -> None:
    """Stamp a new folder with its settings, and refuse a folder of others.

    Args:
        folder: of all rows and figures, or of one run; made if it is not there.
        settings: all that decides them, as JSON.

    Raises:
        DataError: the folder was made with other settings, or holds something without saying with which.
    """
    stamp = folder / STAMP
    if not stamp.is_file():
        if folder.is_dir() and any(not path.name.startswith(f".{STAMP}") for path in folder.iterdir()):
            raise DataError(f"{folder} holds runs and does not say what they were made with: name a new --output")
        write_atomically(stamp, json.dumps(settings, indent=1) + "\n")
        return
    made = json.loads(stamp.read_text())
    now = json.loads(json.dumps(settings))
    differ = sorted(name for name in made.keys() | now.keys() if made.get(name) != now.get(name))
    if differ:
        raise DataError(f"{folder} was made with other {', '.join(differ)} (see {stamp.name}): name a new --output")
