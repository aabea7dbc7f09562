"""A stand-in for Ollama's own API with its quirks (ollama/ollama at fb30760, August 2026; its documentation and issues)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hydra_infer.engines.speech import vector

from .mind import Mind, pause, words
from .ollama_answers import Answering, checked, duration, prompt_tokens, runner_options
from .standin import Asked, Head, Refused, Slots, StandIn, Step, plain

__all__ = ["OllamaServer", "Tag"]

DIGEST = "0123456789ab" * 5 + "0123"
_NDJSON = {"content-type": "application/x-ndjson"}
_KEEP_ALIVE = 300.0


@dataclass(frozen=True, slots=True)
class Tag:
    """One model in its store: bytes, trained context, what it can do, how long it takes to load and whether that fails."""

    size: int = 4_920_753_328
    context: int = 131_072
    capabilities: tuple[str, ...] = ("completion", "tools")
    seconds: float = 0.0
    fails: str | None = None
    remote_host: str | None = None


@dataclass(eq=False, slots=True)
class _Runner:
    """A model in memory; other `options` than these load it again."""

    options: dict[str, Any]
    slots: Slots
    busy: int = 0
    keep_alive: float = _KEEP_ALIVE
    expires_at: float = float("inf")


class OllamaServer(StandIn):
    """`tags` are the models it has, `library` those it can pull.

    `parallel` is OLLAMA_NUM_PARALLEL: requests for a loaded model wait for it without end. `context` is what a model gets that
    is asked for none. `loads` notes every load that was begun, as (name, options). Not stood in for: its /v1 paths, create,
    push, blobs.
    """

    def __init__(
        self,
        tags: dict[str, Tag] | list[str],
        *,
        library: dict[str, Tag] | None = None,
        mind: Mind = words,
        parallel: int = 1,
        context: int = 4096,
        max_queue: int = 512,
        gpu: bool = True,
        port: int = 0,
    ) -> None:
        rows = tags if isinstance(tags, dict) else {name: Tag() for name in tags}
        self.tags = {_full(name): tag for name, tag in rows.items()}
        self.library = {_full(name): tag for name, tag in (library or {}).items()}
        self.loads: list[tuple[str, dict[str, Any]]] = []
        self.mind, self.context, self.gpu = mind, context, gpu
        self._parallel, self._max_queue = parallel, max_queue
        self._runners: dict[str, _Runner] = {}
        self._loading = Slots(1)
        self._pending = 0  # requests that wait for a load
        self._lock = threading.Lock()
        super().__init__(port)

    @property
    def loaded(self) -> list[str]:
        """The models in memory."""
        return [_short(name) for name in self._live()]

    def answer(self, asked: Asked) -> Iterator[Step]:
        routes = self._routes()
        if asked.path not in {path for _, path in routes}:
            raise Refused(404, b"404 page not found")
        if (asked.method, asked.path) not in routes:
            raise Refused(405, b"405 method not allowed")
        return routes[asked.method, asked.path](asked)

    def _routes(self) -> dict[tuple[str, str], Callable[[Asked], Iterator[Step]]]:
        return {
            ("GET", "/"): lambda _: plain(b"Ollama is running"),
            ("HEAD", "/"): lambda _: plain(b"Ollama is running"),
            ("GET", "/api/version"): lambda _: plain({"version": "0.32.3"}),
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/pull"): self._pull,
            ("POST", "/api/copy"): self._copy,
            ("DELETE", "/api/delete"): self._delete,
            ("POST", "/api/chat"): self._generate,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/embed"): self._embed,
            ("POST", "/api/embeddings"): self._embed_one,
        }

    # ---- what it has -----------------------------------------------------------------------------------------

    def _tags(self, _: Asked) -> Iterator[Step]:
        return _json({"models": [self._row(name) for name in self.tags]})

    def _ps(self, _: Asked) -> Iterator[Step]:
        """Waits while a model is being loaded, as the real one does."""
        yield from self._loading.take()
        self._loading.give()
        rows = []
        for name, runner in self._live().items():
            left = min(runner.expires_at - time.monotonic(), 9e9) if runner.expires_at < 1e12 else 9e9
            row = {key: value for key, value in self._row(name).items() if key not in ("modified_at", "capabilities")}
            size = {"size_vram": row["size"] if self.gpu else 0, "context_length": runner.options["num_ctx"]}
            rows.append({**row, **size, "expires_at": _when(left)})
        yield from _json({"models": rows})

    def _row(self, name: str) -> dict[str, Any]:
        tag = self.tags[name]
        details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
        details |= {"parameter_size": "8.0B", "quantization_level": "Q4_K_M"}
        row = {"name": name, "model": name, "modified_at": _when(), "size": tag.size, "digest": DIGEST, "details": details}
        remote = {"remote_model": name, "remote_host": tag.remote_host} if tag.remote_host else {}
        return {**row, "capabilities": list(tag.capabilities), **remote}

    def _show(self, asked: Asked) -> Iterator[Step]:
        body = _body(asked)
        name, tag = self._tag(body, "model '{}' not found")
        info = {"general.architecture": "llama", "llama.context_length": tag.context, "llama.block_count": 32}
        told = {"modelfile": f"FROM {name}", "parameters": "", "template": "{{ .Prompt }}", "model_info": info}
        return _json(
            {**told, "details": self._row(name)["details"], "capabilities": list(tag.capabilities), "modified_at": _when()}
        )

    def _pull(self, asked: Asked) -> Iterator[Step]:
        """Errors come after 200; only "success" means success."""
        body = _body(asked)
        name = _full(body.get("model") or body.get("name") or "")
        tag = self.library.get(name) or self.tags.get(name)
        lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if tag is None:
            lines.append({"error": "pull model manifest: file does not exist"})
        else:
            layer = {"status": f"pulling {DIGEST[:12]}", "digest": f"sha256:{DIGEST}", "total": tag.size}
            lines += [layer, {**layer, "completed": tag.size // 2}, {**layer, "completed": tag.size}]
            lines += [{"status": status} for status in ("verifying sha256 digest", "writing manifest", "success")]
        if body.get("stream") is False:
            return _json(lines[-1], 200 if tag else 500)
        return self._pulling(name, tag, lines)

    def _pulling(self, name: str, tag: Tag | None, lines: list[dict[str, Any]]) -> Iterator[Step]:
        yield Head(200, dict(_NDJSON))
        for line in lines:
            yield from _moments(pause((tag.seconds if tag else 0.0) / len(lines)))
            yield _line(line)
        if tag is not None:
            self.tags[name] = tag

    def _copy(self, asked: Asked) -> Iterator[Step]:
        body = _body(asked)
        source = _full(body.get("source") or "")
        if source not in self.tags:
            raise Refused(404, {"error": f'model "{body.get("source")}" not found'})
        self.tags[_full(body["destination"])] = self.tags[source]
        return plain(b"")

    def _delete(self, asked: Asked) -> Iterator[Step]:
        name, _ = self._tag(_body(asked), "model '{}' not found")
        del self.tags[name]
        self._runners.pop(name, None)
        return plain(b"")

    def _tag(self, body: dict[str, Any], missing: str) -> tuple[str, Tag]:
        said = body.get("model") or body.get("name")
        if not said:
            raise Refused(400, {"error": "model is required"})
        if _full(said) not in self.tags:
            raise Refused(404, {"error": missing.format(said)})
        return _full(said), self.tags[_full(said)]

    # ---- what is in memory -----------------------------------------------------------------------------------

    def _live(self) -> dict[str, _Runner]:
        """Runners whose time has come are gone, unless they are busy."""
        now = time.monotonic()
        with self._lock:
            for name in [name for name, runner in self._runners.items() if runner.expires_at <= now and not runner.busy]:
                del self._runners[name]
            return dict(self._runners)

    def _ready(self, name: str, body: dict[str, Any]) -> Generator[Step, None, _Runner]:
        """The runner for a request, loaded first where it must be. A client that leaves meanwhile aborts the load."""
        wanted = runner_options(body, self.context)
        runner = self._live().get(name)
        if runner is None or runner.options != wanted:
            if self._pending >= self._max_queue:
                raise Refused(503, {"error": "server busy, please try again.  maximum pending requests exceeded"})
            self._pending += 1
            try:
                yield from self._loading.take()
                try:
                    runner = yield from self._load(name, wanted)
                finally:
                    self._loading.give()
            finally:
                self._pending -= 1
        if body.get("keep_alive") is not None:
            runner.keep_alive = duration(body["keep_alive"])
        return runner

    def _load(self, name: str, wanted: dict[str, Any]) -> Generator[Step, None, _Runner]:
        runner = self._live().get(name)
        if runner is not None and runner.options == wanted:
            return runner  # somebody else's load, waited for
        while runner is not None and runner.busy:
            yield from _moments(pause(0.01))
        self._runners.pop(name, None)
        self.loads.append((_short(name), wanted))
        tag = self.tags[name]
        yield from _moments(pause(tag.seconds))
        if tag.fails is not None:
            raise Refused(500, {"error": tag.fails})
        runner = self._runners[name] = _Runner(wanted, Slots(self._parallel))
        return runner

    def _using(self, runner: _Runner, name: str, steps: Iterator[Step]) -> Iterator[Step]:
        """One of its slots while `steps` last; then the clock of its keep_alive begins."""
        runner.busy += 1
        try:
            yield from runner.slots.take()
            try:
                yield from steps
            finally:
                runner.slots.give()
        finally:
            runner.busy -= 1
            runner.expires_at = time.monotonic() + (runner.keep_alive if runner.keep_alive >= 0 else float("inf"))
            if runner.keep_alive == 0 and not runner.busy:
                self._runners.pop(name, None)

    # ---- answering -------------------------------------------------------------------------------------------

    def _generate(self, asked: Asked) -> Iterator[Step]:
        began = time.monotonic()
        body = _body(asked)
        chat = asked.path == "/api/chat"
        name, tag = self._tag(body, "model '{}' not found")
        if tag.remote_host:
            raise Refused(401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect"})
        checked(body, tag.capabilities, _short(name))
        empty = not (body.get("messages") if chat else body.get("prompt"))
        if empty and body.get("keep_alive") == 0:
            self._runners.pop(name, None)
            yield from self._nothing(body, chat, "unload")
            return
        runner = yield from self._ready(name, body)
        if empty:
            runner.expires_at = time.monotonic() + (runner.keep_alive if runner.keep_alive >= 0 else float("inf"))
            yield from self._nothing(body, chat, "load")
            return
        count = prompt_tokens(body, chat, runner.options, _short(name))
        answering = Answering(body, chat, count, "thinking" in tag.capabilities, self.mind, began, time.monotonic() - began)
        yield from self._using(runner, name, answering.steps())
        if answering.died:
            self._runners.clear()  # out of memory once, and everything loaded here goes cold

    def _nothing(self, body: dict[str, Any], chat: bool, reason: str) -> Iterator[Step]:
        said = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
        return _json({"model": body["model"], "created_at": _when(), **said, "done": True, "done_reason": reason})

    def _embed(self, asked: Asked) -> Iterator[Step]:
        body = _body(asked)
        name, _ = self._tag(body, 'model "{}" not found, try pulling it first')
        given = body.get("input")
        if not isinstance(given, str | list) or not all(isinstance(text, str) for text in given):
            raise Refused(400, {"error": "invalid input type"})
        texts = [given] if isinstance(given, str) else given
        runner = yield from self._ready(name, body)
        counts = [len(text.split()) for text in texts]
        if body.get("truncate") is False and max(counts, default=0) > runner.options["num_ctx"]:
            raise Refused(400, {"error": "the input length exceeds the context length"})
        answer = {"model": body["model"], "embeddings": [vector(text, body.get("dimensions") or 64) for text in texts if text]}
        timed = {"total_duration": 1_000_000, "load_duration": 1000, "prompt_eval_count": sum(counts)}
        yield from self._using(runner, name, _json({**answer, **timed}))

    def _embed_one(self, asked: Asked) -> Iterator[Step]:
        body = _body(asked)
        name, _ = self._tag(body, 'model "{}" not found, try pulling it first')
        runner = yield from self._ready(name, body)
        yield from self._using(runner, name, _json({"embedding": [2 * x for x in vector(body.get("prompt") or "", 64)]}))


def _body(asked: Asked) -> dict[str, Any]:
    if not asked.data:
        raise Refused(400, {"error": "missing request body"})
    try:
        return dict(asked.json())
    except (ValueError, TypeError) as error:
        raise Refused(400, {"error": str(error)}) from None


def _full(name: str) -> str:
    """Names are compared in lower case and with a tag."""
    name = name.lower().removeprefix("registry.ollama.ai/library/")
    return name if ":" in name or not name else f"{name}:latest"


def _short(name: str) -> str:
    return name.removesuffix(":latest")


def _when(seconds: float = 0.0) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%f}123Z"


def _json(body: Any, status: int = 200) -> Iterator[Step]:
    return plain(body, status, "application/json; charset=utf-8")


def _line(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _moments(nothing: Iterator[None]) -> Iterator[bytes]:
    return (b"" for _ in nothing)
