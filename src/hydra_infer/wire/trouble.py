"""What can go wrong with one server, by what to do about it; and how a server's own words are sorted into that."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

__all__ = ["Failure", "Trouble", "error_message", "failure_of_error", "failure_of_status", "overflow_numbers"]


class Trouble(StrEnum):
    """One value per reaction, not per cause."""

    UNREACHABLE = "unreachable"  # nothing there: refused, no such host, connection lost before an answer
    SILENT = "silent"  # there, but no token within the time allowed
    BROKEN = "broken"  # answered with something that is no answer
    FAILED = "failed"  # answered that it failed (5xx, an error event)
    BUSY = "busy"  # 429, 503: come back later
    LOADING = "loading"  # 503: the model is on its way
    MISCONFIGURED = "misconfigured"  # 401, 403: our key is wrong here
    NO_MODEL = "no model"  # 404: this server lacks the model
    NO_PATH = "no path"  # 404, 405, 501: this server lacks the endpoint
    OVERFLOW = "overflow"  # the prompt is longer than this server's context
    CALLER = "caller"  # 400, 413, 422: the request itself is at fault, everywhere


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one attempt gave no answer. `status`, `headers` and `body` are the server's, for the caller's own mistakes."""

    trouble: Trouble
    message: str
    status: int | None = None
    retry_after: float | None = None
    body: bytes = b""
    content_type: str = ""
    limit: str | None = None  # which of our timers expired, where one did


# Texts by which servers say that a prompt is too long. OpenAI, vLLM and TabbyAPI share the code; llama.cpp has its own type;
# Ollama and SGLang have only sentences.
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size_error|maximum context length|exceeds the (available )?context"
    r"|longer than the (model'?s )?context|input length exceeds|prompt is too long",
    re.IGNORECASE,
)
# llama.cpp's fields; the sentences of llama.cpp, TabbyAPI, vLLM and OpenAI.
_TOKENS = (
    r'"n_prompt_tokens":\s*(\d{1,12})',
    r"prompt length (\d{1,12})",
    r"request \((\d{1,12}) tokens\)",
    r"resulted in (\d{1,12}) tokens",
    r"requested (\d{1,12}) tokens",
)
_CONTEXT = (
    r'"n_ctx":\s*(\d{1,12})',
    r"context size of (\d{1,12})",
    r"context size \((\d{1,12}) tokens\)",
    r"maximum context length is (\d{1,12})",
)
_MODEL_MISSING = re.compile(
    r"model_not_found|model\b.*\b(not found|does not exist|unknown)|no such model|unknown model",
    re.IGNORECASE | re.DOTALL,
)
_LOADING = re.compile(r"\bloading\b", re.IGNORECASE)


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure that an HTTP status other than 2xx tells of. `headers` have lower-case names."""
    message = error_message(body)
    return Failure(
        trouble=_trouble(status, message, body),
        message=f"HTTP {status}: {message}" if message else f"HTTP {status}",
        status=status,
        retry_after=_retry_after(headers),
        body=body,
        content_type=headers.get("content-type", ""),
    )


def failure_of_error(error: Any, body: bytes = b"") -> Failure:
    """The failure that an {"error": …} tells of which came with status 200, whole or inside a stream."""
    message = error_message(json.dumps({"error": error}).encode()) or "an error without a message"
    code = error.get("code") if isinstance(error, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    # An error sent under status 200 was found while answering: the server's, unless it names the prompt's length.
    trouble = Trouble.OVERFLOW if _OVERFLOW.search(f"{message} {error}") else _trouble(status, message, body)
    return Failure(trouble=trouble, message=message, status=status, body=body)


def error_message(body: bytes) -> str:
    """The sentence in an error body: OpenAI's error.message, TabbyAPI's and FastAPI's detail, Ollama's error string."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return _plain(body)
    for key in ("error", "detail", "message"):
        if isinstance(data, Mapping) and data.get(key) is not None:
            data = data[key]
    if isinstance(data, str):
        # Ollama relays llama.cpp's errors as JSON inside a JSON string.
        return error_message(data.encode("utf-8", "replace")) if data.startswith('{"error"') else data[:500]
    if isinstance(data, list) and data and isinstance(data[0], Mapping):
        return "; ".join(map(_finding, data[:3]))[:500]
    return json.dumps(data)[:500] if data else ""


def overflow_numbers(failure: Failure) -> tuple[int | None, int | None]:
    """The prompt's tokens and the server's context, where an overflow names them."""
    text = f"{failure.message} {failure.body[:2000].decode('utf-8', 'replace')}"
    tokens, context = (
        next((int(m[1]) for p in ps if (m := re.search(p, text, re.IGNORECASE))), None) for ps in (_TOKENS, _CONTEXT)
    )
    return tokens, context


def _finding(item: Any) -> str:
    """One of FastAPI's: where, and what."""
    if not isinstance(item, Mapping):
        return str(item)
    place = item.get("loc")
    return f"{'.'.join(map(str, place)) if isinstance(place, list) else ''}: {item.get('msg', item)}"


def _plain(body: bytes) -> str:
    text = body[:2000].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return f"an HTML page{f' titled {title.group(1).strip()!r}' if title else ''}"
    return text[:500]


def _trouble(status: int, message: str, body: bytes) -> Trouble:
    if status in (400, 413, 422, 500) and (_OVERFLOW.search(message) or _OVERFLOW.search(body[:4000].decode("utf-8", "replace"))):
        return Trouble.OVERFLOW
    if status in (401, 403):
        return Trouble.MISCONFIGURED
    if status == 404 and _MODEL_MISSING.search(f"{message} {body[:500].decode('utf-8', 'replace')}"):
        return Trouble.NO_MODEL
    if status in (404, 405, 501):
        return Trouble.NO_PATH
    if status in (408, 504):
        return Trouble.SILENT
    if status == 503 and _LOADING.search(message):
        return Trouble.LOADING
    if status in (409, 425, 429, 503):
        return Trouble.BUSY
    return Trouble.CALLER if 400 <= status < 500 else Trouble.FAILED


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from Retry-After. A date counts from the server's own Date, so that no clock is needed here."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value) if value[0].isdigit() else _date_gap(value, headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):  # TypeError: only one of the two dates has a zone
        return None
    return None if seconds is None or math.isnan(seconds) else max(0.0, min(seconds, 86_400.0))


def _date_gap(later: str, now: str) -> float | None:
    return (parsedate_to_datetime(later) - parsedate_to_datetime(now)).total_seconds() if now else None
