"""What servers answer: streams of events and lines, bodies, lists, refusals; read by each dialect and said again to clients."""

from __future__ import annotations

import gzip
import json
import zlib
from types import SimpleNamespace
from typing import Any

from hydra_infer.errors import HydraError
from hydra_infer.reply import Assembler, usage_of
from hydra_infer.transport.face import embeddings_of
from hydra_infer.transport.rendering import ChatRendering, ResponsesRendering
from hydra_infer.wire.dialect import DIALECTS
from hydra_infer.wire.exchange import Event
from hydra_infer.wire.lifecycle import LIFECYCLES, Wish
from hydra_infer.wire.lines import Lines
from hydra_infer.wire.openai import Target as Address
from hydra_infer.wire.openai import rename
from hydra_infer.wire.question import Fields, Question
from hydra_infer.wire.sse import SSEParser
from hydra_infer.wire.trouble import Failure, error_message, failure_of_status, overflow_numbers

from .answers_to_begin_with import starts_lifecycle, starts_lists, starts_ollama, starts_openai, starts_refusals, starts_sse
from .target import Dice, Target, pieces

__all__ = ["TARGETS"]

ADDRESS = Address("http://box:5000", "local", {}, context=4096)
PATHS = ("/chat/completions", "/chat/completions", "/completions", "/embeddings")
STATUSES = (200, 200, 200, 200, 400, 404, 500, 503, 307)


# ---- bytes to events and lines ---------------------------------------------------------------------------------------


def run_sse(data: bytes) -> None:
    dice = Dice(data, 1)
    expected = _events_by_the_book(dice.rest)
    for size in (1 + dice.below(7), 4096):
        parser = SSEParser()
        found = [event for piece in pieces(dice.rest, size) for event in parser.feed(piece)] + parser.end()
        assert found == expected


def _events_by_the_book(stream: bytes) -> list[bytes]:
    """The HTML standard's reading of an event stream, for its data alone, with the last event that nothing ends."""
    found, held = [], []
    for line in [*(line.removesuffix(b"\r") for line in stream.split(b"\n")), b""]:
        if line.startswith(b"data:"):
            held.append(line[5:].removeprefix(b" "))
        elif not line:
            if any(held) or len(held) > 1:
                found.append(b"\n".join(held))
            held = []
    return found


def run_lines(data: bytes) -> None:
    dice = Dice(data, 1)
    expected = [line.removesuffix(b"\r") for line in dice.rest.split(b"\n")]
    if not dice.rest or dice.rest.endswith(b"\n"):
        expected.pop()
    for size in (1 + dice.below(7), 4096):
        lines = Lines()
        found = [line for piece in pieces(dice.rest, size) for line in lines.feed(piece)] + lines.end()
        assert found == expected


# ---- exchanges -------------------------------------------------------------------------------------------------------


def run_openai(data: bytes) -> None:
    dice = Dice(data, 5)
    _answer(("openai", "tabby", "litellm")[dice.below(3)], dice)


def run_ollama(data: bytes) -> None:
    _answer("ollama", Dice(data, 4))


