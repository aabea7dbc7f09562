"""A stand-in for TabbyAPI with its quirks, as the real application was seen to answer (commit e632af4, August 2026)."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from .mind import TICK, Mind, words
from .standin import Asked, Head, Refused, Slots, StandIn, Step, plain
from .tabby_answers import Answering, Card, Task, fitting, tokens_of, validated

__all__ = ["ADMIN_KEY", "API_KEY", "Folder", "TabbyServer"]

API_KEY, ADMIN_KEY = "apikey000", "adminkey000"
NOTHING = {"detail": "No models are currently loaded."}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Folder:
    """One model on its disk: how many modules it has, how long they take to load, where and why that fails."""

    modules: int = 8
    seconds: float = 0.0
    context: int = 8192
    fails: str | None = None
    fails_at: int = 0  # the module that is not reached; 0: refused before the first
    template: bool = True


class TabbyServer(StandIn):
    """`folders` are the models it has, `loaded` the one it begins with.

    `slots` is its max_batch_size, `ping` the seconds between comments in a stream, `reasoning` whether thinking is told apart
    from the text. `loads` notes every load that was begun. Not stood in for: embeddings, LoRAs, sampler presets,
    KoboldAI's paths, downloads, and loading by naming a model in a chat.
    """

    def __init__(
        self,
        folders: dict[str, Folder] | list[str],
        loaded: str | None = None,
        *,
        mind: Mind = words,
        slots: int = 128,
        ping: float = 15.0,
        reasoning: bool = False,
        port: int = 0,
    ) -> None:
        self.folders = folders if isinstance(folders, dict) else {name: Folder() for name in folders}
        self.loads: list[dict[str, Any]] = []
        self.issues: list[dict[str, str]] = []  # what went wrong while answering; never forgotten
        self.mind, self.reasoning, self.slots, self.ping = mind, reasoning, Slots(slots), ping
        self._max_batch_size = slots
        self._card: Card | None = None
        self._draft: str | None = None
        self._waiting = 0  # loads that wait for running answers
        self._turn = threading.Lock()  # one load at a time
        self._tasks: set[Task] = set()
        if loaded is not None:
            self._card = self._card_for(loaded, {})
        super().__init__(port)

    @property
    def loaded(self) -> str | None:
        """The name of the model in memory."""
        return self._card.name if self._card else None

    def answer(self, asked: Asked) -> Iterator[Step]:
        routes = self._routes()
        if asked.path not in {path for _, path in routes}:
            raise Refused(404, {"detail": "Not Found"})
        if (asked.method, asked.path) not in routes:
            raise Refused(405, {"detail": "Method Not Allowed"})
        return routes[asked.method, asked.path](asked)

    def _routes(self) -> dict[tuple[str, str], Callable[[Asked], Iterator[Step]]]:
        return {
            ("GET", "/health"): self._health,
            ("GET", "/.well-known/serviceinfo"): self._info,
            ("GET", "/v1/models"): self._list,
            ("GET", "/v1/model/list"): self._list,
            ("GET", "/v1/model/draft/list"): self._draft_list,
            ("GET", "/v1/model"): self._model,
            ("GET", "/props"): self._props,
            ("GET", "/v1/auth/permission"): self._permission,
            ("POST", "/v1/model/load"): self._load,
            ("POST", "/v1/model/unload"): self._unload,
            ("POST", "/v1/template/switch"): self._switch_template,
            ("POST", "/v1/token/encode"): self._encode,
            ("POST", "/v1/token/decode"): self._decode,
            ("POST", "/v1/chat/completions"): self._generate,
            ("POST", "/v1/completions"): self._generate,
            ("POST", "/v1/embeddings"): self._embeddings,
        }

    # ---- who may ask -----------------------------------------------------------------------------------------

    def _api(self, asked: Asked) -> bool:
        """Refuse whoever has no key; tells whether it is the admin's."""
        headers = asked.headers
        given = headers.get("x-api-key") or _bearer(headers.get("authorization"))
        if given is None:
            raise Refused(401, {"detail": "Please provide an API key"})
        if given not in (API_KEY, ADMIN_KEY):
            raise Refused(401, {"detail": "Invalid API key"})
        return given == ADMIN_KEY

    def _admin(self, asked: Asked) -> None:
        given = asked.headers.get("x-admin-key") or _bearer(asked.headers.get("authorization"))
        if given is None:
            raise Refused(401, {"detail": "Please provide an admin key"})
        if given != ADMIN_KEY:
            raise Refused(401, {"detail": "Invalid admin key"})

    def _permission(self, asked: Asked) -> Iterator[Step]:
        return plain({"permission": "admin" if self._api(asked) else "api"})

    # ---- what it tells of itself -----------------------------------------------------------------------------

    def _health(self, _: Asked) -> Iterator[Step]:
        """Past failures, and nothing else: with no model it is healthy, after one failed answer it never is again."""
        if self.issues:
            return plain({"status": "unhealthy", "issues": self.issues}, 503)
        return plain({"status": "healthy", "issues": []})

    def _info(self, _: Asked) -> Iterator[Step]:
        home = "https://github.com/theroyallab/tabbyAPI"
        pages = "https://theroyallab.github.io/tabbyAPI"
        apis = (("openai", "OpenAI API", "/v1"), ("koboldai", "KoboldAI API", "/api"))
        api = {key: {"name": name, "relative_url": url, "documentation": pages, "version": 1} for key, name, url in apis}
        return plain({"version": 0.1, "software": {"name": "TabbyAPI", "repository": home, "homepage": home}, "api": api})

    def _list(self, asked: Asked) -> Iterator[Step]:
        """Every folder for the admin; for others only the model in memory."""
        admin = self._api(asked)
        if "x-admin-key" in asked.headers and asked.headers["x-admin-key"] != ADMIN_KEY:
            raise Refused(500, b"Internal Server Error")
        return _cards(list(self.folders) if admin else [self.loaded] if self.loaded else [])

    def _draft_list(self, asked: Asked) -> Iterator[Step]:
        return _cards(list(self.folders) if self._api(asked) else [self._draft] if self._draft else [])

    def _model(self, asked: Asked) -> Iterator[Step]:
        self._api(asked)
        card = self._in_memory()
        parameters = {
            "max_seq_len": card.context,
            "cache_size": card.cache_size,
            "cache_mode": card.cache_mode,
            "rope_scale": 1.0,
            "rope_alpha": 1.0,
            "max_batch_size": self._max_batch_size,
            "chunk_size": card.chunk_size,
            "prompt_template": "from_tokenizer_config" if card.template else None,
            "prompt_template_content": TEMPLATE if card.template else None,
            "use_vision": False,
            "draft": None,  # even when there is one
        }
        return plain({**_card(card.name), "parameters": parameters})

    def _props(self, asked: Asked) -> Iterator[Step]:
        self._api(asked)
        settings = {"n_ctx": self._in_memory().context}
        body = {"total_slots": self._max_batch_size, "chat_template": TEMPLATE, "default_generation_settings": settings}
        return plain(body)

    def _in_memory(self) -> Card:
        if self._card is None:
            raise Refused(503, NOTHING)
        return self._card

    # ---- loading and unloading -------------------------------------------------------------------------------

    def _load(self, asked: Asked) -> Iterator[Step]:
        self._admin(asked)
        request = _object(asked)
        if "model_name" not in request:
            raise Refused(422, {"detail": [_missing("model_name", request)]})
        if not request["model_name"]:
            raise Refused(400, {"detail": "A model name was not provided for load."})
        if request["model_name"] not in self.folders and "/" not in request["model_name"]:
            raise Refused(400, {"detail": "Could not find the model path for load. Check model name or config.yml?"})
        # In a thread of its own: a client that leaves does not stop a load.
        events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._loading, args=(request, events.put), daemon=True).start()
        yield Head(200, dict(_SSE))
        while True:
            try:
                event = events.get(timeout=TICK)
            except queue.Empty:
                yield b""
                continue
            if event is None:
                return
            yield _event(event)

    def _loading(self, request: dict[str, Any], tell: Callable[[dict[str, Any] | None], None]) -> None:
        with self._turn:
            name, draft = request["model_name"], (request.get("draft_model") or {}).get("draft_model_name")
            self.loads.append(request)
            if name == self.loaded:  # whatever parameters are asked for now
                for status in ("processing", "finished"):
                    tell(_progress("model", 1, 1, status))
            else:
                self._drain()
                self._card = self._draft = None
                parts = [("draft", draft)] * bool(draft) + [("model", name)]
                if request.get("backend") == "exllamav2":
                    tell(_error("The exllamav2 backend is no longer supported. Please use exllamav3."))
                elif (request.get("draft_model") or {}).get("draft_gpu_split") and not request.get("gpu_split"):
                    tell(_error("Cannot specify both memory usage and memory reserve."))
                elif all(self._load_part(kind, part, tell) for kind, part in parts):
                    self._draft, self._card = draft, self._card_for(name, request)
        tell(None)

    def _drain(self) -> None:
        """Wait until the running answers are over; questions that come meanwhile fail."""
        self._waiting += 1
        while self._tasks:
            time.sleep(TICK)
        self._waiting -= 1

    def _load_part(self, kind: str, name: str, tell: Callable[[dict[str, Any]], None]) -> bool:
        folder = self.folders.get(name)
        if folder is None:
            tell(_error(f"models/{name}/config.json" if kind == "draft" else f"Failed to load config.json from models/{name}"))
            return False
        for module in range(1, folder.modules + 1):
            if folder.fails is not None and module >= folder.fails_at:
                tell(_error(folder.fails))
                return False
            time.sleep(folder.seconds / folder.modules)
            tell(_progress(kind, module, folder.modules, "processing"))
        tell(_progress(kind, folder.modules, folder.modules, "finished"))
        return True

    def _card_for(self, name: str, request: dict[str, Any]) -> Card:
        folder = self.folders[name]
        context = request.get("max_seq_len") or folder.context
        return Card(
            name=name,
            context=context,
            cache_size=request.get("cache_size") or context,
            cache_mode=request.get("cache_mode") or "FP16",
            chunk_size=request.get("chunk_size") or 2048,
            template=folder.template,
        )

    def _unload(self, asked: Asked) -> Iterator[Step]:
        """At once: running answers are cut, and nobody tells their clients."""
        self._admin(asked)
        self._in_memory()
        self._card = self._draft = None
        for task in list(self._tasks):
            task.cancelled = True
        return plain(None)

    def _switch_template(self, asked: Asked) -> Iterator[Step]:
        self._admin(asked)
        card = self._in_memory()
        if _object(asked)["prompt_template_name"] not in ("alpaca", "chatml"):
            raise Refused(500, b"Internal Server Error")
        self._card = replace(card, template=True)
        return plain(None)

    # ---- answering -------------------------------------------------------------------------------------------

    def _encode(self, asked: Asked) -> Iterator[Step]:
        self._api(asked)
        self._in_memory()
        tokens = tokens_of(_object(asked)["text"], opening=False)
        return plain({"tokens": tokens, "length": len(tokens)})

    def _decode(self, asked: Asked) -> Iterator[Step]:
        self._api(asked)
        self._in_memory()
        return plain({"text": bytes(token for token in _object(asked)["tokens"] if token < 256).decode("utf-8", "replace")})

    def _embeddings(self, asked: Asked) -> Iterator[Step]:
        self._api(asked)
        raise Refused(503, {"detail": "No embedding models are currently loaded."})

    def _generate(self, asked: Asked) -> Iterator[Step]:
        self._api(asked)
        chat = asked.path.endswith("/chat/completions")
        fields = validated(_object(asked), chat=chat)
        if (fields.get("min_tokens") or 0) > (fields.get("max_tokens") or 2**31):
            raise Refused(500, b"Internal Server Error")
        if self._card is None:
            # With a name in the request it looks for the name of the model that is not there.
            raise Refused(500, b"Internal Server Error") if fields.get("model") else Refused(503, NOTHING)
        card = self._card
        if chat and not card.template:
            raise Refused(422, {"detail": "Chat completions are disabled because a prompt template is not set."})
        prompts = [fields["messages"]] if chat else _as_list(fields["prompt"])
        counts = [len(tokens_of(prompt)) for prompt in prompts]
        fitting(max(counts), card)
        task = Task()
        answering = Answering(card, fields, prompts, sum(counts), self.mind, self.reasoning, task)
        steps = self._answered(answering, task)
        return _with_pings(steps, self.ping) if fields.get("stream") else steps

    def _answered(self, answering: Answering, task: Task) -> Iterator[Step]:
        if answering.stream:
            yield Head(200, dict(_SSE))
        yield from self.slots.take()
        try:
            if self._waiting:
                while self._waiting:
                    time.sleep(TICK)
                    yield b""
                yield from answering.aborted()
                return
            self._tasks.add(task)
            yield from answering.streamed() if answering.stream else answering.whole()
        finally:
            if task.issue:
                self.issues.append({"time": datetime.now(UTC).isoformat().replace("+00:00", "Z"), "description": task.issue})
            self._tasks.discard(task)
            self.slots.give()


