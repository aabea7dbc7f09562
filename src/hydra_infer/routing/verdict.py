"""How a call ends that got no answer: as an error for our own callers, as an HTTP answer for foreign clients."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import AllBackendsFailed, ContextTooLong, DeadlineExceeded, HydraError, Refused, UnknownModel
from ..wire.trouble import Failure, Trouble, overflow_numbers
from .call import Outcome

__all__ = ["GaveUp", "error_answer", "unknown_model"]


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The failover flow's last word. `final` is the one failure to return as it came (the caller's own mistake)."""

    model: str
    outcomes: tuple[Outcome, ...]
    final: Failure | None = None
    out_of_time: bool = False
    resting: tuple[str, ...] = ()
    known: tuple[str, ...] | None = None  # when nobody serves the model: the names that are served
    tags: frozenset[str] = frozenset()

    @property
    def unknown(self) -> bool:
        """Nobody serves the model, and everybody could be asked."""
        return self.known is not None and not self.resting

    def error(self) -> HydraError:
        """The error to raise for our own callers."""
        if self.unknown:
            return unknown_model(self.model, self.known or (), self.tags)
        story = "; ".join([*_told_once(map(str, self.outcomes)), *self.resting]) or "no backend could be asked"
        if self.out_of_time:
            return DeadlineExceeded(
                f"no answer for {self.model!r} within the deadline: {story}",
                hint="allow more time with deadline=…",
                attempts=self.outcomes,
            )
        if self.final is None:
            return AllBackendsFailed(
                f"no backend answered for {self.model!r}: {story}",
                hint="router.status() shows each one",
                attempts=self.outcomes,
            )
        last = self.outcomes[-1]
        if self.final.trouble is Trouble.OVERFLOW:
            tokens, context = overflow_numbers(self.final)
            return ContextTooLong(
                f"{last.backend} refused the prompt: {self.final.message}",
                hint="shorten it, or route to a backend with a larger context",
                tokens=tokens,
                context=context,
            )
        return Refused(
            f"{last.backend} refused the request: {self.final.message}",
            hint="the request itself is at fault, so no other backend was asked",
            backend=last.backend,
            status=self.final.status,
            body=self.final.body[:2000].decode("utf-8", "replace"),
        )

    def answer(self) -> tuple[int, bytes]:
        """Status and JSON body for a foreign client."""
        if self.final is not None and self.final.trouble is Trouble.OVERFLOW:
            return 400, error_answer(str(self.final.message), "context_length_exceeded", kind="invalid_request_error")
        if self.final is not None:
            # As it came, where it is what we say it is.
            whole = self.final.body if self.final.content_type.partition(";")[0].strip() == "application/json" else b""
            return self.final.status or 400, whole or error_answer(self.final.message, "bad_request")
        if self.unknown:
            return 404, error_answer(str(self.error()), "model_not_found", kind="invalid_request_error")
        code = "deadline_exceeded" if self.out_of_time else "all_backends_failed"
        return (504 if self.out_of_time else 503), error_answer(
            self.error().message, code, attempts=[outcome.to_dict() for outcome in self.outcomes]
        )


def _told_once(stories: Iterable[str]) -> list[str]:
    """A lone backend that is asked again mostly says the same again."""
    runs = [(story, len(list(same))) for story, same in itertools.groupby(stories)]
    return [story if times == 1 else f"{story} ({times} times)" for story, times in runs]


def unknown_model(model: str, known: Sequence[str], tags: frozenset[str] = frozenset()) -> UnknownModel:
    """The error for a name that no backend serves, with the nearest ones that are served."""
    if model in known:
        return UnknownModel(
            f"no backend that serves {model!r} has the tags {', '.join(sorted(tags))}",
            hint="router.status() shows each one",
        )
    close = difflib.get_close_matches(model, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"served are: {', '.join(sorted(known)) or 'none yet'}"
    return UnknownModel(f"no backend serves the model {model!r}", hint=hint)


def error_answer(message: str, code: str, *, kind: str | None = None, **facts: object) -> bytes:
    """An OpenAI-shaped error body."""
    return json.dumps({"error": {"message": message, "type": kind or code, "param": None, "code": code, **facts}}).encode()
