"""The engine port over a pool of vLLM servers: same prefix to the same server, other servers when that one fails."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from models.canaries import canary_prompts
from models.deadline import Deadline
from models.engines.label_reads import scores_of
from models.engines.port import EngineHealth, ItemStatus, Scores
from models.engines.vllm_server.comparison import canary_differences, differences
from models.engines.vllm_server.pool import PoolOptions, open_pool
from models.engines.vllm_server.routing import prefix_key, ranked, with_spill
from models.engines.vllm_server.server import LateError, Server
from models.engines.vllm_server.wire import BadReplyError, decode_request, streamed_ids
from models.errors import EngineBusyError, EngineError, EngineUnavailableError, PromptTooLongError
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from models.engines.label_reads import LabelRead
    from models.engines.vllm_server.pool import Pool
    from models.manifest import Manifest


class VllmServerEngine:
    """One judge served by any number of vLLM servers: the base checkpoint, or an adapter over it (see `adapter`)."""

    def __init__(
        self,
        urls: Sequence[str],
        manifest: Manifest,
        *,
        folder: Path,
        options: PoolOptions | None = None,
        base: VllmServerEngine | None = None,
    ) -> None:
        """Engine over servers at `urls`.

        Args:
            urls: at least one, without a path.
            manifest: what they must be.
            folder: of the checkpoint: its tokenizer; its weights are not needed here.
            options: choices of the operator.
            base: the judge that this one is an adapter over, on the same servers.
        """
        self._options = options or PoolOptions()
        self._manifest = manifest
        self._base = base
        self._folder = folder
        self._tokenizer = FieldTokenizer(folder)
        self._canaries = canary_prompts(manifest, PromptWriter(manifest, self._tokenizer))
        self._probe = manifest.model_copy(update={"canaries": manifest.canaries[:1]})
        self._pool: Pool = base._pool if base else open_pool(urls, self._options)  # noqa: SLF001 # of the same class
        self._servers = {url: Server(url, self._pool.client, traffic) for url, traffic in self._pool.traffic.items()}
        if not self._servers:
            raise ValueError("a pool needs at least one server")
        self._watches: list[asyncio.Task[None]] = []
        self._compared = {url: asyncio.Event() for url in self._servers}
        self._wrong = 0

    def adapter(self, name: str, manifest: Manifest) -> VllmServerEngine:
        """The judge that the servers serve under `model` = name (`vllm serve --lora-modules name=folder`).

        A server takes its requests only while it answers for this judge and for the base. Close it before the base.
        """
        options = replace(self._options, model=name)
        return VllmServerEngine(list(self._servers), manifest, folder=self._folder, options=options, base=self)

    @property
    def name(self) -> str:
        """`vllm-server`, with `+adapter` on one."""
        return "vllm-server" + (f"+{self._options.model}" if self._base else "")

    async def warm_up(self) -> None:
        """Compare each server with the manifest; from then on watch them.

        Raises:
            EngineUnavailableError: not one of them can be used; the message says what differs, server by server.
        """
        if not self._watches:
            self._watches = [
                asyncio.create_task(self._watch(server), name=f"watch {server.url}")
                for server in self._servers.values()
            ]
        await asyncio.gather(*(event.wait() for event in self._compared.values()))
        if self._base is not None:
            await self._base.warm_up()
        self._usable()

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """See the port. All items go to one server, in one call.

        Raises:
            PromptTooLongError: a prompt is longer than the servers' context.
            EngineBusyError: every server that was asked is busy.
            EngineUnavailableError: no server is ready, or those asked failed.
            EngineError: a server refuses the request.
        """
        servers = self._route(prefix, scope)
        prompts = [[*prefix, *suffix] for suffix in suffixes]
        _check_length(prompts, servers)
        reads: Sequence[LabelRead | None] | None = None
        if prompts and not deadline.expired:
            reads = await self._first_answer(servers, prompts, deadline, scope)
        missing = [ItemStatus.EXPIRED] * len(prompts)
        labels = len(self._manifest.tiers)
        return scores_of(reads or [None] * len(prompts), missing, labels=labels, prefix_tokens=len(prefix))

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
        """See the port. Another server is tried only while nothing was decoded.

        The end token is not among the ids, and there are no more than the context has room for.
        """
        servers = self._route(prefix, scope)
        prompt = [*prefix, *suffix, label]
        room = _check_length([prompt], servers)
        self._pool.budget.call()
        began = False
        for n, server in enumerate(servers):
            try:
                async with aclosing(self._decode(server, prompt, deadline, min(max_tokens, room), scope)) as tokens:
                    async for token in tokens:
                        began = True
                        yield token
            except LateError:
                return
            except (EngineUnavailableError, EngineBusyError):
                if began or n + 1 == len(servers) or not self._pool.budget.take():
                    raise
            else:
                return

    def health(self) -> EngineHealth:
        """See the port. Alive while one server is ready; the detail names those that are not."""
        servers = self._servers.values()
        ready = sum(map(self._ready, self._servers))
        problems = "".join(f"; {url}: {self._detail(url)}" for url in self._servers if not self._ready(url))
        return EngineHealth(
            alive=ready > 0,
            detail=f"{ready} of {len(servers)} servers ready{problems}",
            queued_tokens=sum(server.traffic.load for server in servers),
            steps=sum(server.traffic.calls for server in servers),
            wrong=self._wrong,
        )

    async def close(self) -> None:
        """See the port."""
        watches, self._watches = self._watches, []
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for server in self._servers.values():
            server.expel("closed")
        if self._base is None:
            await self._pool.client.aclose()

    def _ready(self, url: str) -> bool:
        """A server that is wrong about the base is not asked about what lies over it."""
        return self._servers[url].ready and (self._base is None or self._base._ready(url))  # noqa: SLF001 # of the same class

    def _detail(self, url: str) -> str:
        server = self._servers[url]
        return f"its base: {self._base._detail(url)}" if self._base and server.ready else server.detail  # noqa: SLF001 # of the same class

    def _usable(self) -> list[str]:
        ready = [url for url in self._servers if self._ready(url)]
        if not ready:
            raise EngineUnavailableError(self.health().detail)
        return ready

    def _route(self, prefix: Sequence[int], scope: str) -> list[Server]:
        """Ready servers in the order in which to try them."""
        order = ranked(prefix_key(prefix, scope), self._usable())
        load = {url: server.traffic.load for url, server in self._servers.items()}
        return [self._servers[url] for url in with_spill(order, load, self._options.spill_tokens)]

    async def _first_answer(
        self, servers: Sequence[Server], prompts: Sequence[Sequence[int]], deadline: Deadline, scope: str
    ) -> list[LabelRead] | None:
        """Ask the first server; another one when it fails or a hedge is due. None when the deadline came first."""
        self._pool.budget.call()
        others = iter(servers)
        hedge = self._options.hedge_after
        pending = {self._ask(next(others), prompts, deadline, scope)}
        error: BaseException | None = None
        try:
            while pending:
                remaining = min(deadline.remaining(), hedge if hedge is not None else float("inf"))
                timeout = None if remaining == float("inf") else remaining
                done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, EngineUnavailableError | EngineBusyError):
                        raise error
                if deadline.expired:
                    return None
                hedging = not done and hedge is not None
                if hedging:
                    hedge = None  # once
                if (hedging or not pending) and (another := next(others, None)) and self._pool.budget.take():
                    pending.add(self._ask(another, prompts, deadline, scope))
        finally:
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        raise error or EngineUnavailableError("no server answered")

    def _ask(
        self, server: Server, prompts: Sequence[Sequence[int]], deadline: Deadline, scope: str
    ) -> asyncio.Task[list[LabelRead]]:
        async def ask() -> list[LabelRead]:
            try:
                return await server.read_labels(prompts, self._manifest.label_token_ids, deadline=deadline, scope=scope)
            except LateError:
                raise
            except EngineUnavailableError as error:
                server.strike(str(error))
                raise

        tokens = sum(map(len, prompts))
        server.traffic.load += tokens  # from now on: requests that are routed before the task begins must see it
        task = asyncio.create_task(ask())
        task.add_done_callback(lambda _: server.traffic.unload(tokens))
        return task

    async def _decode(
        self, server: Server, prompt: Sequence[int], deadline: Deadline, max_tokens: int, scope: str
    ) -> AsyncGenerator[int]:
        end = self._manifest.rationale.end_token_id
        body = decode_request(
            server.model,
            prompt,
            max_tokens=max_tokens,
            end=end,
            priority=server.priority(deadline),
            scope=scope,
        )
        try:
            async with aclosing(server.lines(body, deadline)) as lines:
                async for line in lines:
                    ids = streamed_ids(line)
                    if ids is None:
                        return
                    for token in ids:
                        if token != end:
                            yield token
        except BadReplyError as error:
            raise EngineUnavailableError(f"{server.url} {error}") from error
        raise EngineUnavailableError(f"{server.url} broke off in the middle of a rationale")

    async def _watch(self, server: Server) -> None:
        while True:
            try:
                await self._look(server)
            except EngineBusyError:
                pass  # busy is not dead
            except EngineError as error:
                server.strike(str(error))
            self._compared[server.url].set()
            await asyncio.sleep(self._options.probe_every)

    async def _look(self, server: Server) -> None:
        """A server that is out is compared with the manifest; one that is in must answer a canary, however busy it is.

        Its traffic shows that it is alive. That its numbers are right, only a pair whose answer is known can show.
        """
        options = self._options
        if not server.ready:
            problems = await differences(
                server,
                self._manifest,
                self._tokenizer,
                self._canaries,
                model=options.model,
                deadline=Deadline.after(1000 * options.compare_timeout),
            )
            if problems:
                server.expel("; ".join(problems))
            else:
                server.admit()
            return
        began = time.monotonic()
        try:
            deadline = Deadline.after(1000 * options.probe_timeout)
            problems = await canary_differences(server, self._probe, self._canaries[:1], deadline)
        except LateError:
            if server.answered_at < began - options.probe_every:  # nor anyone's call for a while: it hangs
                raise
        else:
            if problems:
                self._wrong += 1
                server.expel("; ".join(problems))


def _check_length(prompts: Sequence[Sequence[int]], servers: Sequence[Server]) -> int:
    """Tokens of room behind the longest prompt, at least one."""
    longest = max(map(len, prompts), default=0)
    limit = min(server.limit for server in servers)
    if longest >= limit:
        raise PromptTooLongError(f"prompt of {longest} tokens; with the answer's the servers take {limit}")
    return limit - longest
