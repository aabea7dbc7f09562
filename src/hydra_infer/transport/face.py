"""What Router and AsyncRouter have in common: arguments to calls, events to what callers get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..engines.progress import Report
from ..errors import ConfigError
from ..reply import Embeddings, usage_of
from ..routing.call import Call
from ..routing.errand import Progressed
from ..routing.explain import Explanation
from ..routing.ledger import Ledger
from ..units import parse_tokens
from ..wire.exchange import Event
from ..wire.fields import CHAT, COMPLETION, EMBEDDING, as_messages, check_fields
from ..wire.lifecycle import Wish
from ..wire.question import Fields, Question
from .answer import Told
from .desk import Desk
from .switchboard import Switchboard

__all__ = ["Face", "Messages", "deliver_to", "embeddings_of", "wish_of"]

Messages = str | Sequence[Mapping[str, Any]]

_OPTIONS = ("timeout", "deadline", "fallback", "tags", "extra_body", "extra_headers")


class Face:
    """Before a call is made: tell options from fields, check them, build the question; and what needs no server."""

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


def wish_of(context: int | str | None, cache: str | None, keep_alive: str | float | None) -> Wish:
    """How a model is to be loaded, from what people pass."""
    return Wish(None if context is None else parse_tokens(context), cache, keep_alive)


def deliver_to(report: Report) -> Callable[[Progressed], None]:
    """Progress events to a function of (fraction, message); an event without a fraction repeats the last one."""
    last = 0.0

    def deliver(event: Progressed) -> None:
        nonlocal last
        last = last if event.fraction is None else event.fraction
        report(last, f"{event.backend}: {event.message}")

    return deliver


def embeddings_of(answer: Told, events: list[Event]) -> Embeddings:
    """An answer's vectors, in the order of the texts."""
    body = events[0].data
    rows = sorted(body["data"], key=lambda row: row.get("index") or 0)
    return Embeddings(
        embeddings=[row["embedding"] for row in rows],
        model=answer.model,
        usage=usage_of(body),
        backend=answer.backend,
        attempts=answer.outcomes,
        raw=body,
    )
