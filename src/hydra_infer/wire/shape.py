"""Whether an answer has the shape that everything behind it counts on: OpenAI's, as far as it is read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .bounds import MAX_CHOICES

__all__ = ["flaw_in"]


def flaw_in(data: Mapping[str, Any]) -> str | None:
    """What keeps an event or a body from being read; None when nothing does. What is only passed on may be anything."""
    choices = data.get("choices")
    if choices is None:
        return None
    if type(choices) is not list or len(choices) > MAX_CHOICES:
        return "choices is not a list, or far too long"
    for choice in choices:
        if type(choice) is not dict:
            return "a choice is not an object"
        index, reason = choice.get("index"), choice.get("finish_reason")
        if (index is not None and not _is_place(index)) or (reason is not None and type(reason) is not str):
            return "a choice's index or finish_reason is none"
        for piece in (choice.get("delta"), choice.get("message")):
            if piece is None:
                continue
            if type(piece) is not dict:
                return "a choice's delta or message is not an object"
            if "tool_calls" in piece and (flaw := _flaw_in_calls(piece["tool_calls"])):
                return flaw
    return None


def _flaw_in_calls(calls: Any) -> str | None:
    if calls is None:
        return None
    if type(calls) is not list or len(calls) > MAX_CHOICES:
        return "tool_calls is not a list, or far too long"
    for call in calls:
        function = call.get("function") or {} if type(call) is dict else None
        if type(function) is not dict or not _is_place(call.get("index")):
            return "a tool call is not an object with a function"
        if not all(_is_text(value) for value in (call.get("id"), function.get("name"), function.get("arguments"))):
            return "a tool call's id, name or arguments are not text"
    return None


def _is_text(value: Any) -> bool:
    return value is None or type(value) is str


def _is_place(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < MAX_CHOICES)
