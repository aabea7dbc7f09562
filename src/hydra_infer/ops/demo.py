"""The demonstration: this machine's cards, a plan, two real servers and a dead one, and an answer that came through."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from ..engines.llama_server import LlamaServer
from ..hardware.nvml import gpus
from ..models.bundled import model_file
from ..planning import plan
from ..router import Router
from ..routing.backend import Backend
from ..transport.stream import Stream

__all__ = ["demo"]

MODEL = "smollm2"
CONTEXT = 2048
Say = Callable[..., Any]  # print, or something like it


def demo(say: Say = print) -> None:
    """Tell the whole story to `say`. Raises HydraError when a step fails; leaves no process behind."""
    cards = gpus()
    say("1. Cards")
    for card in cards:
        say(f"   {card}")
    if not cards:
        say("   no NVIDIA card (or driver) here: everything below runs on the CPU")

    say(f"\n2. Plan: will {MODEL} fit, before anything is loaded?")
    planned = plan(model_file(MODEL), gpus=[], context=CONTEXT)
    say(_indent(str(planned)))
    planned.raise_if_unfit()

    say("\n3. Servers: two llama.cpp, and one address where nobody listens")
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(_dead_address())
        first, second = (stack.enter_context(_server(name, say)) for name in ("first", "second"))
        backends = [Backend.openai(dead, models=[MODEL], name="dead")]
        backends += [
            Backend.openai(server.url, models=[MODEL], name=server.name, api_key=server.api_key) for server in (first, second)
        ]
        router = stack.enter_context(Router(backends))

        say("\n4. Route: who would be asked?")
        say(_indent(str(router.explain(MODEL))))
        _answer(router, "What does a GPU do? Answer in one sentence.", say)

        say("\n5. The server that answered is switched off, and the next call finds the other")
        first.close()
        _answer(router, "Name three planets.", say)
        say("\n" + _indent(str(router.status())))


def _answer(router: Router, question: str, say: Say) -> None:
    say(f"\n   > {question}\n   ", end="")
    with router.stream(MODEL, question, max_tokens=48, temperature=0) as stream:
        for chunk in stream:
            say(chunk.text.replace("\n", "\n   "), end="", flush=True)
    say("\n" + _story(stream))


def _story(stream: Stream) -> str:
    reply = stream.reply
    speed = f"{reply.timings.decode_tps:.0f} tokens per second" if reply.timings.decode_tps else "speed not told"
    lines = [f"   answered by {reply.backend}: {speed}, first token after {(reply.timings.ttft or 0) * 1000:.0f} ms; tried were"]
    lines += [f"     {position}. {attempt}" for position, attempt in enumerate(reply.attempts, 1)]
    return "\n".join(lines)


@contextlib.contextmanager
def _server(name: str, say: Say) -> Iterator[LlamaServer]:
    # One thread: on two busy cores llama.cpp with two is about ten times slower than with one.
    with LlamaServer(model_file(MODEL), name=name, context=CONTEXT, threads=1) as server:
        server.start()
        say(f"   {name}: {server.url} (pid {server.pid}, {server.memory() or 'memory not told'})")
        yield server


@contextlib.contextmanager
def _dead_address() -> Iterator[str]:
    """An address that refuses connections: its port is taken, so that nobody else can come to listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def _indent(text: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in text.splitlines())
