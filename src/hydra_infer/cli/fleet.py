"""Commands about a fleet file: init, render."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import ConfigError
from .words import command, key_in, print_json

__all__ = ["add_fleet"]


def add_fleet(commands: Any) -> None:
    init = command(commands, "init", _init, "write a first hydra.yaml from what answers at these addresses")
    init.add_argument("urls", nargs="*", metavar="URL", help="servers, in the order in which they are to be asked")
    init.add_argument("--out", default="hydra.yaml", metavar="FILE", help="default: hydra.yaml")
    init.add_argument("--force", action="store_true", help="write over a file that is there; a backup is made")
    init.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the servers' key")
    init.add_argument("--admin-key-env", metavar="VARIABLE", help="the one that holds TabbyAPI's admin key, to load models")
    init.add_argument("--schema", action="store_true", help="print the file's JSON Schema, for editors, and nothing else")

    render = command(commands, "render", _render, "write the servers' configuration files that a hydra.yaml means")
    render.add_argument("fleet", metavar="FILE", help="a hydra.yaml")
    render.add_argument("out", metavar="FOLDER", help="where to; what would change is shown first")
    render.add_argument("--write", action="store_true", help="also replace files that are there and differ; backups are made")


def _init(arguments: argparse.Namespace) -> int:
    from ..configs.disk import read, write
    from ..fleet.first import first_file
    from ..fleet.schema import editor_schema

    if arguments.schema:
        print_json(editor_schema())
        return 0
    if not arguments.urls:
        raise ConfigError(
            "init needs the address of at least one server", hint="for example hydra-infer init http://gpu-box:5000"
        )
    if arguments.api_key_env:
        key_in(arguments.api_key_env)  # a variable that is not set is told before anybody is asked
    there = os.path.exists(arguments.out)
    if there and not arguments.force:
        raise ConfigError(f"{arguments.out} is there already", hint="--out FILE for another, --force to write a new one over it")
    was = read(arguments.out) if there else None
    text = first_file(arguments.urls, arguments.api_key_env, arguments.admin_key_env)
    backup = write(arguments.out, text, was=was)
    print(f"wrote {arguments.out}" + (f"; what was there is {backup}" if backup else ""))
    return 0


def _render(arguments: argparse.Namespace) -> int:
    from ..fleet.fleet import Fleet

    rendering = Fleet.from_file(arguments.fleet).rendering(arguments.out)
    print(rendering.diff, end="")
    print(*(f"note: {note}" for note in rendering.notes), sep="\n", end="\n" if rendering.notes else "")
    if rendering.replaces and not arguments.write:
        print(f"nothing was written: {len(rendering.replaces)} files are there and differ (--write replaces them, with backups)")
        return 1
    backups = rendering.write()
    print(*(f"backup: {backup}" for backup in backups), f"{arguments.out} is as {arguments.fleet} says", sep="\n")
    return 0
