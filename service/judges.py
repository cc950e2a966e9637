"""The judges of one process by the names that requests call them: the checkpoint itself, and adapters over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.errors import FieldError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Judges:
    """One pipeline for each judge: they share an engine, its queue, knowledge and the cache's memory, but no key in it.

    Attributes:
        base: of the checkpoint; answers requests that name no judge.
        adapters: by name, none of which is the checkpoint's.
    """

    base: Pipeline
    adapters: Mapping[str, Pipeline] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Pipeline]:
        """All of them, the checkpoint's first."""
        yield self.base
        yield from self.adapters.values()

    def named(self, model: str | None) -> Pipeline:
        """The one that a request asks for, by its name or by the id of its checkpoint.

        Raises:
            NotFoundError: there is none; another judge's scores would be wrong scores.
        """
        if model is None:
            return self.base
        for pipeline in self:
            manifest = pipeline.judge.manifest
            if model in (manifest.name, manifest.checkpoint_id):
                return pipeline
        names = " or ".join(repr(pipeline.judge.manifest.name) for pipeline in self)
        detail = f"model {model[:80]!r} is not served here; send {names}, or leave it out"
        raise NotFoundError(detail, errors=[FieldError("#/model", detail)])
