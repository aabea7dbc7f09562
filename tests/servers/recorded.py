"""What the real TabbyAPI was seen to answer, and how a server that runs is compared with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

__all__ = ["differences", "normal"]

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "tabby_answers.json").read_text(encoding="utf-8"))["answers"]


def differences(url: str, run: str) -> dict[str, tuple[Any, Any]]:
    """Ask the server everything of one recorded run, in order; gives what differs, by name: (its answer, the recorded one)."""
    found = {}
    # A connection for each: after an error of its own the server drops it without a word.
    single = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, limits=single, timeout=20, trust_env=False) as client:
        for recorded in (answer for answer in RECORDED if answer["run"] == run):
            request = recorded["request"]
            body = {"json": request["json"]} if "json" in request else {"content": request.get("text", "")}
            got = client.request(request["method"], request["path"], headers=request["headers"], **body)
            answer = got.status_code, got.headers["content-type"], normal(got.text)
            expected = recorded["status"], recorded["content_type"], normal(recorded["body"])
            if answer != expected:
                found[recorded["name"]] = (answer, expected)
    return found


def normal(body: str) -> Any:
    """A body as data, with what no two answers share (ids, times, speeds) replaced by what it is."""
    if body.startswith(("data:", ":")):
        assert body.endswith("\r\n\r\n")
        return sorted((_event(event) for event in body.split("\r\n\r\n")[:-1]), key=_choice)
    try:
        return _normal("", json.loads(body))
    except ValueError:
        return body


def _choice(event: Any) -> int:
    """Which of several answers an event belongs to: they come in no certain order."""
    return event["choices"][0]["index"] if isinstance(event, dict) and "choices" in event else -1 if event == "a ping" else 9


def _event(event: str) -> Any:
    if event.startswith(": ping - "):
        return "a ping"
    data = event.removeprefix("data: ")
    return data if data == "[DONE]" else _normal("", json.loads(data))


def _normal(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _normal(name, part) for name, part in value.items()}
    if isinstance(value, list):
        parts = [_normal(key, part) for part in value]
        return sorted(parts, key=lambda row: row["id"]) if key == "data" else parts  # models come as the file system has them
    if key in ("created", "time", "prompt_time", "completion_time", "total_time", "completion_tokens_per_sec"):
        return key
    return re.sub(r"[0-9a-f]{24,32}", "…", value) if isinstance(value, str) else value
