"""Asking commands: demo, chat, serve."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .words import command, key_in, print_json, router_of, servers, tokens

if TYPE_CHECKING:
    from ..router import Router

__all__ = ["add_ask"]


def add_ask(commands: Any) -> None:
    command(commands, "demo", _demo, "a plan, two local servers, a failover and an answer, on this machine")

    chat = command(commands, "chat", _chat, "ask a server, or a model loaded here; without a message, line by line")
    chat.add_argument("message", nargs="*")
    chat.add_argument("--model", help="the model's name; not needed where there is only one")
    chat.add_argument(
        "--load", default="smollm2", metavar="MODEL", help="what to load here when no --url is given (default: smollm2)"
    )
    chat.add_argument("--context", type=tokens, default=4096, metavar="TOKENS")
    chat.add_argument("--threads", type=int)
    chat.add_argument("--max-tokens", type=int)
    chat.add_argument("--temperature", type=float)
    servers(chat, required=False)

    serve = command(commands, "serve", _serve, "these servers behind one OpenAI-compatible address")
    servers(serve, required=True)
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8100)
    serve.add_argument("--serve-key-env", metavar="VARIABLE", help="holds the key that clients must show; needed beyond loopback")
    serve.add_argument("--cors", metavar="ORIGIN", help="the one origin that browsers may come from")


def _demo(_: argparse.Namespace) -> int:
    from ..ops.demo import demo

    demo()
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(router_of(arguments) if arguments.url or arguments.fleet else _local(arguments, stack))
        model = arguments.model or _only_model(router)
        history: list[dict[str, Any]] = []
        for question in [" ".join(arguments.message)] if arguments.message else _lines():
            history.append({"role": "user", "content": question})
            history.append({"role": "assistant", "content": _say(router, model, history, arguments)})
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from ..serve import serve

    key = key_in(arguments.serve_key_env) if arguments.serve_key_env else None
    with router_of(arguments) as router:
        serve(router, host=arguments.host, port=arguments.port, api_key=key, cors=arguments.cors)
    return 0


def _local(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Router:
    """A router over one engine, loaded in this process."""
    from ..engines.load import load
    from ..router import Router
    from ..routing.backend import Backend

    engine = stack.enter_context(load(arguments.load, context=arguments.context, threads=arguments.threads))
    return Router([Backend.engine(engine)])


def _only_model(router: Router) -> str:
    models = list(router.models())
    if len(models) != 1:
        raise ConfigError(f"--model is needed: served are {', '.join(models) or 'none (no server answered)'}")
    return models[0]


def _lines() -> Iterator[str]:
    """The questions that a person types, or a pipe brings, one a line."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _say(router: Router, model: str, messages: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    fields = {"max_tokens": arguments.max_tokens, "temperature": arguments.temperature}
    with router.stream(model, messages, **fields) as stream:
        for chunk in stream:
            if not arguments.json:
                print(chunk.text, end="", flush=True)
    if arguments.json:
        print_json(stream.reply.to_dict())
    else:
        print()
    return stream.text