def _answer(kind: str, dice: Dice) -> None:
    """One answer, read in two ways of cutting it, then said again in every way that callers may want it."""
    path, stream, status = PATHS[dice.below(4)], bool(dice.below(2)), STATUSES[dice.below(9)]
    flags = dice.below(256)
    stream = stream and path != "/embeddings"
    encoding, body = (
        ("", dice.rest)
        if flags % 8
        else (("gzip", gzip.compress(dice.rest)), ("deflate", zlib.compress(dice.rest)))[flags // 8 % 2]
    )
    headers = {
        "content-encoding": encoding,
        "retry-after": body[:8].decode("latin-1"),
        "location": dice.rest[:40].decode("latin-1"),
    }
    whole, cut = (_read(kind, path, stream, status, headers, pieces(body, size)) for size in (len(body) or 1, 1 + flags // 16))
    (events, exchange), (again, other) = whole, cut
    assert [event.raw for event in events] == [event.raw for event in again]
    assert _told(exchange) == _told(other)
    if exchange.failure is not None:
        overflow_numbers(exchange.failure)
        assert len(exchange.failure.message) < 2000
    elif exchange.moved is None:
        assert exchange.answered, "neither answered nor failed"
    answered = exchange.answered and exchange.failure is None
    _say_again(path, stream, events, exchange, whole=answered)


def _read(
    kind: str, path: str, stream: bool, status: int, headers: dict[str, str], parts: list[bytes]
) -> tuple[list[Event], Any]:
    fields = {"model": "said", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    exchange = DIALECTS[kind].open(Question(path, Fields(fields), "said", stream), ADDRESS)
    exchange.head(status, headers)
    if exchange.moved is not None:
        assert exchange.moved.startswith("/")
        return [], exchange
    events = [event for part in parts for event in exchange.feed(part)]
    return events + exchange.end(), exchange


def _told(exchange: Any) -> tuple[Any, ...]:
    failure = exchange.failure
    return exchange.answered, exchange.finished, failure and (failure.trouble, failure.message, failure.status), exchange.warnings


def _say_again(path: str, stream: bool, events: list[Event], exchange: Any, *, whole: bool) -> None:
    """As a Reply, as embeddings, and to foreign clients by chat completions and by Responses."""
    told: Any = SimpleNamespace(model="said", backend="a", outcomes=(), failure=exchange.failure)
    for event in events:
        assert json.loads(event.raw) == event.data or "NaN" in repr(event.data) or "nan" in repr(event.data)
        if event.data.get("usage"):
            usage = usage_of(event.data)
            assert all(
                count is None or type(count) is int
                for count in (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
            )
        if event.data.get("model") is not None:
            assert json.loads(rename(event, "said"))["model"] == "said"
    if path == "/embeddings":
        if whole:
            json.dumps(embeddings_of(told, events).to_dict())
        return
    assembler = Assembler()
    for event in events:
        assembler.whole(event.data) if event.whole else assembler.add(event.data)
    reply = assembler.reply(model="said", warnings=exchange.warnings)
    json.dumps(reply.to_dict())
    assert isinstance(reply.text, str)
    assert reply.timings.decode_tps is None or isinstance(reply.timings.decode_tps, int | float)
    asked = {"model": "said", "messages": [], "stream_options": {"include_usage": True}}
    renderings: list[Any] = [ChatRendering(Question(path, Fields(asked), "said", stream), told)]
    if path == "/chat/completions":
        renderings.append(ResponsesRendering({"input": "hi"}, told))
    for rendering in renderings:
        if stream:
            said = b"".join(map(rendering.part, events)) + rendering.last()
            assert said.endswith(b"\n\n")
        elif whole:
            json.loads(rendering.whole(events[0]))


# ---- bodies of other paths -------------------------------------------------------------------------------------------


def run_lists(data: bytes) -> None:
    """What a server has and has loaded; ValueError and RecursionError are what the callers of these take for "no answer"."""
    for kind in ("openai", "ollama", "tabby"):
        dialect = DIALECTS[kind]
        try:
            names = dialect.read_list(data)
            assert all(isinstance(name, str) for name in names)
        except (ValueError, RecursionError) as error:
            assert len(str(error)) < 1000
        if dialect.read_loaded is not None:
            try:
                loaded = dialect.read_loaded(data)
                assert all(isinstance(name, str) for name in loaded)
                assert all(context is None or type(context) is int for context in loaded.values())
            except (ValueError, RecursionError) as error:
                assert len(str(error)) < 1000


def run_lifecycle(data: bytes) -> None:
    """Loading and pulling: progress as it comes, in any pieces the same; and what is remembered of a model's card."""
    dice = Dice(data, 2)
    status, size = STATUSES[dice.below(9)], 1 + dice.below(60)
    for kind, what in (("tabby", "loading"), ("ollama", "pulling"), ("ollama", "loading")):
        told = []
        for step in (size, 4096):
            reading = getattr(LIFECYCLES[kind], what)()
            reading.head(status, {})
            advances = [advance for piece in pieces(dice.rest, step) for advance in reading.feed(piece)]
            reading.end()
            assert all(advance.fraction is None or 0 <= advance.fraction <= 1 for advance in advances)
            told.append(
                (
                    reading.done,
                    reading.failure and (reading.failure.trouble, reading.failure.message),
                    advances if reading.failure is None else None,
                )
            )
        assert told[0] == told[1]
    remember, meets = LIFECYCLES["tabby"].remember, LIFECYCLES["tabby"].meets
    assert remember is not None
    try:
        name, settings = remember(dice.rest)
        assert name
        json.dumps(settings)
        assert meets(Wish(cache="q8"), 1, dice.rest) in (True, False)
    except (ValueError, RecursionError):
        pass


def run_refusals(data: bytes) -> None:
    dice = Dice(data, 2)
    status = 300 + dice.below(256) + 5 * dice.below(9)
    text = dice.rest.decode("latin-1")
    failure = failure_of_status(status, {"retry-after": text, "date": text, "content-type": text}, dice.rest)
    assert isinstance(failure, Failure)
    assert len(failure.message) < 2000
    assert failure.retry_after is None or 0 <= failure.retry_after <= 86_400
    tokens, context = overflow_numbers(failure)
    assert all(number is None or 0 <= number < 10**18 for number in (tokens, context))
    assert isinstance(error_message(dice.rest), str)
    try:
        retrying = failure_of_status(429, {"retry-after": text.partition("\n")[0], "date": text.partition("\n")[2]}, b"")
        assert retrying.retry_after is None or 0 <= retrying.retry_after <= 86_400
    except HydraError:
        raise AssertionError from None


KEYS = (
    "choices",
    "delta",
    "content",
    "finish_reason",
    "index",
    "tool_calls",
    "function",
    "arguments",
    "usage",
    "error",
    "message",
    "model",
    "data: ",
    "[DONE]",
)
TARGETS = {
    "sse": Target(run_sse, starts_sse, ("data:", "data: ", "\n\n", "\r\n", ": ", "event: ")),
    "lines": Target(run_lines, starts_ollama, ("\r\n", "\n")),
    "openai": Target(run_openai, starts_openai, KEYS, values=True),
    "ollama": Target(
        run_ollama, starts_ollama, (*KEYS, "done", "response", "thinking", "done_reason", "embeddings", "created_at"), values=True
    ),
    "lists": Target(
        run_lists, starts_lists, ("data", "models", "id", "name", "parameters", "max_seq_len", "context_length"), values=True
    ),
    "lifecycle": Target(
        run_lifecycle,
        starts_lifecycle,
        ("status", "digest", "total", "completed", "module", "modules", "model_type", "success"),
        values=True,
    ),
    "refusals": Target(
        run_refusals,
        starts_refusals,
        ("error", "detail", "message", '"n_ctx": ', '"n_prompt_tokens": ', "GMT", "prompt length "),
        values=True,
    ),
}