def _with_pings(steps: Iterator[Step], every: float) -> Iterator[Step]:
    due = time.monotonic() + every
    for step in steps:
        yield step
        if time.monotonic() >= due:
            yield f": ping - {datetime.now(UTC)}\r\n\r\n".encode()
            due += every


def _object(asked: Asked) -> dict[str, Any]:
    try:
        body = asked.json()
    except json.JSONDecodeError as error:
        flaw = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise Refused(422, {"detail": [{**flaw, "ctx": {"error": error.msg}}]}) from None
    return dict(body)


def _missing(name: str, given: Any) -> dict[str, Any]:
    return {"type": "missing", "loc": ["body", name], "msg": "Field required", "input": given}


def _bearer(header: str | None) -> str | None:
    """The key; a header without "Bearer " is a wrong key, not a missing one."""
    return None if header is None else header.removeprefix("Bearer ") if header.startswith("Bearer ") else ""


def _card(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "tabbyAPI",
        "logging": None,
        "parameters": None,
    }


def _cards(names: list[str]) -> Iterator[Step]:
    return plain({"object": "list", "data": [_card(name) for name in names]})


def _progress(kind: str, module: int, modules: int, status: str) -> dict[str, Any]:
    return {"model_type": kind, "module": module, "modules": modules, "status": status}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "trace": None}}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, separators=(',', ':'))}\r\n\r\n".encode()


def _as_list(prompt: str | list[str]) -> list[str]:
    return [prompt] if isinstance(prompt, str) else prompt
