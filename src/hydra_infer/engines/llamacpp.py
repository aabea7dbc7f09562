"""LlamaCppDriver: a llama.cpp server behind the seam, spoken to over loopback by one event-loop thread of its own.

It knows llama.cpp's routes, options and errors, and may import httpx (inside functions). An event loop, because closing
a connection there ends a request at once; a thread blocked in recv() would first wait for the next token.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigError, ContextTooLong, HydraError, LoadError, Refused, StreamBroken
from ..reply import Embeddings, usage_of
from .driver import EngineInfo, Memory
from .llama_server import LlamaServer, serve
from .request import OPENAI

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .job import Job

__all__ = ["LlamaCppDriver", "LlamaServer", "serve"]

T = TypeVar("T")

# Request fields beside OpenAI's: llama.cpp's tools/server/server-schema.cpp and server-common.cpp, held against the
# names in xllamacpp 2026.10.11549. Fields that only its own parts exchange (chat_parser, grammar_triggers …) are left out.
OPTIONS = OPENAI | {
    "adaptive_decay", "adaptive_target", "add_generation_prompt", "cache_prompt", "chat_template_kwargs",
    "continue_final_message", "dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n",
    "dry_sequence_breakers", "dynatemp_exponent", "dynatemp_range", "grammar", "ignore_eos", "json_schema", "min_keep",
    "min_p", "mirostat", "mirostat_eta", "mirostat_tau", "n_indent", "n_keep", "n_predict", "n_probs",
    "parse_tool_calls", "post_sampling_probs", "reasoning_budget_message", "reasoning_budget_tokens", "reasoning_format",
    "repeat_last_n", "repeat_penalty", "return_progress", "return_tokens", "samplers", "t_max_predict_ms",
    "thinking_budget_tokens", "timings_per_token", "top_k", "top_n_sigma", "typical_p", "xtc_probability",
    "xtc_threshold",
}  # fmt: skip


class LlamaCppDriver:
    """Answers through a started LlamaServer, at most `slots` requests at once, the others in the order they came."""

    options = OPTIONS

    def __init__(self, server: LlamaServer) -> None:
        import httpx

        self.info = EngineInfo(
            "llamacpp", server.name, server.context, server.slots, format="gguf", cache=server.cache, path=str(server.path)
        )
        self._server = server
        self._lock = threading.Lock()
        self._closed = False
        self._tasks: dict[Job, asyncio.Task[None]] = {}  # changed on the loop only
        self._busy = 0
        self._room = asyncio.Semaphore(server.slots)
        self._client = httpx.AsyncClient(
            base_url=server.url,
            headers={"Authorization": f"Bearer {server.api_key}"},
            trust_env=False,  # a proxy for the world is none for loopback
            # At the other end is our own child: its end closes the connection, and the caller may cancel.
            timeout=None,
            # An idle connection would hold one of llama.cpp's few HTTP threads; a new one on loopback costs nothing.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._loop = asyncio.new_event_loop()
        # A daemon, since nothing is lost with it: a program that forgot close() must still be able to end.
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="hydra-llamacpp", daemon=True)
        self._thread.start()
        weakref.finalize(self, _stop, self._loop)

    def submit(self, job: Job) -> None:
        body = {**job.request, "model": self.info.model, "stream": True, "stream_options": {"include_usage": True}}
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the request cannot be written as JSON: {error}") from error
        if not self._server.alive:
            raise LoadError(self._server.ending(), hint="load the model again", log=self._server.log)
        with self._lock:
            self._check_open()
            self._loop.call_soon_threadsafe(self._begin, job, content)

    def cancel(self, job: Job) -> None:
        # Without the lock: this may come out of a __del__ on a thread that holds it.
        with suppress(RuntimeError):  # the loop is closed, and what was in flight ended with it
            self._loop.call_soon_threadsafe(self._drop, job)

    def embed(self, texts: list[str]) -> Future[Embeddings]:
        return self._call(self._embed(texts))

    def tokenize(self, text: str) -> Future[list[int]]:
        return self._call(self._ask("/tokenize", {"content": text}, lambda body: list(body["tokens"])))

    def detokenize(self, ids: list[int]) -> Future[str]:
        return self._call(self._ask("/detokenize", {"tokens": ids}, lambda body: str(body["content"])))

    def stats(self) -> dict[str, Any]:
        return {
            "alive": self._server.alive,
            "busy": self._busy,
            "waiting": len(self._tasks) - self._busy,
            "pid": self._server.pid,
            "url": self._server.url,
            "threads": self._server.threads,
        }

    def memory(self) -> Memory:
        return Memory(host=self._server.memory())

    def reload(self) -> Future[None]:
        """Raises LoadError where the process has ended: a new one has another address and key, so it is another Engine."""
        if not self._server.alive:
            raise LoadError(self._server.ending(), hint="load the model again", log=self._server.log)
        loaded: Future[None] = Future()
        loaded.set_result(None)
        return loaded

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ending = asyncio.run_coroutine_threadsafe(self._shut(), self._loop)
        ending.result()
        _stop(self._loop)
        self._thread.join()
        self._server.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LoadError(f"the engine of {self.info.model} is closed", hint="load the model again")

    def _call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._closed:
                work.close()
            self._check_open()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    # ---- on the loop

    def _begin(self, job: Job, content: bytes) -> None:
        task = self._tasks[job] = self._loop.create_task(self._answer(job, content))
        task.add_done_callback(lambda _task: self._tasks.pop(job))

    def _drop(self, job: Job) -> None:
        if job in self._tasks:
            self._tasks[job].cancel()

    async def _shut(self) -> None:
        for job, task in list(self._tasks.items()):
            job.fail(LoadError("the engine was closed while it answered", hint="load the model again"))
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._client.aclose()

    async def _answer(self, job: Job, content: bytes) -> None:
        try:
            async with self._room:
                self._busy += 1
                try:
                    await self._relay(job, content)
                finally:
                    self._busy -= 1
        except HydraError as error:
            job.fail(error)
        except Exception as error:  # noqa: BLE001  whatever happens here, a reader is waiting
            job.fail(await self._broken(error))
        else:
            job.finish()

    async def _relay(self, job: Job, content: bytes) -> None:
        path = "/v1/chat/completions" if "messages" in job.request else "/v1/completions"
        kind = {"Content-Type": "application/json"}
        async with self._client.stream("POST", path, content=content, headers=kind) as response:
            if response.status_code != 200:
                raise _refusal(response.status_code, await response.aread())
            rest, done = b"", False
            # To the body's end: httpx's generators, left half-way, would outlive the loop and complain when Python ends.
            async for piece in response.aiter_bytes():
                *lines, rest = (rest + piece).split(b"\n")
                for data in (line[5:].strip() for line in lines if line.startswith(b"data:")):
                    if done := data == b"[DONE]":
                        break
                    event = json.loads(data)
                    if "error" in event:
                        raise _refusal(int(event["error"].get("code") or 500), data)
                    job.put(event)
        if not done:
            raise ConnectionError("the answer ended without its last event")

    async def _broken(self, error: Exception) -> HydraError:
        """What to call a connection that failed: mostly its other end has died, which shows a moment later."""
        for _ in range(20):
            if not self._server.alive:
                break
            await asyncio.sleep(0.05)
        what = f"{type(error).__name__}: {error}" if self._server.alive else self._server.ending()
        return StreamBroken(what, hint=self._server.hint(), backend=self.info.name)

    async def _ask(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        import httpx

        try:
            response = await self._client.post(path, json=body)
        except httpx.TransportError as error:
            raise LoadError(f"{self._server.ending()} ({error})", hint=self._server.hint()) from error
        if response.status_code != 200:
            raise _refusal(response.status_code, response.content)
        return read(response.json())

    async def _embed(self, texts: list[str]) -> Embeddings:
        return await self._ask("/v1/embeddings", {"input": texts, "model": self.info.model}, self._vectors)

    def _vectors(self, body: Any) -> Embeddings:
        rows = sorted(body["data"], key=lambda row: int(row["index"]))
        return Embeddings([row["embedding"] for row in rows], self.info.model, usage_of(body), backend=self.info.name, raw=body)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # it is closed already
        loop.call_soon_threadsafe(loop.stop)


def _refusal(status: int, data: bytes) -> HydraError:
    """The error in llama.cpp's answer, by its type where it has one, else by the number it is about."""
    text = data.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        error, message = {}, text
    if error.get("type") == "exceed_context_size_error":
        tokens, context = error["n_prompt_tokens"], error["n_ctx"]
        hint = "shorten the prompt, or load with a larger context"
        return ContextTooLong(
            f"the prompt has {tokens} tokens, the context is {context}", hint=hint, tokens=tokens, context=context
        )
    if large := re.search(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)", message):
        tokens, most = int(large[1]), int(large[2])
        hint = "embed it in parts"
        return ContextTooLong(
            f"a text to embed has {tokens} tokens, at most {most} go at once", hint=hint, tokens=tokens, context=most
        )
    return Refused(f"llama.cpp answered {status}: {message}", backend="llamacpp", status=status, body=text[:2000])
