"""A product as knowledge is derived from it. Reading catalogue files is the caller's business."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Product:
    """One product. Every text is one line; attribute names are lower-case words."""

    id: str
    title: str
    brand: str = ""
    name: str = ""
    category: str = ""
    description: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
