"""Labelled pairs that a model disagrees with, surest first: candidates for a second look by a person.

The idea of confident learning (arXiv 1911.00068), without its class noise matrix: a pair is suspect when the model puts
much probability on another tier and next to none on the given one. Scores should come from a model that has not been
trained on these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is in doubt.

    Attributes:
        row: its number.
        given: tier column of the label.
        proposed: the model's.
        confidence: the model's probability of its tier.
        doubt: that probability minus the label's; suspects are sorted by it.
    """

    row: int
    given: int
    proposed: int
    confidence: float
    doubt: float


def suspects(probabilities: NDArray[np.float32], given: Sequence[int], *, confidence: float) -> list[Suspect]:
    """Rows where the model is surer than `confidence` of another tier.

    Args:
        probabilities: float32 [N, K], best tier first.
        given: N tier columns.
        confidence: least probability of the model's tier.
    """
    found = []
    for row, (p, label) in enumerate(zip(probabilities, given, strict=True)):
        proposed = int(p.argmax())
        if proposed != label and p[proposed] >= confidence:
            found.append(Suspect(row, label, proposed, float(p[proposed]), float(p[proposed] - p[label])))
    return sorted(found, key=lambda s: -s.doubt)
