"""What an answer is, for engines and routers alike: its pieces (Chunk) and the whole (Reply), from OpenAI-shaped events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .plain import count_of, grow, number_of, table_of, text_of

__all__ = ["Assembler", "Chunk", "Embeddings", "Reply", "Timings", "Usage"]

JsonDict = dict[str, Any]

# The thinking part is spelled in two ways: vLLM, TabbyAPI, llama.cpp "reasoning_content"; Ollama's /v1 "reasoning".
REASONING_KEYS = ("reasoning_content", "reasoning")
# What grows in a message, piece by piece.
_TEXTS = frozenset({"content", "refusal", *REASONING_KEYS})


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server reported them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds and tokens per second of one answer; None where it cannot be known.

    `ttft` is from the call to the first token, `total` from the call to the end. `prefill_tps` and `decode_tps` are the
    server's own where it reports them; otherwise decode_tps is counted here, over the time after the first token.
    """

    ttft: float | None = None
    total: float | None = None
    prefill_tps: float | None = None
    decode_tps: float | None = None


@dataclass(slots=True)
class Chunk:
    """One piece of a streamed answer; `str(chunk)` is its text, `raw` the event it came in.

    Not frozen, unlike its neighbours: there is one for each token, and to make a frozen one costs as much as to parse it.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[JsonDict, ...] = ()
    finish_reason: str | None = None
    raw: JsonDict = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `raw` is always an OpenAI-shaped dict; everything else is read from it or says how it came about.

    `backend` names who answered, `attempts` who was asked before (empty for an engine), `draft` the acceptance of a
    draft model where there was one. `upstream` is what a proxy told of the server behind it (LiteLLM: deployment, url, group,
    cost in US dollars, retries, fallbacks).
    """

    text: str
    model: str
    finish_reason: str | None
    message: JsonDict
    raw: JsonDict = field(repr=False)
    reasoning: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    backend: str | None = None
    attempts: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = ()
    draft: JsonDict | None = None
    upstream: JsonDict | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def tool_calls(self) -> list[JsonDict]:
        """The tool calls in OpenAI's shape (arguments are a JSON string); empty when there are none."""
        return list(self.message.get("tool_calls") or [])

    def to_dict(self) -> JsonDict:
        """Plain data that survives json.dumps unchanged."""
        return {
            "text": self.text,
            "reasoning": self.reasoning,
            "model": self.model,
            "finish_reason": self.finish_reason,
            "message": self.message,
            "usage": asdict(self.usage),
            "timings": asdict(self.timings),
            "backend": self.backend,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "warnings": list(self.warnings),
            "draft": self.draft,
            "upstream": self.upstream,
            "raw": self.raw,
        }


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of the inputs."""

    embeddings: list[list[float]]
    model: str
    usage: Usage = Usage()
    backend: str | None = None
    attempts: tuple[Any, ...] = ()
    raw: JsonDict = field(default_factory=dict, repr=False)

    def to_dict(self) -> JsonDict:
        """Plain data that survives json.dumps unchanged."""
        return {
            "embeddings": self.embeddings,
            "model": self.model,
            "usage": asdict(self.usage),
            "backend": self.backend,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
        }


class Assembler:
    """Puts streamed events (chat or text completion) together into the body a plain call would have returned.

    Feed it events in order; unknown fields of events and deltas are kept (the last one wins), so that nothing is lost
    which a server adds. A complete body given to `whole()` is taken as it is.
    """

    def __init__(self) -> None:
        self._body: JsonDict = {}
        self._choices: dict[int, JsonDict] = {}

    def add(self, event: JsonDict) -> Chunk:
        """Take one event in; gives the piece it brought (of the first choice)."""
        self._body.update({key: value for key, value in event.items() if value is not None} if None in event.values() else event)
        chunk: Chunk | None = None
        for choice in event.get("choices") or ():
            if isinstance(choice, dict):
                index, piece = self._merge(choice, event)
                chunk = chunk or (piece if index == 0 else None)
        return chunk or Chunk(raw=event)

    @property
    def text(self) -> str:
        """What the first choice says, so far."""
        first = self._choices.get(0, {})
        return text_of(table_of(first.get("message")).get("content")) or text_of(first.get("text"))

    @property
    def reasoning(self) -> str:
        """What it thought before, so far."""
        return _reasoning(table_of(self._choices.get(0, {}).get("message")))

    def whole(self, body: JsonDict) -> None:
        """Take a complete (not streamed) body as the answer."""
        self._body = dict(body)
        for choice in body.get("choices") or []:
            self._choices[choice.get("index") or 0] = dict(choice)

    def body(self) -> JsonDict:
        """The OpenAI-shaped body so far."""
        body = {**self._body, "choices": [self._choices[index] for index in sorted(self._choices)]}
        if isinstance(kind := body.get("object"), str):
            body["object"] = kind.removesuffix(".chunk")
        return body

    def reply(
        self,
        *,
        model: str | None = None,
        timings: Timings | None = None,
        backend: str | None = None,
        attempts: tuple[Any, ...] = (),
        warnings: tuple[str, ...] = (),
        upstream: JsonDict | None = None,
    ) -> Reply:
        """The Reply for what was fed in. `model` replaces the server's own name; `timings` is what the caller measured."""
        raw = self.body()
        if model is not None:
            raw["model"] = model
        first = self._choices.get(0, {})
        message = first.get("message") or {"role": "assistant", "content": first.get("text", "")}
        return Reply(
            text=self.text,
            reasoning=self.reasoning,
            model=str(raw.get("model", "")),
            finish_reason=first.get("finish_reason"),
            message=message,
            usage=usage_of(raw),
            timings=_timings(raw, timings or Timings()),
            backend=backend,
            attempts=attempts,
            warnings=warnings,
            draft=_draft(raw),
            upstream=upstream,
            raw=raw,
        )

    def _merge(self, piece: Mapping[str, Any], event: JsonDict) -> tuple[int, Chunk]:
        index = piece.get("index") or 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = {"index": index, "finish_reason": None}
        for key, value in piece.items():
            if value is None or key == "index" or key == "delta":
                continue
            if key == "text" and isinstance(value, str):
                grow(choice, "text", value)
            elif key == "logprobs" and isinstance(value, Mapping):
                _merge_logprobs(choice, value)
            else:
                choice[key] = value
        delta = piece.get("delta") or {}
        if delta or "delta" in piece:
            if "message" not in choice:
                choice["message"] = {"role": "assistant", "content": None}
            if len(delta) == 1 and type(content := delta.get("content")) is str:  # as nearly every piece is
                grow(choice["message"], "content", content)
                return index, Chunk(content, "", (), piece.get("finish_reason"), event)
            _merge_delta(choice["message"], delta)
        text = text_of(delta.get("content")) or text_of(piece.get("text"))
        return index, Chunk(text, _reasoning(delta), tuple(delta.get("tool_calls") or ()), piece.get("finish_reason"), event)


