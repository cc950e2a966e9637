"""Takes a new checkpoint or new knowledge into use without a restart: checked beside the old one, swapped, or refused.

A request keeps the judge that it began with from its prompt to its verdict. The old engine is closed when the last such
request must have ended, since none outlives the configured deadline. Where only what is done with the engine's numbers
is new (beta, temperature, what canaries expect), the engine stays, and what the cache keeps of it too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from models.deadline import Deadline
from models.errors import ModelError
from models.manifest import MANIFEST_NAME, load_manifest
from service.canary import failing_canaries, unfit
from service.gateway import open_judge
from service.settings import EngineName, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.manifest import Manifest
    from service.gateway import Gateway
    from service.knowledge import Live
    from service.pipeline import Judge, Pipeline
    from service.settings import Settings

log = logging.getLogger(__name__)

MARGIN_SECONDS: Final = 1.0  # past the latest deadline of a request
# Of a manifest; what an engine's weights take from the canaries is in their version.
AFTER_THE_ENGINE: Final = {"beta", "temperature", "canaries", "training", "figures"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one look.

    Attributes:
        outcome: refused means that the one before stays in use.
        version: in use now.
        detail: why it was refused.
    """

    outcome: Literal["taken", "unchanged", "refused"]
    version: str | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of everything that can be reloaded; knowledge by the setting that names its folder."""

    checkpoint: Outcome
    knowledge: dict[str, Outcome]

    @property
    def ok(self) -> bool:
        """Whether nothing was refused."""
        return all(found.outcome != "refused" for found in (self.checkpoint, *self.knowledge.values()))


async def reload(gateway: Gateway, open_: Callable[[Settings], Judge] = open_judge) -> Reloaded:
    """Look for a new checkpoint in the configured folder and for new snapshots of knowledge; one look at a time."""
    async with gateway.reloading:
        knowledge = {name: await _look(live) for name, live in gateway.knowledge.items()}
        checkpoint = await _checkpoint(gateway, open_)
        gateway.refuse(checkpoint.detail if checkpoint.outcome == "refused" else "")
    for name, found in {"checkpoint": checkpoint, **knowledge}.items():
        if found.outcome != "unchanged":
            log.log(
                logging.ERROR if found.outcome == "refused" else logging.INFO,
                "reload: %s",
                found.outcome,
                extra={"fields": {"what": name, "version": found.version, "detail": found.detail}},
            )
    return Reloaded(checkpoint, knowledge)


async def follow_checkpoint(gateway: Gateway, seconds: float, open_: Callable[[Settings], Judge] = open_judge) -> None:
    """Reload whenever the checkpoint's manifest is another file than before, until cancelled.

    A refused one is not tried again until it changes again. Whatever fails, the next look comes.
    """
    seen = _stamp(gateway.settings)
    while True:
        await asyncio.sleep(seconds)
        try:
            if (stamp := _stamp(gateway.settings)) != seen:
                seen = stamp
                await reload(gateway, open_)
        except Exception:  # what serves goes on
            log.exception("cannot look for a new checkpoint")


def _stamp(settings: Settings) -> tuple[int, ...]:
    """Tells one manifest file from another, links followed; empty while there is none."""
    try:
        found = (settings.checkpoint / MANIFEST_NAME).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


async def _look(live: Live) -> Outcome:
    before = live.current.version if live.current else None
    try:
        await asyncio.to_thread(live.refresh)
    except Exception as error:  # as below
        log.exception("reload: cannot look for new knowledge")
        return Outcome("refused", before, f"the folder cannot be read: {error}")
    version = live.current.version if live.current else None
    if live.refused is not None:
        return Outcome("refused", version, f"{live.refused.name}: {live.refused.reason}")
    return Outcome("unchanged" if version == before else "taken", version)


async def _checkpoint(gateway: Gateway, open_: Callable[[Settings], Judge]) -> Outcome:
    settings, now = gateway.settings, gateway.pipeline.judge
    version = now.manifest.checkpoint_id
    try:
        found = await asyncio.to_thread(load_manifest, settings.checkpoint)
        if found == now.manifest:
            return Outcome("unchanged", version)
        _check_same_tiers(now.manifest, found)
        judge = await _judge(settings, now, found, open_)
        problem = await _problem(settings, now, judge)
    except (ModelError, SettingsError) as error:
        return Outcome("refused", version, str(error))
    except Exception as error:  # a full disk, a library over a damaged file: what serves must outlive anything
        log.exception("reload: the checkpoint cannot be opened")
        return Outcome("refused", version, f"{type(error).__name__}: {error}")
    if problem:
        return Outcome("refused", version, problem)
    before = gateway.take_over(judge)
    _retire_later(gateway, before)
    return Outcome("taken", judge.manifest.checkpoint_id)


async def _judge(settings: Settings, now: Judge, found: Manifest, open_: Callable[[Settings], Judge]) -> Judge:
    """The judge of a manifest that is not the one in force.

    A pool of servers is always made anew, which costs connections: it compares servers with the manifest that it was
    made with, and servers run what they run, whatever lies in the folder.

    Raises:
        ModelError, SettingsError: it cannot be opened beside the present one.
    """
    if settings.engine is not EngineName.VLLM_SERVER and _same_model(now, found):
        return replace(now, manifest=found)
    if settings.engine is EngineName.VLLM:
        raise SettingsError(
            "the engine vllm has memory for one checkpoint in a process: roll the new one out as a second release, or "
            "restart; without that it takes only another beta, temperature or canaries"
        )
    if settings.vllm.adapters:
        raise SettingsError("adapters lie over the one in force: roll it out as a release together with its adapters")
    return await asyncio.to_thread(open_, settings)


async def _problem(settings: Settings, now: Judge, judge: Judge) -> str:
    """What keeps a judge from taking over; empty when nothing does. Else an engine opened for it is closed again."""
    if judge.engine is now.engine:
        limit = Deadline.after(1000.0 * settings.health.probe_timeout_seconds)
        return "; ".join(await failing_canaries(judge, limit))
    fit = False
    try:
        problem = await unfit(judge)
        fit = not problem
    finally:
        if not fit:
            await judge.engine.close()
    return problem


def _same_model(now: Judge, found: Manifest) -> bool:
    """Whether the engine in use computes what the other manifest describes."""
    before, engine = now.manifest, now.engine.name
    same_weights = before.weights_id(engine) == found.weights_id(engine)
    return same_weights and before.model_dump(exclude=AFTER_THE_ENGINE) == found.model_dump(exclude=AFTER_THE_ENGINE)


def _check_same_tiers(now: Manifest, found: Manifest) -> None:
    """Clients know the tiers by name; other ones are another product."""
    names = [[(tier.name, tier.label, tier.band) for tier in one.tiers] for one in (now, found)]
    if names[0] != names[1]:
        raise SettingsError("it has other tiers: roll it out as a release of its own")


_retiring: set[asyncio.Task[None]] = set()


def _retire_later(gateway: Gateway, before: Pipeline) -> None:
    """Close the old one when no request can be in it; the end of the process closes it earlier."""
    settings = gateway.settings

    async def retire() -> None:
        await asyncio.sleep((settings.deadline_ms + settings.engine_grace_ms) / 1000.0 + MARGIN_SECONDS)
        await gateway.retire(before)

    task = asyncio.get_running_loop().create_task(retire(), name="retire")
    _retiring.add(task)
    task.add_done_callback(_retiring.discard)
