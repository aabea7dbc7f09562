"""An operator's commands: doctor, prestart, watch, switch."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .progress import progress
from .words import command, show, tokens

if TYPE_CHECKING:
    from ..ops.doctor.report import Report

__all__ = ["add_operate"]


def add_operate(commands: Any) -> None:
    doctor = command(commands, "doctor", _doctor, "what is wrong, and what mends it (exit status 1: something is)")
    doctor.add_argument("fleet", nargs="?", metavar="FILE", help="a hydra.yaml: its servers, and the machines it can look at")
    doctor.add_argument("--tabby-config", metavar="FILE", help="a TabbyAPI's config.yml, and the model that it names")
    doctor.add_argument("--litellm-config", metavar="FILE", help="a LiteLLM proxy's config.yaml")
    doctor.add_argument("--read-disk", action="store_true", help="also read 256 MB of a model, to time the disk")
    doctor.add_argument("--look", metavar="JSON", help=argparse.SUPPRESS)  # what another machine's doctor asks of this one
    doctor.add_argument("--json", action="store_true")

    prestart = command(commands, "prestart", _prestart, "may this TabbyAPI start? for ExecStartPre (exit status 1: no)")
    prestart.add_argument("--tabby-config", metavar="FILE", default="config.yml", help="default: config.yml, where it is started")
    prestart.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="for memory to be given back (default: 60)")
    prestart.add_argument("--kill-orphan", action="store_true", help="end a process that is proven to be this server's left-over")
    prestart.add_argument("--python", metavar="FILE", help="the interpreter that TabbyAPI is started with: proof of a left-over")
    prestart.add_argument("--record", metavar="FILE", help="what `watch --record` wrote: proof of a left-over")
    watch = command(commands, "watch", _watch, "does the right server serve the right model? by one token (exit status 1: no)")
    watch.add_argument("fleet", nargs="?", metavar="FLEET", help="a hydra.yaml: every server, by what it has loaded now")
    watch.add_argument(
        "--tabby-config", metavar="FILE", help="or the TabbyAPI of this config.yml, on this machine; it is waited for"
    )
    watch.add_argument("--pid", type=int, help="the process that should serve: systemd's $MAINPID")
    watch.add_argument("--wait", type=float, default=600.0, metavar="SECONDS", help="until it serves (default: 600)")
    watch.add_argument("--record", metavar="FILE", help="keep who serves, for prestart")
    for one in (prestart, watch):
        one.add_argument("--json", action="store_true")

    switch = command(commands, "switch", _switch, "another model on a server, proven by one token, or the old one put back")
    switch.add_argument("model", nargs="?")
    switch.add_argument("--fleet", metavar="FILE", required=True, help="a hydra.yaml; what is done is journalled beside it")
    switch.add_argument("--backend", metavar="SERVER", help="which of its servers; default: the first that lists the model")
    switch.add_argument("--context", type=tokens, metavar="TOKENS", help="default: the file's, else the server's own")
    switch.add_argument("--cache", help="TabbyAPI: fp16, q8, q6, q4, or 'k,v' bits")
    switch.add_argument("--force", action="store_true", help="load even what the plan says does not fit")
    switch.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="the longest a load may take (default: 600)"
    )
    settled = switch.add_mutually_exclusive_group()
    settled.add_argument("--resume", action="store_true", help="finish the switch that was interrupted")
    settled.add_argument("--undo", action="store_true", help="put back what was loaded before the one that was interrupted")
    switch.add_argument("--json", action="store_true")


def _doctor(arguments: argparse.Namespace) -> int:
    from ..ops.doctor.doctor import doctor
    from ..ops.doctor.machine import services_in

    report = doctor(
        arguments.fleet,
        tabby_config=arguments.tabby_config,
        litellm_config=arguments.litellm_config,
        services=services_in(arguments.look) if arguments.look else None,
        read_disk=arguments.read_disk,
    )
    return _print_report(report, arguments)


def _prestart(arguments: argparse.Namespace) -> int:
    from ..ops.prestart import prestart

    return _print_report(
        prestart(
            arguments.tabby_config,
            wait=arguments.wait,
            kill_orphan=arguments.kill_orphan,
            python=arguments.python,
            record=arguments.record,
        ),
        arguments,
    )


def _watch(arguments: argparse.Namespace) -> int:
    from ..ops.watch import watch, watch_fleet

    if (arguments.fleet is None) == (arguments.tabby_config is None):
        raise ConfigError("watch needs a hydra.yaml, or --tabby-config FILE")
    if arguments.fleet is not None:
        return _print_report(watch_fleet(arguments.fleet), arguments)
    report = watch(arguments.tabby_config, pid=arguments.pid, wait=arguments.wait, record=arguments.record)
    return _print_report(report, arguments)


def _switch(arguments: argparse.Namespace) -> int:
    from ..ops.switch import settle, switch

    if (arguments.model is None) != (arguments.resume or arguments.undo):
        raise ConfigError("switch needs a model, or --resume or --undo for one that was interrupted")
    with progress() as report:
        if arguments.model is None:
            done = settle(arguments.fleet, undo=arguments.undo, progress=report, seconds=arguments.timeout)
        else:
            done = switch(
                arguments.fleet,
                arguments.model,
                backend=arguments.backend,
                context=arguments.context,
                cache=arguments.cache,
                force=arguments.force,
                progress=report,
                seconds=arguments.timeout,
            )
    if done is None:
        print(f"no switch of {arguments.fleet} was interrupted")
        return 0
    show(done, arguments)
    return 0 if done.outcome == "done" or arguments.undo else 1


def _print_report(report: Report, arguments: argparse.Namespace) -> int:
    show(report, arguments)
    return 0 if report.healthy else 1
