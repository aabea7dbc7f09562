"""One way to ask for both faces, so that every case runs sync and async; async over each of the two HTTP libraries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hydra_infer import Reply, Router

# What the fixture `face` (conftest.py) makes of them: "sync" or "async", the latter with aiohttp installed or not.
LOOPED = ("async-httpcore", "async-aiohttp")
FACES = ("sync", *LOOPED)
both = pytest.mark.parametrize("face", FACES, indirect=True)
Ask = Callable[..., Reply]


def chat(face: str, router: Router, **fields: Any) -> Reply:
    """router.chat("m", "hi"), by either face."""
    if face == "sync":
        return router.chat("m", "hi", **fields)
    return asyncio.run(router.aio.chat("m", "hi", **fields))


def stream(face: str, router: Router, pieces: list[str], **fields: Any) -> Reply:
    """router.stream("m", "hi") read to its end, each piece noted as it comes."""
    if face == "sync":
        with router.stream("m", "hi", **fields) as answer:
            pieces.extend(chunk.text for chunk in answer)
        return answer.reply

    async def main() -> Reply:
        async with await router.aio.stream("m", "hi", **fields) as answer:
            async for chunk in answer:
                pieces.append(chunk.text)  # noqa: PERF401 - what had come must be there when the stream breaks
        return answer.reply

    return asyncio.run(main())
