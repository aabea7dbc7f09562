"""Commands about servers: status, models, load, unload, pull."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..errors import ConfigError
from .progress import progress
from .words import command, key_in, print_json, router_of, servers, show, tokens

__all__ = ["add_servers"]


def add_servers(commands: Any) -> None:
    status = command(commands, "status", _status, "ask servers how they are (exit status 1: not all well)")
    servers(status, required=True)
    models = command(commands, "models", _models, "which models these servers serve (exit status 1: none)")
    servers(models, required=True)

    load = command(commands, "load", _load, "have a server load a model (TabbyAPI, Ollama), and wait until it has")
    load.add_argument("model", help="its name in the fleet file; with --url the server's, which for TabbyAPI is its folder's")
    load.add_argument("--context", type=tokens, metavar="TOKENS", help="8192 or 32k; default: the server's")
    load.add_argument("--cache", help="TabbyAPI: fp16, q8, q6, q4, or 'k,v' bits")
    load.add_argument("--keep-alive", metavar="TIME", help="Ollama: how long it stays, for example 10m; default: the server's")
    load.add_argument("--force", action="store_true", help="load even what the plan says does not fit")
    unload = command(commands, "unload", _unload, "have a server give up a model")
    unload.add_argument("model")
    pull = command(commands, "pull", _pull, "have an Ollama server fetch a model, or fetch a folder from Hugging Face")
    pull.add_argument("model", help="Ollama's name of it; with --into a repository: owner/name")
    pull.add_argument("--into", metavar="FOLDER", help="where the folder of a Hugging Face repository is to lie, here")
    pull.add_argument("--revision", default="main", help="its branch: for EXL3 the rate, for example 4.0bpw (default: main)")
    pull.add_argument(
        "--hub", metavar="URL", default=os.environ.get("HF_ENDPOINT"), help="a mirror; default: HF_ENDPOINT, or Hugging Face"
    )
    pull.add_argument("--token-env", metavar="VARIABLE", help="the environment variable that holds a Hugging Face token")
    for one in (load, unload, pull):
        servers(one, required=one is not pull)
        one.add_argument("--backend", metavar="HOST:PORT", help="which of several servers; default: the first that can")
        one.add_argument("--timeout", type=float, metavar="SECONDS", help="the longest silence (default: 600)")


def _status(arguments: argparse.Namespace) -> int:
    with router_of(arguments) as router:
        status = router.status()
    show(status, arguments)
    return 0 if status.healthy and not _unsettled(arguments) else 1


def _models(arguments: argparse.Namespace) -> int:
    with router_of(arguments) as router:
        models = router.models()
    if arguments.json:
        print_json(models)
    else:
        print(*(f"{name}: {', '.join(backends)}" for name, backends in models.items()), sep="\n", end="\n" if models else "")
    if not models:
        print("hydra-infer: no server told of a model: hydra-infer status says how they are", file=sys.stderr)
    return 0 if models else 1


def _load(arguments: argparse.Namespace) -> int:
    if arguments.fleet and not arguments.force:
        from ..fleet.fleet import Fleet
        from ..ops.switch import raise_if_unfit

        wish = {"backend": arguments.backend, "context": arguments.context, "cache": arguments.cache}
        raise_if_unfit(Fleet.from_file(arguments.fleet), arguments.model, **wish)
    with router_of(arguments) as router, progress() as report:
        done = router.load(
            arguments.model,
            backend=arguments.backend,
            context=arguments.context,
            cache=arguments.cache,
            keep_alive=arguments.keep_alive,
            force=arguments.force,
            progress=report,
            timeout=arguments.timeout,
        )
    show(done, arguments)
    return 0


def _unload(arguments: argparse.Namespace) -> int:
    with router_of(arguments) as router:
        show(router.unload(arguments.model, backend=arguments.backend, timeout=arguments.timeout), arguments)
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    if arguments.into:
        return _fetch(arguments)
    if not (arguments.url or arguments.fleet):
        raise ConfigError("pull needs a server (--url, --fleet), or --into FOLDER for a Hugging Face repository")
    with router_of(arguments) as router, progress() as report:
        done = router.pull(arguments.model, backend=arguments.backend, progress=report, timeout=arguments.timeout)
    show(done, arguments)
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from ..ops.hub import HUB, fetch

    where = {"address": arguments.hub or HUB, "revision": arguments.revision}
    token = key_in(arguments.token_env) if arguments.token_env else None
    with progress() as report:
        folder = fetch(arguments.model, arguments.into, token=token, progress=report, **where)
    if arguments.json:
        print_json({"folder": str(folder)})
    else:
        print(f"{folder} is whole")
    return 0


def _unsettled(arguments: argparse.Namespace) -> bool:
    """Whether a switch by this fleet file was interrupted; said where people see it beside what is printed."""
    from ..ops.switch import unsettled

    told = unsettled(arguments.fleet) if arguments.fleet else None
    if told is not None:
        print(f"hydra-infer: {': '.join(told)}", file=sys.stderr)
    return told is not None
