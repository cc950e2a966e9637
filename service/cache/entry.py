"""Entries: what is kept under a key, as bytes. Pure.

An item's entry is its record (`service.rows`), the chunk decision it was scored under, when it expires, what it cost
and a checksum over key and value: 64 bytes for four tiers. Corrupted, truncated or swapped bytes are no entry, never a
wrong score. The chunk's own id and score are kept once for each query.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.cache.key import framed
from service.reply import ContextReference
from service.rows import row_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.rows import Rows

Entries: TypeAlias = NDArray[np.void]

CHECKSUM_BYTES: Final = 12
_REFERENCE: Final = struct.Struct("<ddBII")  # expires, score, which parts there are, lengths of id and source
_HAS_CHUNK, _HAS_ID, _HAS_SCORE = 1, 2, 4


@lru_cache
def entry_type(tiers: int) -> np.dtype[np.void]:
    """Layout of one item's entry for K tiers: 4 K + 48 bytes, little-endian.

    row: the record; decision: see `decision_of`; expires: seconds of the wall clock; cost: seconds that the scoring
    took; checksum: over key and all before it.
    """
    return np.dtype(
        [
            ("row", row_type(tiers)),
            ("decision", "<u8"),
            ("expires", "<f8"),
            ("cost", "<f4"),
            ("checksum", f"V{CHECKSUM_BYTES}"),
        ]
    )


def write_entries(keys: Sequence[bytes], rows: Rows, decision: int, expires: float, cost: float) -> list[bytes]:
    """One value for each of N scored items, in their order."""
    entries = np.zeros(len(rows), entry_type(rows["logprobs"].shape[1]))
    entries["row"] = rows
    entries["decision"] = decision
    entries["expires"] = expires
    entries["cost"] = cost
    size = entries.itemsize
    raw = entries.tobytes()
    bodies = (raw[at : at + size - CHECKSUM_BYTES] for at in range(0, len(raw), size))
    return [body + _checksum(key, body) for key, body in zip(keys, bodies, strict=True)]


def read_entries(values: Sequence[bytes], tiers: int) -> Entries:
    """Values that are known to be entries, as N records."""
    return np.frombuffer(b"".join(values), entry_type(tiers))


def is_entry(key: bytes, value: bytes, tiers: int) -> bool:
    """Whether a value from outside was written by `write_entries` under this key for this many tiers."""
    return len(value) == entry_type(tiers).itemsize and _is_whole(key, value)


def decision_of(reference: ContextReference | None) -> int:
    """Names a chunk decision in 64 bits: 0 for no chunk.

    The similarity is left out: it moves no score, and two machines may differ in its last digit.
    """
    if reference is None:
        return 0
    parts = ("id" if reference.chunk_id is not None else "", reference.chunk_id or "", reference.source)
    return int.from_bytes(blake2b(framed(parts), digest_size=8).digest(), "little") or 1


def write_reference(key: bytes, reference: ContextReference | None, expires: float) -> bytes:
    """The value for the chunk decision of a query."""
    if reference is None:
        body = _REFERENCE.pack(expires, math.nan, 0, 0, 0)
    else:
        chunk_id, source = (reference.chunk_id or "").encode(), reference.source.encode()
        score = math.nan if reference.score is None else reference.score
        has = _HAS_CHUNK | _HAS_ID * (reference.chunk_id is not None) | _HAS_SCORE * (reference.score is not None)
        body = _REFERENCE.pack(expires, score, has, len(chunk_id), len(source)) + chunk_id + source
    return body + _checksum(key, body)


def read_reference(value: bytes) -> tuple[ContextReference | None, float]:
    """The decision in a value that is known to be one, and when it expires."""
    expires, score, has, id_length, source_length = _REFERENCE.unpack_from(value)
    if not has & _HAS_CHUNK:
        return None, expires
    at = _REFERENCE.size + id_length
    chunk_id = value[_REFERENCE.size : at].decode()
    source = value[at : at + source_length].decode()
    return ContextReference(chunk_id if has & _HAS_ID else None, source, score if has & _HAS_SCORE else None), expires


def is_reference(key: bytes, value: bytes) -> bool:
    """Whether a value from outside was written by `write_reference` under this key."""
    return len(value) >= _REFERENCE.size + CHECKSUM_BYTES and _is_whole(key, value)


def _is_whole(key: bytes, value: bytes) -> bool:
    return value[-CHECKSUM_BYTES:] == _checksum(key, value[:-CHECKSUM_BYTES])


def _checksum(key: bytes, body: bytes) -> bytes:
    return blake2b(key + body, digest_size=CHECKSUM_BYTES, person=b"tierwise").digest()
