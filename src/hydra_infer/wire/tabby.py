"""TabbyAPI's dialect: OpenAI's words with its own traps (as of commit e632af4, August 2026, measured against the real app)."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..plain import brief, count_of, table_of
from .bounds import load
from .exchange import broken
from .openai import OpenAIExchange, Target
from .question import Fields, Question
from .trouble import Failure, Trouble

__all__ = ["ANY_MODEL", "TabbyExchange", "loaded_model"]

# The name to use for "whatever is loaded there": TabbyAPI answers under any name with the model that it has.
ANY_MODEL = "default"

# A streamed completion without max_tokens always fails there ("Completion aborted"); a number beyond any context is taken.
_ENDLESS = 1_000_000


class TabbyExchange(OpenAIExchange):
    """One attempt at a TabbyAPI server. Its pings are comments, and pings are no tokens."""

    def __init__(self, question: Question, target: Target) -> None:
        changes, self.warnings = _made_valid(question)
        body = Fields({**question.body.fields, **changes}) if changes else question.body
        super().__init__(question._replace(body=body), target)

    def _refusal(self, failure: Failure) -> Failure:
        # With `model` in the request and nothing loaded, or a load on its way, it answers 500 in plain text instead of 503.
        if failure.status == 500 and failure.content_type.startswith("text/plain"):
            return dataclasses.replace(failure, message="HTTP 500: no model is loaded there (or one is being loaded)")
        return failure

    def _untrue(self, data: dict[str, Any]) -> Failure | None:
        asked, served = self._target.local_name, data.get("model") or data.get("model_name")
        if isinstance(served, str) and asked not in (served, ANY_MODEL):
            return Failure(Trouble.NO_MODEL, f"it has {brief(served)} loaded, not {asked!r}", status=200)
        for choice in data.get("choices") or []:
            # An unload in the middle of an answer ends it with "stop" and no reason for the stop.
            if choice.get("finish_reason") == "stop" and "eos_reason" in choice and choice["eos_reason"] is None:
                return broken("the answer was cut: finish_reason is stop, eos_reason is null (was the model unloaded?)")
        return None


def loaded_model(body: bytes) -> dict[str, int | None]:
    """The one loaded model by a GET /v1/model answer, with its longest sequence. Raises ValueError."""
    data = load(body)
    if not isinstance(data, dict) or not isinstance(data.get("id"), str) or not data["id"]:
        raise ValueError("no model card in the answer to /v1/model")
    context = count_of(table_of(data.get("parameters")).get("max_seq_len"))
    return {data["id"]: context, ANY_MODEL: context}


def _made_valid(question: Question) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields that TabbyAPI would refuse or leave out, put right; and what the caller should know of it."""
    fields = question.body.fields
    changes: dict[str, Any] = {}
    warnings: list[str] = []
    for name in ("presence_penalty", "frequency_penalty"):
        if isinstance(fields.get(name), int | float) and fields[name] < 0:
            changes[name] = 0
            warnings.append(f"TabbyAPI takes no negative {name}: {fields[name]} was sent as 0")
    tools = fields.get("tools")
    if isinstance(tools, list):
        described = [_described(tool) for tool in tools]
        if described != tools:
            changes["tools"] = described  # OpenAI makes both optional, TabbyAPI answers 422 without them
    if question.path == "/completions" and question.stream and fields.get("max_tokens") is None:
        changes["max_tokens"] = _ENDLESS
    if not question.stream and question.path != "/embeddings":
        changes["stream_options"] = {"include_usage": True}  # it counts tokens only when asked, in plain calls too
    return changes, tuple(warnings)


def _described(tool: Any) -> Any:
    if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
        return tool
    function = {"description": "", "parameters": {"type": "object", "properties": {}}} | tool["function"]
    return {**tool, "function": function}
