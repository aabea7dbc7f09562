"""Words: what commands have in common: options, what they mean, and how results are printed."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..units import parse_tokens

if TYPE_CHECKING:
    from ..router import Router

__all__ = [
    "cards",
    "command",
    "gpu_names",
    "key_in",
    "key_of",
    "numbers",
    "print_json",
    "router_of",
    "servers",
    "show",
    "tokens",
]


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:  # noqa: A002
    made: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    made.set_defaults(run=run)
    return made


def servers(one: argparse.ArgumentParser, *, required: bool) -> None:
    which = one.add_mutually_exclusive_group(required=required)
    which.add_argument("--url", action="append", help="a server; may be given several times, in order")
    which.add_argument("--fleet", metavar="FILE", help="the servers of a hydra.yaml")
    one.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the servers' key")
    one.add_argument("--json", action="store_true")


def cards(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--gpus",
        action="append",
        metavar="NAMES",
        help="'RTX 5090, RTX 4090'; 'name:48:960' is a card of 48 GiB and 960 GB/s; 'none'; default: this machine's",
    )


def tokens(text: str) -> int:
    try:
        return parse_tokens(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def gpu_names(given: list[str] | None) -> list[str] | None:
    """--gpus 'RTX 5090, RTX 4090' and --gpus twice mean the same; --gpus none: no card."""
    if given is None:
        return None
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    return [] if names == ["none"] else names


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def router_of(arguments: argparse.Namespace) -> Router:
    """A router over the servers named by --url or --fleet."""
    from ..router import Router

    if arguments.fleet and arguments.api_key_env:
        raise ConfigError("--api-key-env goes with --url", hint="a fleet file says for each server where its key is")
    if arguments.fleet:
        return Router.from_file(arguments.fleet)
    key = key_of(arguments)
    return Router.from_urls(arguments.url, api_keys=dict.fromkeys(arguments.url, key) if key else None)


def key_in(variable: str) -> str:
    """The key in an environment variable; on the command line itself it would show in the process list."""
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set", hint="give the name of one that holds the key")
    return key


def key_of(arguments: argparse.Namespace) -> str | None:
    """The key that --api-key-env names; None without it."""
    return key_in(arguments.api_key_env) if arguments.api_key_env else None


def show(found: Any, arguments: argparse.Namespace) -> None:
    """A result as its text, or with --json as its plain data."""
    if arguments.json:
        print_json(found.to_dict())
    else:
        print(found)


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))
