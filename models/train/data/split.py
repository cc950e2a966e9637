"""`tierwise data split`: sides of training data that share no query cluster."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.train.data.schema import Row


def split(rows: Sequence[Row], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Assign whole clusters to sides.

    Clusters are taken in random order, each to the side that lacks the largest part of its share, so that sides come as
    close to their shares as whole clusters allow.

    Args:
        rows: the data.
        shares: side -> share of the rows; they add up to 1.
        seed: equal seeds and rows give equal sides.

    Returns:
        side -> row numbers in file order.

    Raises:
        DataError: shares that do not add up, or a side that stays empty.
    """
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0:  # noqa: PLR2004 - rounding
        raise DataError(f"the shares {dict(shares)} must be above 0 and add up to 1")
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row.group, []).append(number)
    clusters = sorted(members)
    random.Random(seed).shuffle(clusters)
    sides: dict[str, list[int]] = {name: [] for name in shares}
    for cluster in clusters:
        side = max(shares, key=lambda name: shares[name] * len(rows) - len(sides[name]))
        sides[side] += members[cluster]
    empty = [name for name, numbers in sides.items() if not numbers]
    if empty:
        raise DataError(f"{len(members)} clusters are too few: nothing is left for {', '.join(empty)}")
    return {name: sorted(numbers) for name, numbers in sides.items()}
