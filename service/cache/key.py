"""Keys: a digest of everything that can move a score, and of nothing else. Pure.

Beta and temperature are left out on purpose: what is kept are raw log-probabilities, so that changing either needs no
rescoring. Every part is length-prefixed: no two different lists of parts are written the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.manifest import Manifest
    from models.prompt import Item

DIGEST_BYTES: Final = 16
FORMAT: Final = "1"  # of keys and entries; another one never meets these


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one request.

    Attributes:
        shared: digest of what its items share; names the chunk decision, and is the hash tag in a Redis Cluster.
        items: N digests, one for each item; equal for equal content, whatever the item's id.
    """

    shared: bytes
    items: tuple[bytes, ...]


class KeyMaker:
    """Makes keys for one checkpoint behind one engine."""

    def __init__(self, manifest: Manifest, engine: str) -> None:
        labels = [part for tier in manifest.tiers for part in (tier.label, str(tier.token_id))]
        # A release may fix how text is written or scored: it starts with an empty cache.
        judge = (FORMAT, version("tierwise"), manifest.weights_id(engine), engine, manifest.prompt_hash, *labels)
        self._judge = blake2b(framed(judge), digest_size=DIGEST_BYTES)

    @property
    def judge(self) -> bytes:
        """Digest of the judge's part: makers of equal ones make equal keys."""
        return self._judge.digest()

    def keys(self, tenant: str, basis: Sequence[str], query: str, items: Iterable[Item]) -> Keys:
        """Keys for items of a tenant's request.

        Args:
            tenant: scope; keys of two tenants never meet.
            basis: what decides the chunk (`service.fetch.Basis.parts`).
            query: as it was sent.
            items: N items with every field that the prompt may hold.
        """
        shared = self._judge.copy()
        shared.update(framed((tenant, str(len(basis)), *basis, query)))
        digests = []
        for item in items:
            digest = shared.copy()
            digest.update(_item(item))
            digests.append(digest.digest())
        return Keys(shared.digest(), tuple(digests))


def _item(item: Item) -> bytes:
    """As `framed`, for the fields of an item; it is what most of the time goes into."""
    t, b, c, a, d = item.title, item.brand, item.category, item.attributes, item.description
    return f"{len(t)}:{len(b)}:{len(c)}:{len(a)}:{len(d)};{t}{b}{c}{a}{d}".encode("utf-8", "surrogatepass")


def framed(parts: Sequence[str]) -> bytes:
    """All parts in one text that can be taken apart in one way only: their lengths, then the parts."""
    lengths = ":".join([str(len(part)) for part in parts])
    return f"{len(parts)};{lengths};{''.join(parts)}".encode("utf-8", "surrogatepass")
