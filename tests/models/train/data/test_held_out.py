"""What is held out is the same everywhere."""

from __future__ import annotations

from models.train.data.held_out import split_names
from models.train.queries import synonyms


def test_names_are_on_one_side() -> None:
    """Every name is on one side for all types that have it, none is lost, and about the share is held out."""
    everyday = synonyms()
    trained, held = split_names(everyday, 0.2)
    names = {name for names in everyday.values() for name in names}
    apart = [{name for found in side.values() for name in found} for side in (trained, held)]
    assert apart[0] | apart[1] == names
    assert not apart[0] & apart[1]
    assert 0.1 < len(apart[1]) / len(names) < 0.3
    assert split_names(everyday, 0) == (everyday, {})
