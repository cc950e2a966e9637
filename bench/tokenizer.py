"""Prompts of 32 items by our WordPiece reader and by the tokenizer library alone, in turns in one process.

    .venv/bin/python bench/tokenizer.py [--rounds 60] [--checkpoint FOLDER]

Both write the same prompts of the thousand committed pairs, and they are compared before the clock starts. The ratio is
the median over pairs of neighbouring turns, with the range of its middle 95 % from resampling them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.engine_requests import grouped_pairs
from models.manifest import SHIPPED, load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from models.prompt import Item

ITEMS = 32
RESAMPLES = 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--rounds", type=int, default=60)
    chosen = parser.parse_args()
    manifest = load_manifest(chosen.checkpoint)
    ours, library = (FieldTokenizer(chosen.checkpoint) for _ in range(2))
    library._fast = None  # noqa: SLF001 - as it is for a tokenizer of another kind
    writers = [PromptWriter(manifest, tokenizer) for tokenizer in (ours, library)]
    requests = grouped_pairs(ITEMS)
    assert all(writers[0].write(*request) == writers[1].write(*request) for request in requests)
    taken = np.array([[turn(writer, requests[n % len(requests)]) for writer in writers] for n in range(chosen.rounds)])
    ratios = taken[:, 0] / taken[:, 1]
    draws = np.median(np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    own, theirs = np.median(taken, axis=0) * 1000
    print(f"prompts of {ITEMS} items: ours {own:.2f} ms, the library's {theirs:.2f} ms")
    print(f"ratio {np.median(ratios):.2f} [{low:.2f}, {high:.2f}] over {chosen.rounds} turns")


def turn(writer: PromptWriter, request: tuple[str, str | None, list[Item]]) -> float:
    """Seconds of one request."""
    started = time.perf_counter()
    prompt = writer.write(*request)
    ended = time.perf_counter()
    assert len(prompt.suffixes) == ITEMS
    return ended - started


if __name__ == "__main__":
    main()
