"""Loading, unloading and pulling models: what TabbyAPI and Ollama are asked for, and how their answers are read.

Facts: TabbyAPI at e632af4 (August 2026), endpoints/core; ollama/ollama at fb30760 (August 2026), server/routes.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..plain import count_of, table_of
from .exchange import WireRequest, broken
from .lines import Lines
from .openai import Target
from .sse import SSEParser
from .tabby import loaded_model
from .trouble import Failure, failure_of_error, failure_of_status

__all__ = ["LIFECYCLES", "Advance", "Lifecycle", "Reading", "Wish"]

# Answers of these paths are short; an error page need not be read further.
_MAX_BODY_BYTES = 2**20
# TabbyAPI takes prompts of cache_size - chunk_size + 1 tokens, and cache sizes in steps of 256.
_CHUNK, _PAGE = 2048, 256


@dataclass(frozen=True, slots=True)
class Wish:
    """How a model is to be loaded, as far as somebody said: `context` tokens, `cache` as in plan(), `keep_alive` as in Ollama."""

    context: int | None = None
    cache: str | None = None
    keep_alive: str | float | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """How far it is: `fraction` from 0 to 1, None where the server does not say."""

    fraction: float | None
    message: str


class Reading:
    """An answer as it comes: head, feed … feed, end. `done` once it says so itself; `failure` is None after `end` if all is well.

    By itself it reads a short JSON answer, kept in `body`.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.done = False
        self.failure: Failure | None = None
        self._headers: Mapping[str, str] = {}

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response's status and headers (lower-case names)."""
        self.status, self._headers = status, headers

    def feed(self, data: bytes) -> list[Advance]:
        """A piece of the body, and how far things are by it."""
        if self.status == 200 and not self.failure:
            try:
                return self._advances(data)
            except ValueError as error:
                self.failure = broken(str(error))
        self.body += data[: _MAX_BODY_BYTES - len(self.body)]
        return []

    def end(self) -> None:
        """The body has ended."""
        if self.status != 200:
            self.failure = failure_of_status(self.status, self._headers, bytes(self.body))
        elif not self.failure and not self._whole():
            self.failure = broken("the answer ended before it was done")

    def _advances(self, data: bytes) -> list[Advance]:
        self.body += data[: _MAX_BODY_BYTES - len(self.body)]
        return []

    def _whole(self) -> bool:
        return True


class _Progress(Reading):
    """An answer of many JSON objects, the last of which says that it is done."""

    def _whole(self) -> bool:
        return self.done

    def _objects(self, texts: list[bytes]) -> list[Advance]:
        advances = []
        for text in texts:
            try:
                said = json.loads(text) if text.strip() else {}
            except (ValueError, RecursionError):
                said = None
            if not isinstance(said, dict):
                self.failure = broken(f"not a JSON object: {text[:80].decode('utf-8', 'replace')!r}")
                break
            if said.get("error"):
                self.failure = failure_of_error(said["error"], text)
                break
            if (advance := self._advance(said)) is not None:
                advances.append(advance)
        return advances

    def _advance(self, said: Mapping[str, Any]) -> Advance | None:
        raise NotImplementedError


class _TabbyLoading(_Progress):
    """Server-sent events: module by module, a draft or a vision tower first; each ends with "finished", the model last."""

    def __init__(self) -> None:
        super().__init__()
        self._events = SSEParser()

    def _advances(self, data: bytes) -> list[Advance]:
        return self._objects(self._events.feed(data))

    def _advance(self, said: Mapping[str, Any]) -> Advance:
        part, module, modules = said.get("model_type"), count_of(said.get("module")) or 0, count_of(said.get("modules")) or 0
        self.done = part == "model" and said.get("status") == "finished"
        fraction = min(1.0, module / modules) if part == "model" and modules else None
        return Advance(fraction, f"{str(part)[:80]}: module {module} of {modules}")


