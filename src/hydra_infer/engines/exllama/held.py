"""Held: the text that an engine held back, as the possible beginning of a stop string, when another end came first."""

from __future__ import annotations

from typing import Any

__all__ = ["with_held"]


def with_held(result: dict[str, Any]) -> dict[str, Any]:
    """A last result with what belongs to the answer of what was held back.

    After a stop token both engines leave it, with that token, beside the result (exllamav3 1.6.5 job.py and exllamav2 0.3.2
    dynamic.py, emit).
    """
    held: dict[str, Any] = result.get("held", {})
    if result.get("eos_reason") != "stop_token" or not held.get("text"):
        return result
    text = held["text"].removesuffix(result["eos_triggering_token_str"])
    rows = {name: held[name][:, :-1] for name in held if name != "text"}
    return {**result, **rows, "text": result.get("text", "") + text}