def usage_of(body: Mapping[str, Any]) -> Usage:
    """The token counts of an OpenAI-shaped body; None where the server said nothing."""
    told = table_of(body.get("usage")).get
    return Usage(count_of(told("prompt_tokens")), count_of(told("completion_tokens")), count_of(told("total_tokens")))


def _merge_delta(message: JsonDict, delta: Mapping[str, Any]) -> None:
    for key, value in delta.items():
        if value is None:
            continue
        if key == "tool_calls":
            _merge_tool_calls(message.setdefault("tool_calls", []), value)
        elif key in _TEXTS and isinstance(value, str):
            grow(message, key, value)
        else:
            message[key] = value


def _merge_tool_calls(calls: list[JsonDict], pieces: list[Mapping[str, Any]]) -> None:
    for piece in pieces:
        position = piece.get("index")
        # A server that sends calls whole may leave the index out: each such piece is a call of its own.
        if position is None or position >= len(calls):
            calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
            position = len(calls) - 1
        call, function = calls[position], piece.get("function") or {}
        for key in ("id", "type"):
            call[key] = piece.get(key) or call.get(key)
        said = call["function"] = call.get("function") or {}
        grow(said, "name", function.get("name") or "")
        grow(said, "arguments", function.get("arguments") or "")


def _merge_logprobs(choice: JsonDict, new: Mapping[str, Any]) -> None:
    """Lists (of tokens) grow by what came; anything else is as it was said last."""
    before = choice.get("logprobs")
    have = choice["logprobs"] = before if isinstance(before, dict) else {}
    for key, value in new.items():
        if isinstance(value, list) and isinstance(known := have.get(key), list):
            known += value
        else:
            have[key] = list(value) if isinstance(value, list) else value


def _reasoning(message: Mapping[str, Any]) -> str:
    for key in REASONING_KEYS:
        if isinstance(value := message.get(key), str):
            return value
    return ""


def _draft(body: Mapping[str, Any]) -> JsonDict | None:
    """What drafting came to, from `timings` as llama.cpp writes them: tokens drafted, of those accepted, and their share."""
    told = table_of(body.get("timings"))
    drafted, accepted = count_of(told.get("draft_n")), count_of(told.get("draft_n_accepted")) or 0
    if not drafted:
        return None
    return {"tokens": drafted, "accepted": accepted, "acceptance": accepted / drafted}


def _timings(body: Mapping[str, Any], measured: Timings) -> Timings:
    """llama.cpp reports speeds in `timings`; they exclude the network and its buffers, so they win over ours."""
    told = table_of(body.get("timings"))
    prefill, decode = number_of(told.get("prompt_per_second")), number_of(told.get("predicted_per_second"))
    return Timings(
        ttft=measured.ttft,
        total=measured.total,
        prefill_tps=measured.prefill_tps if prefill is None else prefill,
        decode_tps=measured.decode_tps if decode is None else decode,
    )