class _OllamaPulling(_Progress):
    """NDJSON: layers by their digests, several at once; only "success" is success. It repeats itself while nothing comes."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = Lines()
        self._layers: dict[str, tuple[int, int]] = {}
        self._last = Advance(None, "")

    def _advances(self, data: bytes) -> list[Advance]:
        return self._objects(self._lines.feed(data))

    def end(self) -> None:
        if self.status == 200 and not self.failure:
            self._objects(self._lines.end())
        super().end()

    def _advance(self, said: Mapping[str, Any]) -> Advance | None:
        self.done = said.get("status") == "success"
        if isinstance(digest := said.get("digest"), str) and (size := count_of(said.get("total"))):
            self._layers[digest] = (min(count_of(said.get("completed")) or 0, size), size)
        total = sum(size for _, size in self._layers.values())
        fraction = sum(done for done, _ in self._layers.values()) / total if total else None
        # A small layer that is announced late would move it back.
        fraction = 1.0 if self.done else fraction if fraction is None else max(fraction, self._last.fraction or 0.0)
        advance = Advance(fraction, str(said.get("status") or "")[:200])
        before, self._last = self._last, advance
        return None if advance == before else advance


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """How one kind of server is told which models to hold.

    `settings` puts a Wish into the server's words (ConfigError for what it has none for), and `load` sends those.
    `meets` tells whether what a look at the server shows (name -> context, and the answer itself) is as wished.
    `alone`: it holds one model at a time, and a load takes the old one away first; `remember` then reads from the look what is
    needed to load that one again.
    """

    settings: Callable[[Wish], dict[str, Any]]
    load: Callable[[Target, Mapping[str, Any]], WireRequest]
    loading: type[Reading]
    meets: Callable[[Wish, int | None, bytes], bool]
    unload: Callable[[Target], WireRequest]
    alone: bool = False
    remember: Callable[[bytes], tuple[str, dict[str, Any]]] | None = None
    pull: Callable[[Target], WireRequest] | None = None
    pulling: type[Reading] = Reading


# ---- TabbyAPI ------------------------------------------------------------------------------------------------


def _tabby_settings(wish: Wish) -> dict[str, Any]:
    if wish.keep_alive is not None:
        raise ConfigError("keep_alive= is Ollama's: TabbyAPI keeps a model until it is told otherwise")
    settings: dict[str, Any] = {}
    if wish.context is not None:
        cache = -(-(wish.context + _CHUNK) // _PAGE) * _PAGE
        settings |= {"max_seq_len": wish.context, "cache_size": cache, "chunk_size": _CHUNK}
    if wish.cache is not None:
        settings["cache_mode"] = wish.cache.upper()
    return settings


def _tabby_load(target: Target, settings: Mapping[str, Any]) -> WireRequest:
    return _post(target, "/v1/model/load", {"model_name": target.local_name, **settings}, accept="text/event-stream")


def _tabby_meets(wish: Wish, context: int | None, look: bytes) -> bool:
    mode = table_of(json.loads(look).get("parameters")).get("cache_mode")
    return wish.context in (None, context) and (wish.cache is None or _mode(wish.cache) == _mode(str(mode)))


def _tabby_remember(look: bytes) -> tuple[str, dict[str, Any]]:
    """What its card tells; its gpu_split, draft model and tensor parallelism it does not tell."""
    name, card = next(iter(loaded_model(look))), table_of(json.loads(look).get("parameters"))
    settings = {key: card[key] for key in ("max_seq_len", "cache_size", "cache_mode", "chunk_size") if card.get(key)}
    return name, settings | ({"vision": True} if card.get("use_vision") else {})


def _mode(cache: str) -> str:
    """ "Q8", "q8" and "8,8" are one cache."""
    word = cache.lower()
    return f"{word[1:]},{word[1:]}" if word.startswith("q") else word


# ---- Ollama --------------------------------------------------------------------------------------------------


def _ollama_settings(wish: Wish) -> dict[str, Any]:
    if wish.cache is not None:
        raise ConfigError("cache= cannot be chosen here", hint="Ollama takes it from OLLAMA_KV_CACHE_TYPE where it is started")
    keep = {} if wish.keep_alive is None else {"keep_alive": wish.keep_alive}
    return {"options": {"num_ctx": wish.context}, **keep} if wish.context else keep


def _ollama_load(target: Target, settings: Mapping[str, Any]) -> WireRequest:
    """A prompt of nothing loads the model and is answered when that is done."""
    return _post(target, "/api/generate", {"model": target.local_name, "stream": False, **settings})


def _ollama_meets(wish: Wish, context: int | None, look: bytes) -> bool:
    del look
    return wish.context in (None, context) and wish.keep_alive is None


def _ollama_unload(target: Target) -> WireRequest:
    return _ollama_load(target, {"keep_alive": 0})


def _ollama_pull(target: Target) -> WireRequest:
    return _post(target, "/api/pull", {"model": target.local_name, "stream": True})


def _post(target: Target, path: str, body: Any = None, accept: str = "application/json") -> WireRequest:
    headers = {"accept": accept, "accept-encoding": "identity", "content-type": "application/json", **target.headers}
    return WireRequest("POST", urlsplit(target.base).path + path, headers, b"" if body is None else json.dumps(body).encode())


LIFECYCLES = {
    "tabby": Lifecycle(
        settings=_tabby_settings,
        load=_tabby_load,
        loading=_TabbyLoading,
        meets=_tabby_meets,
        unload=lambda target: _post(target, "/v1/model/unload"),
        alone=True,
        remember=_tabby_remember,
    ),
    "ollama": Lifecycle(
        settings=_ollama_settings,
        load=_ollama_load,
        loading=Reading,
        meets=_ollama_meets,
        unload=_ollama_unload,
        pull=_ollama_pull,
        pulling=_OllamaPulling,
    ),
}
