"""Ollama's own words (/api/chat, /api/generate, /api/embed), to and from OpenAI's.

Its /v1 side cannot set the context and swallows errors in mid-stream, so it is not used. Facts: ollama/ollama at fb30760
(August 2026), api/types.go and server/routes.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..plain import brief, count_of, number_of, table_of, text_of
from ..reply import Assembler
from .bounds import MAX_CHOICES, MAX_EARLY_EVENTS, MAX_VALUES, load
from .exchange import Event, Receiver, WireRequest, broken
from .fields import estimated_tokens
from .lines import Lines
from .openai import Target, path_of
from .question import Question, to_json
from .trouble import Failure, Trouble, failure_of_error, failure_of_status

__all__ = ["OllamaExchange", "is_cloud", "loaded_in", "tags_in", "warm_up"]

_PATHS = {"/chat/completions": "/api/chat", "/completions": "/api/generate", "/embeddings": "/api/embed"}

# OpenAI's samplers by Ollama's names; whatever is not said is left to the model's own Modelfile.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}
# Fields that travel as they are: OpenAI's that Ollama shares, and Ollama's own.
_SHARED = ("tools", "logprobs", "top_logprobs", "keep_alive", "think", "format", "shift", "dimensions", "suffix", "images")
_EFFORTS = {"none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
# What OpenAI's clients send that has no counterpart, and whose loss changes no answer.
_SILENT = frozenset(
    {"model", "messages", "prompt", "input", "stream", "stream_options", "user", "encoding_format", "store", "metadata"}
)


class OllamaExchange(Receiver):
    """One attempt at an Ollama server; see Exchange. `target.context` becomes num_ctx: changing it reloads the model there."""

    def __init__(self, question: Question, target: Target) -> None:
        super().__init__(question.path)
        self._question, self._model, self._context = question, target.local_name, target.context
        body, self.warnings = self._translated(target)
        self.request = WireRequest(
            method="POST",
            path=path_of(target.base) + _PATHS[question.path],
            headers={**question.headers, "accept-encoding": "identity", "content-type": "application/json", **target.headers},
            body=to_json(body),
        )
        self._lines = Lines()
        self._calls = self._early = 0

    def feed(self, data: bytes) -> list[Event]:
        if self.failure or self.finished:
            return []
        events: list[Event] = []
        try:
            for piece in self._decoder.feed(data):
                if self._status == 200 and self._question.stream:
                    self._count(piece)
                    events += self._events(self._lines.feed(piece))
                elif not self._keep(piece):
                    self._refused()
                if self.failure or self.finished:
                    break
        except ValueError as error:
            self.failure = broken(str(error), self._status)
        return events

    def end(self) -> list[Event]:
        if self.failure or self.finished:
            return []
        if self._status != 200:
            self._refused()
            return []
        events = self._events(self._lines.end() if self._question.stream else [bytes(self._body)])
        if not self.failure and not self.finished:
            # It also stops like this, without a word, after 30 equal tokens in a row.
            self.failure = broken("the stream ended without done", self._status)
        return events

    def _refused(self) -> None:
        self.failure = _refusal(failure_of_status(self._status, self._headers, bytes(self._body)))

    # ---- from Ollama ---------------------------------------------------------------------------------------------

    def _events(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if self.failure or self.finished:
                break
            if line.strip():
                events += self._event(line)
        return events

    def _event(self, line: bytes) -> list[Event]:
        try:
            data = load(line, 4 * MAX_VALUES if self._question.path == "/embeddings" else MAX_VALUES)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            self.failure = broken(f"a line that is not a JSON object: {line[:80].decode('utf-8', 'replace')!r}", self._status)
            return []
        if data.get("error"):
            self.failure = _refusal(failure_of_error(data["error"], line))
            return []
        if self._question.path == "/embeddings":
            return self._embeddings(data)
        chunk, tokens = self._chunk(data)
        self.finished = bool(data.get("done") or data.get("done_reason"))
        self.answered = self.answered or tokens or self.finished
        self._early += not self.answered
        if self._early > MAX_EARLY_EVENTS or self._calls > MAX_CHOICES:
            what = f"{MAX_CHOICES} tool calls" if self.answered else f"{MAX_EARLY_EVENTS} lines without a token"
            self.failure = broken(f"more than {what} came", self._status)
            return []
        if self.finished and (cut := _cut(data.get("prompt_eval_count"), self._context, self._question)):
            self.warnings = (*self.warnings, cut)
        if not self._question.stream:
            assembler = Assembler()
            assembler.add(chunk)
            body = assembler.body()
            return [Event(body, json.dumps(body).encode(), tokens=True, whole=True)]
        return [Event(chunk, json.dumps(chunk).encode(), tokens=tokens or self.finished)]

    def _chunk(self, data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """One line as OpenAI's chunk, and whether it carries tokens."""
        message = table_of(data.get("message"))
        said = text_of(message.get("content")) or text_of(data.get("response"))
        thinking = text_of(message.get("thinking")) or text_of(data.get("thinking"))
        called = _items(message.get("tool_calls") or [])
        calls = [_call_from(table_of(call), self._calls + index) for index, call in enumerate(called)]
        self._calls += len(calls)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._finish(data)}
        if data.get("logprobs"):
            choice["logprobs"] = {"content": data["logprobs"]}
        if self._question.path == "/completions":
            choice["text"] = said
        else:
            parts = {"content": said or None, "reasoning_content": thinking or None, "tool_calls": calls or None}
            choice["delta"] = {"role": "assistant", **{key: value for key, value in parts.items() if value is not None}}
        created = _seconds(data.get("created_at"))
        chunk = {
            "id": f"chatcmpl-ollama-{created}",
            "object": "text_completion" if self._question.path == "/completions" else "chat.completion.chunk",
            "created": created,
            "model": text_of(data.get("model")) or self._model,
            "choices": [choice],
            **_counts(data),
        }
        return chunk, bool(said or thinking or calls)

    def _finish(self, data: Mapping[str, Any]) -> str | None:
        if not (data.get("done") or data.get("done_reason")):
            return None
        if data.get("done_reason") == "length":
            return "length"
        return "tool_calls" if self._calls or table_of(data.get("message")).get("tool_calls") else "stop"

    def _embeddings(self, data: dict[str, Any]) -> list[Event]:
        vectors = data.get("embeddings")
        self.finished = True
        if not isinstance(vectors, list) or not vectors or not all(isinstance(vector, list) for vector in vectors):
            self.failure = broken("the body has no embeddings", self._status)
            return []
        self.answered = True
        count = count_of(data.get("prompt_eval_count"))
        body = {
            "object": "list",
            "model": text_of(data.get("model")) or self._model,
            "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
        return [Event(body, json.dumps(body).encode(), tokens=True, whole=True)]

    # ---- to Ollama -----------------------------------------------------------------------------------------------

    def _translated(self, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The request's body in Ollama's words, and what has no counterpart there."""
        fields = {key: value for key, value in self._question.body.fields.items() if value is not None}
        # truncate=false: an overflow is then an error instead of a prompt cut in half without a word.
        body: dict[str, Any] = {"model": target.local_name, "truncate": False, "options": self._options(fields, target)}
        if self._question.path == "/embeddings":
            body["input"] = fields.get("input")
        else:
            body["stream"] = self._question.stream
        if self._question.path == "/chat/completions":
            # What is no message is for the server to refuse.
            messages = fields.get("messages") or []
            body["messages"] = [_message(one) if isinstance(one, Mapping) else one for one in _items(messages)]
        elif self._question.path == "/completions":
            body |= {"prompt": fields.get("prompt"), "raw": True}
        body |= {key: fields[key] for key in _SHARED if key in fields}
        handled = {
            *_OPTIONS,
            *_SHARED,
            *_SILENT,
            "options",
            "response_format",
            "reasoning_effort",
            "tool_choice",
            "chat_template_kwargs",
        }
        warnings = [f"Ollama has no field {brief(key)}; it was left out" for key in fields if key not in handled]
        self._translate_format(fields, body)
        warnings += _translate_choices(fields, body)
        return body, tuple(warnings)

    def _options(self, fields: Mapping[str, Any], target: Target) -> dict[str, Any]:
        options = {theirs: fields[ours] for ours, theirs in _OPTIONS.items() if ours in fields}
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        # num_ctx is the same in every request for a model: another value would reload it.
        context = {"num_ctx": target.context} if target.context else {}
        return {**options, **table_of(fields.get("options")), **context}

    def _translate_format(self, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
        wanted = fields.get("response_format")
        if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
            body["format"] = table_of(wanted.get("json_schema")).get("schema")
        elif isinstance(wanted, Mapping) and wanted.get("type") == "json_object":
            body["format"] = "json"


def warm_up(target: Target) -> WireRequest:
    """A request that loads the model and asks nothing of it: an empty prompt, with the options that calls will have."""
    body = {"model": target.local_name, "stream": False, **({"options": {"num_ctx": target.context}} if target.context else {})}
    headers = {"accept-encoding": "identity", "content-type": "application/json", **target.headers}
    return WireRequest("POST", path_of(target.base) + "/api/generate", headers, json.dumps(body).encode())


def tags_in(body: bytes) -> list[str]:
    """The local models in a GET /api/tags answer, by their short names; cloud models are left out. Raises ValueError."""
    data = load(body)
    rows = data.get("models") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ValueError("no model list in the answer to /api/tags")  # noqa: TRY004 - a fault of data, not of a type
    names = [
        row["name"] for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str) and not row.get("remote_host")
    ]
    return [name.removesuffix(":latest") for name in names if not is_cloud(name)]


def loaded_in(body: bytes) -> dict[str, int | None]:
    """The models in memory by a GET /api/ps answer, with the context each is served with. Raises ValueError."""
    data = load(body)
    rows = data.get("models") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ValueError("no model list in the answer to /api/ps")  # noqa: TRY004
    return {
        str(row["name"]).removesuffix(":latest"): count_of(row.get("context_length"))
        for row in rows
        if isinstance(row, dict) and row.get("name")
    }


def is_cloud(name: str) -> bool:
    """Whether a "local" server would pass prompts for this model on to ollama.com."""
    return name.endswith((":cloud", "-cloud"))


def _translate_choices(fields: Mapping[str, Any], body: dict[str, Any]) -> list[str]:
    """reasoning_effort, enable_thinking and tool_choice; gives warnings."""
    warnings = []
    effort = fields.get("reasoning_effort")
    if effort is not None and "think" not in body:
        body["think"] = _EFFORTS.get(effort, effort) if isinstance(effort, str) else effort
    template = fields.get("chat_template_kwargs")
    if isinstance(template, Mapping) and isinstance(template.get("enable_thinking"), bool):
        body["think"] = template["enable_thinking"]
    choice = fields.get("tool_choice")
    if choice == "none":
        body.pop("tools", None)
    elif choice not in (None, "auto"):
        warnings.append(f"Ollama cannot be made to call a tool: tool_choice={brief(choice)} was left out")
    return warnings


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """One message: text and pictures apart, tool arguments as an object, thinking under its own name."""
    content, images = message.get("content"), []
    if isinstance(content, list):
        images = [_image(part) for part in content if isinstance(part, Mapping) and part.get("type") == "image_url"]
        content = "".join(
            str(part.get("text", "")) for part in content if isinstance(part, Mapping) and part.get("type") == "text"
        )
    out: dict[str, Any] = {"role": message.get("role"), "content": content or ""}
    if images:
        out["images"] = images
    if message.get("tool_calls"):
        out["tool_calls"] = [_call_to(table_of(call)) for call in _items(message["tool_calls"])]
    for theirs, ours in (("thinking", "reasoning_content"), ("tool_call_id", "tool_call_id"), ("tool_name", "name")):
        if message.get(ours) is not None:
            out[theirs] = message[ours]
    return out


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _image(part: Mapping[str, Any]) -> str:
    """The base64 of a data: URL. Ollama fetches nothing, so that another URL goes as it is and is refused there by name."""
    url = str(table_of(part.get("image_url")).get("url", ""))
    return url.partition(",")[2] if url.startswith("data:") else url


def _call_to(call: Mapping[str, Any]) -> dict[str, Any]:
    function = table_of(call.get("function"))
    arguments = function.get("arguments")
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        parsed = {"arguments": arguments}
    return {"id": call.get("id"), "function": {"name": function.get("name"), "arguments": parsed or {}}}


def _call_from(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    function = table_of(call.get("function"))
    return {
        "index": index,
        "id": text_of(call.get("id")) or f"call_{index}",
        "type": "function",
        "function": {"name": text_of(function.get("name")), "arguments": json.dumps(function.get("arguments") or {})},
    }


def _counts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts and speeds of the last line. Durations are nanoseconds, and zeros are left out there."""
    if not data.get("done"):
        return {}
    prompt, answer = count_of(data.get("prompt_eval_count")) or 0, count_of(data.get("eval_count")) or 0
    told: dict[str, Any] = {"usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}}
    speeds = {
        "prompt_per_second": (prompt, number_of(data.get("prompt_eval_duration"))),
        "predicted_per_second": (answer, number_of(data.get("eval_duration"))),
    }
    timings = {
        name: round(count / nanoseconds * 1e9, 3) for name, (count, nanoseconds) in speeds.items() if count and nanoseconds
    }
    return {**told, "timings": timings} if timings else told


def _cut(counted: Any, context: int | None, question: Question) -> str | None:
    """A warning where the prompt seems to have been cut in spite of truncate=false, as servers before it did without a word.

    They keep num_ctx - (num_ctx - num_keep) / 2 tokens of one that is too long (ollama issues 17427 and 17889), which is half of
    the context. The count is theirs, the prompt's length is our estimate.
    """
    estimate = estimated_tokens(question.body.fields)
    if not isinstance(counted, int) or not context or estimate <= context or counted > context // 2 + 2:
        return None
    return (
        f"Ollama read {counted} tokens of a prompt of about {estimate}: it seems to have cut it to fit its context of {context}"
    )


def _refusal(failure: Failure) -> Failure:
    """A wrong option's type comes as 500, though it is the caller's mistake."""
    if failure.message.removeprefix("HTTP 500: ").startswith('option "'):
        return Failure(Trouble.CALLER, failure.message, status=400, body=failure.body, content_type=failure.content_type)
    return failure


def _seconds(created_at: Any) -> int:
    """Unix seconds of an RFC 3339 time (with nanoseconds, which Python does not read); 0 when there is none."""
    if not isinstance(created_at, str):
        return 0
    head, dot, tail = created_at.partition(".")
    zone = tail.lstrip("0123456789") if dot else ""
    try:
        return int(datetime.fromisoformat(head + zone if dot else head).timestamp())
    except ValueError:
        return 0
