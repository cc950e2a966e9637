"""Hot swap."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from retrieval.live import LiveKnowledge
from retrieval.snapshot import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE = [{"id": "a", "text": "toner cartridge", "source": "s"}]
TWO = [*ONE, {"id": "b", "text": "ink cartridge", "source": "s"}]


def version(live: LiveKnowledge) -> str | None:
    return live.current.version if live.current else None


def test_new_knowledge_is_taken_over(build: Callable[..., Any], tmp_path: Path) -> None:
    """The first refresh loads, the second does nothing, a new version is swapped in."""
    before = time.time()
    first = build(ONE)
    live = LiveKnowledge(tmp_path / "knowledge")
    assert live.current is None
    assert live.checked_at == 0
    taken = [live.refresh(), live.refresh()]
    second = build(TWO)
    versions = [version(live)]
    taken.append(live.refresh())
    versions.append(version(live))
    assert live.checked_at >= before
    assert taken == [True, False, True]
    assert versions == [first.manifest.version, second.manifest.version]


def test_a_bad_snapshot_is_refused_and_the_last_good_one_stays(build: Callable[..., Any], tmp_path: Path) -> None:
    """It is remembered with its reason, retried, and forgotten once a good one is in force."""
    good = build(ONE).manifest.version
    live = LiveKnowledge(tmp_path / "knowledge")
    live.refresh()
    bad = build(TWO)
    chunks = bad.folder / "chunks.jsonl"
    content = chunks.read_bytes()
    chunks.write_bytes(content[:-5])
    assert not live.refresh()
    assert live.current is not None
    assert live.current.version == good
    assert live.refused is not None
    assert live.refused.name == bad.manifest.version
    assert "chunks.jsonl" in live.refused.reason
    chunks.write_bytes(content)
    assert live.refresh()
    assert live.refused is None


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    """A service may start before its knowledge is built."""
    live = LiveKnowledge(tmp_path / "knowledge")
    assert not live.refresh()
    assert live.current is None
    assert live.refused is not None


def test_a_wrong_current_keeps_the_good_one(build: Callable[..., Any], tmp_path: Path) -> None:
    """A version that does not exist, or a path, is refused."""
    build(ONE)
    live = LiveKnowledge(tmp_path / "knowledge")
    live.refresh()
    for content in ("0123456789ab", "../../.."):
        (tmp_path / "knowledge" / CURRENT).write_text(content)
        assert not live.refresh()
        assert live.current is not None
        assert live.refused is not None


def test_the_old_snapshot_lives_until_its_last_reader_is_done(build: Callable[..., Any], tmp_path: Path) -> None:
    """A reader that took it before the swap goes on, also when its files are gone; then it is closed."""
    build(ONE, keep=1)
    live = LiveKnowledge(tmp_path / "knowledge")
    live.refresh()
    reader = live.current
    assert reader is not None
    build(TWO, keep=1)
    live.refresh()
    assert reader.search("toner cartridge") is not None
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert gone() is None


def test_readers_never_see_a_half_swap(build: Callable[..., Any], tmp_path: Path) -> None:
    """Threads that search during swaps always get the answer of one version or the other."""
    versions = {build(rows).manifest.version: len(rows) for rows in (ONE, TWO)}
    live = LiveKnowledge(tmp_path / "knowledge", tau=-1)
    live.refresh()
    stop = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            knowledge = live.current
            hit = knowledge.search("ink cartridge") if knowledge else None
            expected = "b" if knowledge and versions[knowledge.version] == len(TWO) else "a"
            if hit is None or hit.chunk_id != expected:
                wrong.append(hit)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for version in list(versions) * 4:
        (tmp_path / "knowledge" / CURRENT).write_text(version)
        assert live.refresh() or live.current is not None
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong
