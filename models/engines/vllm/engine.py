"""The vLLM engine: token ids in, label log-probabilities out, in one step for all items of a request.

Prompts are `prefix + suffix` as ids, one generated token, the labels' log-probabilities by id: never from a top-k list,
where an unlikely label would be missing. vLLM registers full blocks of a prompt when it schedules it, so the first item
of a request leaves the shared prefix to the others even within the same step; only the last, partial block of the
prefix is computed once per item.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind

from models.engines.label_reads import LabelRead, priority_of, scores_of
from models.engines.port import EngineHealth, ItemStatus, Scores
from models.engines.vllm.adapters import adapter_requests
from models.engines.vllm.arguments import Options, engine_arguments
from models.engines.vllm.outcome import in_time
from models.engines.vllm.process import EngineProcess, Watch
from models.errors import CheckpointError, PromptTooLongError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import RequestOutputCollector

    from models.deadline import Deadline
    from models.engines.vllm.meter import Meter
    from models.manifest import Manifest

_WARM_UP: Final = SamplingParams(max_tokens=1, temperature=0, detokenize=False)


@dataclass(slots=True)
class _Batch:
    """One request's prompts and what is known of them; N of each. EXPIRED until an answer is there."""

    prompts: list[list[int]]
    deadline: Deadline
    scope: str
    reads: list[LabelRead | None] = field(init=False)
    status: list[ItemStatus] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = [None] * len(self.prompts)
        self.status = [ItemStatus.EXPIRED] * len(self.prompts)


class VllmEngine:
    """One judge on an AsyncLLM: the base checkpoint, or an adapter over it (see `adapter`)."""

    def __init__(
        self,
        process: EngineProcess,
        manifest: Manifest,
        *,
        dtype: str,
        limit: int,
        adapters: Mapping[str, LoRARequest],
        adapter: LoRARequest | None = None,
    ) -> None:
        self._process = process
        self._manifest = manifest
        self._dtype = dtype
        self._limit = limit
        self._adapter = adapter
        self._adapters = adapters
        self._labels = list(manifest.label_token_ids)
        self._reading = SamplingParams(
            max_tokens=1,
            temperature=0,
            logprob_token_ids=self._labels,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._numbers = itertools.count()

    @classmethod
    def load(
        cls, folder: Path, manifest: Manifest, options: Options | None = None, *, watch: Watch | None = None
    ) -> Self:
        """An engine on a Hugging Face checkpoint of any architecture that vLLM serves, not yet warm.

        Raises:
            CheckpointError: the folder, an adapter, or the manifest's prompt length does not fit.
        """
        options = options or Options()
        arguments = engine_arguments(folder, manifest, options)
        adapters = adapter_requests(options.adapters)

        async def prepare(llm: AsyncLLM) -> None:
            for adapter in adapters.values():
                await llm.add_lora(adapter)
            await _fill_one_step(llm)

        process = EngineProcess(arguments, prepare, watch or Watch())
        return cls(
            process, manifest, dtype=str(arguments.dtype), limit=int(arguments.max_model_len or 0), adapters=adapters
        )

    def adapter(self, name: str, manifest: Manifest | None = None) -> VllmEngine:
        """The judge that a LoRA adapter makes of this one: same processes, own weights on top, maybe its own labels.

        Closing it closes nothing: the processes belong to the engine that was loaded.

        Raises:
            CheckpointError: no adapter of that name was loaded.
        """
        if name not in self._adapters:
            raise CheckpointError(f"no adapter {name!r} was loaded, there is {sorted(self._adapters)}")
        return VllmEngine(
            self._process,
            manifest or self._manifest,
            dtype=self._dtype,
            limit=self._limit,
            adapters=self._adapters,
            adapter=self._adapters[name],
        )

    @property
    def name(self) -> str:
        """`vllm-bfloat16`, with `+adapter` on one."""
        return f"vllm-{self._dtype}" + (f"+{self._adapter.lora_name}" if self._adapter else "")

    @property
    def meter(self) -> Meter:
        """The counters of vLLM itself."""
        return self._process.meter

    async def warm_up(self) -> None:
        """Start the processes, load adapters, run a full step and a short one.

        Raises:
            CheckpointError: vLLM cannot serve the checkpoint.
        """
        await self._process.start()
        self._process.current()

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """See the port. `scope` salts the prefix cache.

        Raises:
            PromptTooLongError: a prompt is longer than the engine's limit.
            EngineBusyError: vLLM's own queue limit is reached.
            EngineUnavailableError: dead, hung or starting.
        """
        batch = _Batch([[*prefix, *suffix] for suffix in suffixes], deadline, scope)
        self._check_length(batch.prompts)
        llm, lost = self._process.current()
        if batch.prompts and not deadline.expired:
            tokens = sum(map(len, batch.prompts))
            self._process.queued += tokens
            try:
                await in_time(self._read(llm, batch), lost, deadline)
            finally:
                self._process.queued -= tokens
        return scores_of(batch.reads, batch.status, labels=len(self._labels), prefix_tokens=len(prefix))

    async def explain(
        self,
        prefix: Sequence[int],
        suffix: Sequence[int],
        deadline: Deadline,
        *,
        label: int,
        max_tokens: int,
        scope: str = "",
    ) -> AsyncIterator[int]:
        """See the port. Tokens come as the engine's steps do; leaving the loop early aborts the request.

        The end token is not among them, and there are no more than the context has room for.
        """
        prompt = [*prefix, *suffix, label]
        self._check_length([prompt])
        llm, lost = self._process.current()
        end = self._manifest.rationale.end_token_id
        params = SamplingParams(
            max_tokens=min(max_tokens, self._limit - len(prompt)),
            temperature=0,
            stop_token_ids=[end],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        collector = await self._submit(llm, prompt, params, deadline, scope)
        finished = False
        try:
            while not finished:
                step: asyncio.Task[RequestOutput] = asyncio.ensure_future(collector.get())
                if not await in_time(step, lost, deadline):
                    return
                output = step.result()
                finished = output.finished
                for token in output.outputs[0].token_ids:
                    if token != end:
                        yield token
        finally:
            if not finished and not llm.errored:
                await llm.abort(collector.request_id, internal=True)

    def health(self) -> EngineHealth:
        """See the port."""
        process = self._process
        return EngineHealth(process.ready, process.detail, process.queued, process.meter.steps)

    async def close(self) -> None:
        """See the port."""
        if self._adapter is None:
            await self._process.close()

    async def _read(self, llm: AsyncLLM, batch: _Batch) -> None:
        """Fill the batch as answers come. However it ends, vLLM is left with nothing of it to do."""
        open_: dict[int, RequestOutputCollector] = {}
        try:
            for n, prompt in enumerate(batch.prompts):
                open_[n] = await self._submit(llm, prompt, self._reading, batch.deadline, batch.scope)
            for n in range(len(batch.prompts)):
                self._keep(batch, n, await open_[n].get())
                del open_[n]
        finally:
            for n, collector in list(open_.items()):
                with contextlib.suppress(Exception):  # the engine's own failure is on its way up already
                    if output := collector.get_nowait():
                        self._keep(batch, n, output)
                        del open_[n]
            if open_ and not llm.errored:
                await llm.abort([c.request_id for c in open_.values()], internal=True)

    async def _submit(
        self, llm: AsyncLLM, prompt: list[int], params: SamplingParams, deadline: Deadline, scope: str
    ) -> RequestOutputCollector:
        return await llm.add_request(
            f"{id(self)}-{next(self._numbers)}",
            tokens_input(prompt, cache_salt=scope or None),
            params,
            lora_request=self._adapter,
            priority=priority_of(deadline),
        )

    def _keep(self, batch: _Batch, n: int, output: RequestOutput) -> None:
        completion = output.outputs[0]
        found = completion.logprobs[0] if completion.logprobs else {}
        if completion.finish_reason in {"error", "abort"} or any(label not in found for label in self._labels):
            batch.status[n] = ItemStatus.FAILED
        else:
            values = tuple(found[label].logprob for label in self._labels)
            batch.reads[n] = LabelRead(values, output.num_cached_tokens or 0)

    def _check_length(self, prompts: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, prompts), default=0)
        if longest >= self._limit:
            raise PromptTooLongError(f"prompt of {longest} tokens; with the answer's the engine takes {self._limit}")


async def _fill_one_step(llm: AsyncLLM) -> None:
    """Run as many tokens as one step can hold, then leave no trace of them in the prefix cache."""
    longest = llm.model_config.max_model_len - 1
    budget = llm.vllm_config.scheduler_config.max_num_batched_tokens
    lengths = [longest] * (budget // longest) + [max(1, budget % longest)]

    async def run(n: int, length: int) -> None:
        async for _ in llm.generate(tokens_input([0] * length), _WARM_UP, f"warm-up-{n}"):
            pass

    async with asyncio.TaskGroup() as tasks:
        for n, length in enumerate(lengths):
            tasks.create_task(run(n, length))
    await llm.reset_prefix_cache()
