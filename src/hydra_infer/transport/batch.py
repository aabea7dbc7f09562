"""Many chats at once: order kept, errors in place; by threads or in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..engines.progress import Progress, reporting
from ..errors import HydraError
from ..reply import Reply
from .face import Messages

__all__ = ["abatch", "batch"]

Replies = list[Reply | HydraError]


def batch(ask: Callable[[Messages], Reply], prompts: Sequence[Messages], parallel: int, progress: Progress) -> Replies:
    """What `ask` says to each prompt, asked by `parallel` threads."""

    def one(messages: Messages) -> Reply | HydraError:
        try:
            return ask(messages)
        except HydraError as error:
            return error

    replies: Replies = []
    with reporting(progress) as report, ThreadPoolExecutor(max(1, parallel), "hydra-batch") as threads:
        for reply in threads.map(one, prompts):
            replies.append(reply)
            report(len(replies) / len(prompts), f"{len(replies)} of {len(prompts)}")
    return replies


async def abatch(
    ask: Callable[[Messages], Awaitable[Reply]], prompts: Sequence[Messages], parallel: int, progress: Progress
) -> Replies:
    """The same in this event loop; whatever ends it early cancels the calls that are left."""
    free = asyncio.Semaphore(max(1, parallel))

    async def one(messages: Messages) -> Reply | HydraError:
        async with free:
            try:
                return await ask(messages)
            except HydraError as error:
                return error

    tasks = [asyncio.create_task(one(messages)) for messages in prompts]
    replies: Replies = []
    try:
        with reporting(progress) as report:
            for task in tasks:
                replies.append(await task)
                report(len(replies) / len(tasks), f"{len(replies)} of {len(tasks)}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # what went wrong in the others is not what ended this
    return replies
