"""LiteLLM's dialect: OpenAI's words, and headers that tell which deployment behind it answered and what that cost.

Header names as its proxy sends them (docs.litellm.ai/docs/proxy/response_headers, October 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .openai import OpenAIExchange

__all__ = ["LiteLLMExchange"]

_HEADERS = {
    "deployment": "x-litellm-model-id",
    "url": "x-litellm-model-api-base",
    "group": "x-litellm-model-group",
    "cost": "x-litellm-response-cost",
    "retries": "x-litellm-attempted-retries",
    "fallbacks": "x-litellm-attempted-fallbacks",
}
_NUMBERS = {"cost": float, "retries": int, "fallbacks": int}


class LiteLLMExchange(OpenAIExchange):
    """One attempt at a LiteLLM proxy. A fallback of its own, which answers with another model, is a warning."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        super().head(status, headers)
        self.upstream = _told(headers)
        if self.upstream and self.upstream.get("fallbacks"):
            by = self.upstream.get("group") or self.upstream.get("deployment") or "another model"
            self.warnings = (*self.warnings, f"LiteLLM fell back from {self._target.local_name!r}: {by!r} answered")


def _told(headers: Mapping[str, str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for name, header in _HEADERS.items():
        if text := headers.get(header):
            try:
                found[name] = _NUMBERS.get(name, str)(text)
            except ValueError:
                continue  # "None" stands there where it does not know
    return found or None
