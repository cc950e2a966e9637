"""What a process holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Footprint:
    """Resident memory in bytes, and open file descriptors."""

    resident: int
    descriptors: int


def footprint_of(pid: int) -> Footprint:
    """Read it from the kernel."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Footprint(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208 # quick
