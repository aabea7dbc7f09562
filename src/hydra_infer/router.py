"""Router and AsyncRouter: ask for a model, get the best server's answer. Thin faces over transport and routing."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .configs.litellm import read_litellm
from .engines.progress import Progress, quiet, reporting
from .errors import ConfigError, HydraError
from .reply import Embeddings, Reply
from .routing.backend import Backend
from .routing.call import Call, Policy
from .routing.errand import Change
from .routing.events import Event
from .routing.litellm import backends_of
from .routing.status import Status
from .routing.strategies import UserStrategy
from .routing.verdict import GaveUp
from .transport import door
from .transport.batch import abatch, batch
from .transport.detect import detect
from .transport.face import Face, Messages, deliver_to, embeddings_of, wish_of
from .transport.sdks import family_of, http_library, openai_sdk
from .transport.stream import AsyncStream, OpeningStream, Stream
from .transport.switchboard import Switchboard

if TYPE_CHECKING:
    import openai

    from .transport.foresight import PlanOf

__all__ = ["AsyncRouter", "Router"]

# A reserved name: a client that is wired wrongly fails instead of reaching a real host.
_BASE_URL = "http://hydra.invalid/v1"


class Router(Face):
    """One door to several servers.

    `backends`: in the order of preference. `strategy`: "ordered" (list order), "shuffle" (random by weight), "least-busy",
    "fastest" (by measured speed, with exploration), "sticky" (a conversation stays with one server, for its cache), "cheapest",
    "difficulty" (backends tagged "easy" and "hard", by the rule routing.strategies.is_hard), or a function of (model, backends)
    that gives them in the order to ask. `aliases`: other names for models. `fallbacks`: models to turn
    to when a model's own servers have failed or are full.

    Times are seconds. `connect_timeout`: a connection, over all addresses of the host. `first_token_timeout`: until the first
    token; default 60, or 300 for servers that may have to load the model first; the last candidate has `timeout` instead.
    `idle_timeout`: between tokens (with tools offered, `timeout`: servers hold tool calls back and send them whole).
    `timeout`: one attempt until its complete answer; in a stream, until its first token. `queue_timeout`: waiting for a free
    slot before turning to fallbacks. `deadline`: the whole call. `retries`: for a lone candidate only; with another one left
    that is asked at once. `cooldown`: how long a backend that failed is left alone; a lone one never is.

    `on_event` gets attempts, rests, ends and failures (routing.events) in the thread or loop of their call, so it must be quick;
    the same goes to the log "hydra_infer", one line each with its figures in `extra`.

    `plan_of` plans loads where more is known of a model than its Backend says: called with (backend's name, model, context=,
    cache=), it gives a Plan or None.

    Every call takes OpenAI's fields and: `timeout` and `deadline` (as above, for this call), `fallback=False` (no other model
    than the one named), `tags` (only backends that have them all), `extra_body` (fields sent unchecked), `extra_headers`.
    A field that nearly is one of OpenAI's is an error; any other is passed on with a warning in the reply.

    Calls raise AllBackendsFailed, UnknownModel, Refused (the request's own fault), ContextTooLong, StreamBroken (with the text
    so far; nothing is spliced from elsewhere) and DeadlineExceeded. Safe for many threads and, by `aio`, event loops at once.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        strategy: str | UserStrategy = "ordered",
        aliases: Mapping[str, str] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        connect_timeout: float = 2.0,
        first_token_timeout: float | None = None,
        idle_timeout: float = 60.0,
        timeout: float = 600.0,
        queue_timeout: float = 5.0,
        deadline: float | None = None,
        retries: int = 2,
        cooldown: float = 30.0,
        on_event: Callable[[Event], None] | None = None,
        plan_of: PlanOf | None = None,
    ) -> None:
        policy = Policy(
            connect_timeout=connect_timeout,
            first_token_timeout=first_token_timeout,
            idle_timeout=idle_timeout,
            timeout=timeout,
            queue_timeout=queue_timeout,
            deadline=deadline,
            retries=retries,
            cooldown=cooldown,
        )
        self._board = Switchboard(
            backends,
            policy=policy,
            strategy=strategy,
            aliases=aliases,
            fallbacks=fallbacks,
            on_event=on_event,
            plan_of=plan_of,
        )

    @classmethod
    def from_urls(cls, urls: Sequence[str], *, api_keys: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """A router over addresses ("gpu-box:5000"), in order; what kind of server each is, is found out by asking.

        `api_keys` maps addresses to keys. A server that is down is kept: by its port if that tells, else as OpenAI-compatible.
        """
        return cls(detect(urls, api_keys), **settings)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, urls: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """A router over the servers of a hydra.yaml, as Fleet.from_file(path, urls=urls).router(**settings) makes it."""
        from .fleet.fleet import Fleet  # the one import upwards: a fleet makes routers, and this is the short name for it

        return cls(**{**Fleet.from_file(path, urls=urls).settings(), **settings})

    @classmethod
    def from_litellm(cls, path: str | os.PathLike[str], **settings: Any) -> Self:
        """A router over the servers of a LiteLLM proxy's config.yaml, with its fallbacks, aliases and strategy.

        LiteLLM is not needed. What has no counterpart here is a warning that names its line; `settings` win over the file. The
        environment is read only where the file says os.environ/NAME. Raises ConfigError with file and line, MissingExtra.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        config = read_litellm(text, str(path), os.environ)
        for warning in config.warnings:
            warnings.warn(warning, stacklevel=2)
        file = {**config.settings, "strategy": config.strategy, "aliases": config.aliases, "fallbacks": config.fallbacks}
        return cls(backends_of(config, str(path)), **{**file, **settings})

    @functools.cached_property
    def aio(self) -> AsyncRouter:
        """The same router, pool and connections for event loops: every method with await."""
        return AsyncRouter._on(self._board)  # noqa: SLF001 - two faces of one thing

    def chat(self, model: str, messages: Messages, **fields: Any) -> Reply:
        """One whole answer. `messages` is a string or OpenAI's list.

        It streams upstream and assembles, so that a server which hangs is noticed by its tokens.
        """
        return self._read(self._chat(model, messages, fields, "reply"))

    def stream(self, model: str, messages: Messages, **fields: Any) -> Stream:
        """An answer in pieces: iterate over Chunks; `.text` so far, `.reply` at the end. Leaving early cancels upstream."""
        return self._open(self._chat(model, messages, fields, "stream"))

    def complete(self, model: str, prompt: str, **fields: Any) -> Reply:
        """Continue a text as it stands, without a chat template."""
        return self._read(self._completion(model, prompt, fields))

    def embed(self, model: str, texts: str | Sequence[str], **fields: Any) -> Embeddings:
        """Vectors in the order of the texts. Never turns to another model: vectors of two models do not compare."""
        call, _ = self._embedding(model, texts, fields)
        answer = self._board.ask(call)
        if isinstance(answer, GaveUp):
            raise answer.error()
        return embeddings_of(answer, list(answer))

    def batch(
        self, model: str, prompts: Sequence[Messages], *, progress: Progress = None, parallel: int = 8, **fields: Any
    ) -> list[Reply | HydraError]:
        """Many chats, `parallel` at once; order kept, errors in place. `progress` as in load()."""
        return batch(lambda messages: self.chat(model, messages, **fields), prompts, parallel, progress)

    def load(
        self,
        model: str,
        *,
        backend: str | None = None,
        context: int | str | None = None,
        cache: str | None = None,
        keep_alive: str | float | None = None,
        force: bool = False,
        progress: Progress = None,
        timeout: float | None = None,
        deadline: float | None = None,
    ) -> Change:
        """Have a server load `model` now: the one named by `backend`, else the first that serves it and can (TabbyAPI, Ollama).

        Planned first where its Backend has `gpus` and `model_dir`: what does not fit raises DoesNotFit, unless `force`. TabbyAPI
        holds one model: the old one goes first, and is put back when the new one fails. `context` (tokens or "32k"; else the
        Backend's, else the server's own) and `cache` (TabbyAPI; as in plan()) are what it is loaded with, `keep_alive` (Ollama:
        seconds or "10m", -1 for ever) how long it stays. A model that is loaded so already is left alone.

        One change at a time per server. `progress` as in hydra_infer.load(). `timeout`: the longest silence, default the
        Router's; `deadline`: the whole of it, in seconds. Raises ConfigError, UnknownModel, DoesNotFit, Unreachable, Refused
        (a wrong key), DeadlineExceeded, and LoadError, which says how things stand on the server now.
        """
        wish = wish_of(context, cache, keep_alive)
        with reporting(progress) as report:
            return self._board.change(
                "load", model, deliver_to(report), backend=backend, wish=wish, force=force, timeout=timeout, deadline=deadline
            )

    def unload(
        self, model: str, *, backend: str | None = None, timeout: float | None = None, deadline: float | None = None
    ) -> Change:
        """Have a server give up `model`: the one named by `backend`, else the first that has it loaded.

        TabbyAPI cuts the answers it is giving, which then end as broken; Ollama finishes them first. Raises as load() does.
        """
        return self._board.change("unload", model, deliver_to(quiet), backend=backend, timeout=timeout, deadline=deadline)

    def pull(
        self,
        model: str,
        *,
        backend: str | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        deadline: float | None = None,
    ) -> Change:
        """Have an Ollama server fetch `model` from its library: the one named by `backend`, else the first. See load()."""
        with reporting(progress) as report:
            return self._board.change("pull", model, deliver_to(report), backend=backend, timeout=timeout, deadline=deadline)

    def models(self) -> dict[str, list[str]]:
        """Every model name, with the backends that serve it; servers that list their own are asked."""
        return self._board.models()

    def status(self) -> Status:
        """Ask every server now: reachable or not, resting or not, what it serves."""
        return self._board.status()

    def client(self, family: str = "httpx") -> Any:
        """An HTTP client (httpx.Client, or httpx2.Client for family "httpx2") for any SDK; bodies pass through byte for byte.

        It obeys a per-request timeout (plain: the whole call; stream: the first token). A broken stream ends in an SSE
        error event with the text so far. Closing the client does not close the router.
        """
        return door.client(http_library(family), self.desk())

    def openai(self) -> openai.OpenAI:
        """An openai.OpenAI that asks this router; its own retries are off, since the router's come first."""
        sdk = openai_sdk()
        client: openai.OpenAI = sdk.OpenAI(
            base_url=_BASE_URL, api_key="-", http_client=self.client(family_of(sdk)), max_retries=0, timeout=None
        )
        return client

    def close(self) -> None:
        """Close the connections. Engines behind backends stay as they are: they belong to whoever loaded them."""
        self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self, made: tuple[Call, tuple[str, ...]]) -> Stream:
        began = time.monotonic()
        call, warnings = made
        answer = self._board.ask(call)
        if isinstance(answer, GaveUp):
            raise answer.error()
        return Stream(answer, began, warnings, call.models[0])

    def _read(self, made: tuple[Call, tuple[str, ...]]) -> Reply:
        with self._open(made) as stream:
            for _ in stream:
                pass
        return stream.reply


