"""Router and AsyncRouter: ask for a model, get the best server's answer. Thin faces over transport and routing."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from .engines.progress import Progress, reporting
from .errors import ConfigError, HydraError, MissingExtra
from .reply import Embeddings, Reply, usage_of
from .routing.backend import Backend
from .routing.call import Call, Policy
from .routing.explain import Explanation
from .routing.ledger import Ledger
from .routing.status import Status
from .routing.strategies import UserStrategy
from .routing.verdict import GaveUp
from .transport import door
from .transport.answer import Told
from .transport.desk import Desk
from .transport.detect import detect
from .transport.stream import AsyncStream, OpeningStream, Stream
from .transport.switchboard import Switchboard
from .wire.exchange import Event
from .wire.fields import CHAT, COMPLETION, EMBEDDING, as_messages, check_fields
from .wire.question import Fields, Question

if TYPE_CHECKING:
    import openai

__all__ = ["AsyncRouter", "Router"]

Messages = str | Sequence[Mapping[str, Any]]

# A reserved name: a client that is wired wrongly fails instead of reaching a real host.
_BASE_URL = "http://hydra.invalid/v1"
_OPTIONS = ("timeout", "deadline", "fallback", "tags", "extra_body", "extra_headers")


class _Face:
    """What both faces do before a call is made: tell options from fields, check them, build the question."""

    _board: Switchboard

    def explain(
        self,
        model: str,
        messages: Messages | None = None,
        *,
        tags: Iterable[str] | None = None,
        fallback: bool = True,
    ) -> Explanation:
        """Who would be asked for this, in which order, and why. Asks nobody. Raises UnknownModel."""
        fields = {} if messages is None else {"messages": as_messages(messages)}
        return self._board.explain(model, fields, tags, fallback=fallback)

    def usage(self) -> Ledger:
        """Answers, tokens, seconds and cost so far, by backend and model; print it for a table."""
        return self._board.usage()

    def desk(self) -> Desk:
        """What answers foreign clients, without an HTTP library: for servers of your own."""
        return Desk(self._board)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(row.name for row in self._board.backends)})"

    def _chat(self, model: str, messages: Messages, given: dict[str, Any], mode: str) -> tuple[Call, tuple[str, ...]]:
        if given.pop("stream", None) and mode == "reply":
            raise ConfigError("stream=True: chat() gives a whole reply", hint="use router.stream(…), which gives it in pieces")
        return self._call("/chat/completions", model, {"messages": as_messages(messages)}, given, CHAT, mode)

    def _completion(self, model: str, prompt: str, given: dict[str, Any]) -> tuple[Call, tuple[str, ...]]:
        return self._call("/completions", model, {"prompt": prompt}, given, COMPLETION, "reply")

    def _embedding(self, model: str, texts: str | Sequence[str], given: dict[str, Any]) -> tuple[Call, tuple[str, ...]]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ConfigError("texts is not a string or a list of strings, or is empty")
        return self._call("/embeddings", model, {"input": texts}, given, EMBEDDING, "plain")

    def _call(
        self, path: str, model: str, body: dict[str, Any], given: dict[str, Any], known: frozenset[str], mode: str
    ) -> tuple[Call, tuple[str, ...]]:
        options = {name: given.pop(name) for name in _OPTIONS if name in given}
        warnings = check_fields(given, known | set(_OPTIONS))
        if not isinstance(model, str) or not model:
            raise ConfigError(f"model={model!r} is not a model's name")
        headers = {name.lower(): value for name, value in (options.pop("extra_headers", None) or {}).items()}
        if refused := headers.keys() & {"authorization", "cookie"}:
            raise ConfigError(
                f"extra_headers carries {refused.pop()!r}",
                hint="a key belongs to its Backend, where no other server gets it",
            )
        said = {name: value for name, value in given.items() if value is not None}
        streamed = {"stream": True} if mode != "plain" else {}
        fields = Fields({"model": model, **body, **said, **(options.pop("extra_body", None) or {}), **streamed})
        question = Question(path=path, body=fields, model=model, stream=bool(streamed), headers=headers)
        return self._board.call(question, mode=mode, **options), warnings


class Router(_Face):
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
        self._board = Switchboard(backends, policy=policy, strategy=strategy, aliases=aliases, fallbacks=fallbacks)

    @classmethod
    def from_urls(cls, urls: Sequence[str], *, api_keys: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """A router over addresses ("gpu-box:5000"), in order; what kind of server each is, is found out by asking.

        `api_keys` maps addresses to keys. A server that is down is kept: by its port if that tells, else as OpenAI-compatible.
        """
        return cls(detect(urls, api_keys), **settings)

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
        return _embeddings(answer, list(answer))

    def batch(
        self, model: str, prompts: Sequence[Messages], *, progress: Progress = None, parallel: int = 8, **fields: Any
    ) -> list[Reply | HydraError]:
        """Many chats, `parallel` at once; order kept, errors in place. `progress` as in load()."""

        def one(messages: Messages) -> Reply | HydraError:
            try:
                return self.chat(model, messages, **fields)
            except HydraError as error:
                return error

        replies: list[Reply | HydraError] = []
        with reporting(progress) as report, ThreadPoolExecutor(max(1, parallel), "hydra-batch") as threads:
            for reply in threads.map(one, prompts):
                replies.append(reply)
                report(len(replies) / len(prompts), f"{len(replies)} of {len(prompts)}")
        return replies

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
        return door.client(_library(family), self.desk())

    def openai(self) -> openai.OpenAI:
        """An openai.OpenAI that asks this router; its own retries are off, since the router's come first."""
        sdk = _openai()
        client: openai.OpenAI = sdk.OpenAI(
            base_url=_BASE_URL, api_key="-", http_client=self.client(_family(sdk)), max_retries=0, timeout=None
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


class AsyncRouter(_Face):
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
        return _embeddings(answer, [event async for event in answer])

    async def models(self) -> dict[str, list[str]]:
        """See Router.models."""
        return await self._board.amodels()

    async def status(self) -> Status:
        """See Router.status."""
        return await self._board.astatus()

    def client(self, family: str = "httpx") -> Any:
        """See Router.client; an AsyncClient."""
        return door.async_client(_library(family), self.desk())

    def openai(self) -> openai.AsyncOpenAI:
        """See Router.openai; an AsyncOpenAI."""
        sdk = _openai()
        client: openai.AsyncOpenAI = sdk.AsyncOpenAI(
            base_url=_BASE_URL, api_key="-", http_client=self.client(_family(sdk)), max_retries=0, timeout=None
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


def _embeddings(answer: Told, events: list[Event]) -> Embeddings:
    body = events[0].data
    rows = sorted(body["data"], key=lambda row: int(row.get("index") or 0))
    return Embeddings(
        embeddings=[row["embedding"] for row in rows],
        model=answer.model,
        usage=usage_of(body),
        backend=answer.backend,
        attempts=answer.outcomes,
        raw=body,
    )


def _library(family: str) -> ModuleType:
    """The HTTP library of that name. Raises ConfigError for another one, MissingExtra when it is not installed."""
    if family == "httpx":
        import httpx

        return httpx
    if family != "httpx2":
        raise ConfigError(f"family={family!r} is not known", hint="'httpx' or 'httpx2'")
    try:
        import httpx2
    except ModuleNotFoundError as error:
        raise MissingExtra("httpx2 is not installed", hint="pip install 'hydra-infer[httpx2]'") from error
    return httpx2


def _openai() -> ModuleType:
    try:
        import openai
    except ModuleNotFoundError as error:
        raise MissingExtra("the openai package is not installed", hint="pip install openai") from error
    return openai


def _family(sdk: ModuleType) -> str:
    """openai 3.x is built on httpx2, 2.x on httpx."""
    return "httpx2" if int(sdk.__version__.split(".")[0]) >= 3 else "httpx"