class AsyncRouter(Face):
    """Router for event loops: the same arguments and the same methods, with await. `router.aio` is one on a Router's own pool.

    One object may serve several event loops; each has its own connections, closed when the loop ends.
    """

    def __init__(self, backends: Sequence[Backend], **settings: Any) -> None:
        self._board = Router(backends, **settings)._board  # noqa: SLF001

    @classmethod
    def _on(cls, board: Switchboard) -> AsyncRouter:
        face = cls.__new__(cls)
        face._board = board  # noqa: SLF001
        return face

    async def chat(self, model: str, messages: Messages, **fields: Any) -> Reply:
        """See Router.chat."""
        return await self._read(self._chat(model, messages, fields, "reply"))

    def stream(self, model: str, messages: Messages, **fields: Any) -> OpeningStream:
        """See Router.stream: `async with router.aio.stream(…) as stream`, `async for chunk in router.aio.stream(…)`."""
        return OpeningStream(functools.partial(self._open, self._chat(model, messages, fields, "stream")))

    async def complete(self, model: str, prompt: str, **fields: Any) -> Reply:
        """See Router.complete."""
        return await self._read(self._completion(model, prompt, fields))

    async def embed(self, model: str, texts: str | Sequence[str], **fields: Any) -> Embeddings:
        """See Router.embed."""
        call, _ = self._embedding(model, texts, fields)
        answer = await self._board.aask(call)
        if isinstance(answer, GaveUp):
            raise answer.error()
        return embeddings_of(answer, [event async for event in answer])

    async def batch(
        self, model: str, prompts: Sequence[Messages], *, progress: Progress = None, parallel: int = 8, **fields: Any
    ) -> list[Reply | HydraError]:
        """See Router.batch. Cancelling it cancels the calls that go on."""
        return await abatch(lambda messages: self.chat(model, messages, **fields), prompts, parallel, progress)

    async def load(
        self,
        model: str,
        *,
        context: int | str | None = None,
        cache: str | None = None,
        keep_alive: str | float | None = None,
        force: bool = False,
        progress: Progress = None,
        **where: Any,
    ) -> Change:
        """See Router.load."""
        wish = wish_of(context, cache, keep_alive)
        with reporting(progress) as report:
            return await self._board.achange("load", model, deliver_to(report), **where, wish=wish, force=force)

    async def unload(self, model: str, **where: Any) -> Change:
        """See Router.unload."""
        return await self._board.achange("unload", model, deliver_to(quiet), **where)

    async def pull(self, model: str, *, progress: Progress = None, **where: Any) -> Change:
        """See Router.pull."""
        with reporting(progress) as report:
            return await self._board.achange("pull", model, deliver_to(report), **where)

    async def models(self) -> dict[str, list[str]]:
        """See Router.models."""
        return await self._board.amodels()

    async def status(self) -> Status:
        """See Router.status."""
        return await self._board.astatus()

    def client(self, family: str = "httpx") -> Any:
        """See Router.client; an AsyncClient."""
        return door.async_client(http_library(family), self.desk())

    def openai(self) -> openai.AsyncOpenAI:
        """See Router.openai; an AsyncOpenAI."""
        sdk = openai_sdk()
        client: openai.AsyncOpenAI = sdk.AsyncOpenAI(
            base_url=_BASE_URL, api_key="-", http_client=self.client(family_of(sdk)), max_retries=0, timeout=None
        )
        return client

    async def close(self) -> None:
        """Close this loop's connections and those of threads."""
        await self._board.aclose()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _open(self, made: tuple[Call, tuple[str, ...]]) -> AsyncStream:
        began = time.monotonic()
        call, warnings = made
        answer = await self._board.aask(call)
        if isinstance(answer, GaveUp):
            raise answer.error()
        return AsyncStream(answer, began, warnings, call.models[0])

    async def _read(self, made: tuple[Call, tuple[str, ...]]) -> Reply:
        async with await self._open(made) as stream:
            async for _ in stream:
                pass
        return stream.reply
