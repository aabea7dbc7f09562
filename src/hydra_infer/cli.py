"""hydra-infer: words to calls, calls to print. No logic lives here.

Exit status: 0 good, 1 the answer is no (does not fit, unhealthy, failed), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import ConfigError, HydraError, MissingExtra, UnknownGpu, UnknownModel
from .units import parse_tokens

if TYPE_CHECKING:
    from .ops.doctor.report import Report
    from .router import Router
    from .routing.errand import Change

__all__ = ["main"]

_USAGE_ERRORS = (ConfigError, UnknownGpu, UnknownModel, MissingExtra)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    arguments = _parser().parse_args(argv)
    if not hasattr(arguments, "run"):
        _parser().print_help()
        return 2
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return int(status)
    except HydraError as error:
        print(f"hydra-infer: {error}", file=sys.stderr)
        return 2 if isinstance(error, _USAGE_ERRORS) else 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


# ---- commands ------------------------------------------------------------------------------------------------


def _demo(_: argparse.Namespace) -> int:
    from .ops.demo import demo

    demo()
    return 0


def _gpus(arguments: argparse.Namespace) -> int:
    from .hardware.nvml import gpus

    cards = gpus()
    if arguments.json:
        _print_json([card.to_dict() for card in cards])
        return 0
    for card in cards:
        print(card)
    if not cards:
        print("no NVIDIA card, or no driver, on this machine")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from .planning import plan

    if arguments.fleet:
        return _plan_fleet(arguments)
    if arguments.model is None:
        raise ConfigError("plan needs a model, or --fleet FILE")
    planned = plan(
        arguments.model,
        gpus=_gpu_names(arguments.gpus),
        context=arguments.context,
        cache=arguments.cache,
        split=arguments.split,
        slots=arguments.slots,
        chunk=arguments.chunk,
        gpu_split=arguments.gpu_split,
        reserve=arguments.reserve,
        bpw=arguments.bpw,
        format=arguments.format,
        draft=arguments.draft,
        draft_tokens=arguments.draft_tokens,
        engine=arguments.engine,
    )
    if arguments.tabby_config:
        print(planned.tabby_config(), end="")
        return 0
    suggestions = planned.suggestions if arguments.suggest else ()
    if arguments.json:
        more = {"suggestions": [one.to_dict() for one in suggestions], "max_context": planned.max_context}
        _print_json(planned.to_dict() | (more if arguments.suggest else {}))
        return 0 if planned.fits else 1
    print(planned)
    if arguments.suggest:
        remedies = [one.why for one in suggestions] + [one.why for one in [planned.cpu_experts()] if one]
        print(f"max context: {planned.max_context}", *(f"try: {why}" for why in remedies), sep="\n")
    return 0 if planned.fits else 1


def _plan_fleet(arguments: argparse.Namespace) -> int:
    from .fleet.fleet import Fleet

    planned = Fleet.from_file(arguments.fleet).plan()
    print(planned.to_json() if arguments.json else planned)
    return 0 if planned.fits else 1


def _survey(arguments: argparse.Namespace) -> int:
    from .planning import survey

    found = survey(
        arguments.models,
        gpus=_gpu_names(arguments.gpus),
        contexts=arguments.contexts,
        caches=arguments.caches,
        bpws=arguments.bpws,
        format=arguments.format,
        slots=arguments.slots,
    )
    print(found.to_json() if arguments.json else found)
    return 0 if any(row["fits"] for row in found.rows) else 1


def _chat(arguments: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(_router(arguments) if arguments.url or arguments.fleet else _local(arguments, stack))
        model = arguments.model or _only_model(router)
        history: list[dict[str, Any]] = []
        for question in [" ".join(arguments.message)] if arguments.message else _lines():
            history.append({"role": "user", "content": question})
            history.append({"role": "assistant", "content": _say(router, model, history, arguments)})
    return 0


def _status(arguments: argparse.Namespace) -> int:
    with _router(arguments) as router:
        status = router.status()
    if arguments.json:
        _print_json(status.to_dict())
    else:
        print(status)
    return 0 if status.healthy and not _unsettled(arguments) else 1


def _models(arguments: argparse.Namespace) -> int:
    with _router(arguments) as router:
        models = router.models()
    if arguments.json:
        _print_json(models)
    else:
        print(*(f"{name}: {', '.join(backends)}" for name, backends in models.items()), sep="\n")
    return 0 if models else 1


def _load(arguments: argparse.Namespace) -> int:
    with _router(arguments) as router:
        done = router.load(
            arguments.model,
            backend=arguments.backend,
            context=arguments.context,
            cache=arguments.cache,
            keep_alive=arguments.keep_alive,
            force=arguments.force,
            timeout=arguments.timeout,
        )
    return _print_change(done, arguments)


def _unload(arguments: argparse.Namespace) -> int:
    with _router(arguments) as router:
        return _print_change(router.unload(arguments.model, backend=arguments.backend, timeout=arguments.timeout), arguments)


def _pull(arguments: argparse.Namespace) -> int:
    with _router(arguments) as router:
        return _print_change(router.pull(arguments.model, backend=arguments.backend, timeout=arguments.timeout), arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from .serve import serve

    key = _key(arguments.serve_key_env) if arguments.serve_key_env else None
    with _router(arguments) as router:
        serve(router, host=arguments.host, port=arguments.port, api_key=key, cors=arguments.cors)
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from .configs.disk import read, write
    from .fleet.first import first_file
    from .fleet.schema import editor_schema

    if arguments.schema:
        _print_json(editor_schema())
        return 0
    if not arguments.urls:
        raise ConfigError(
            "init needs the address of at least one server", hint="for example hydra-infer init http://gpu-box:5000"
        )
    if arguments.api_key_env:
        _key(arguments.api_key_env)  # a variable that is not set is told before anybody is asked
    there = os.path.exists(arguments.out)
    if there and not arguments.force:
        raise ConfigError(f"{arguments.out} is there already", hint="--out FILE for another, --force to write a new one over it")
    was = read(arguments.out) if there else None
    text = first_file(arguments.urls, arguments.api_key_env)
    backup = write(arguments.out, text, was=was)
    print(f"wrote {arguments.out}" + (f"; what was there is {backup}" if backup else ""))
    return 0


def _render(arguments: argparse.Namespace) -> int:
    from .fleet.fleet import Fleet

    rendering = Fleet.from_file(arguments.fleet).rendering(arguments.out)
    print(rendering.diff, end="")
    print(*(f"note: {note}" for note in rendering.notes), sep="\n", end="\n" if rendering.notes else "")
    if rendering.replaces and not arguments.write:
        print(f"nothing was written: {len(rendering.replaces)} files are there and differ (--write replaces them, with backups)")
        return 1
    backups = rendering.write()
    print(*(f"backup: {backup}" for backup in backups), f"{arguments.out} is as {arguments.fleet} says", sep="\n")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from .ops.doctor.doctor import doctor
    from .ops.doctor.machine import services_in

    report = doctor(
        arguments.fleet,
        tabby_config=arguments.tabby_config,
        litellm_config=arguments.litellm_config,
        services=services_in(arguments.look) if arguments.look else None,
        read_disk=arguments.read_disk,
    )
    return _print_report(report, arguments)


def _prestart(arguments: argparse.Namespace) -> int:
    from .ops.prestart import prestart

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
    from .ops.watch import watch, watch_fleet

    if (arguments.fleet is None) == (arguments.tabby_config is None):
        raise ConfigError("watch needs a hydra.yaml, or --tabby-config FILE")
    if arguments.fleet is not None:
        return _print_report(watch_fleet(arguments.fleet), arguments)
    report = watch(arguments.tabby_config, pid=arguments.pid, wait=arguments.wait, record=arguments.record)
    return _print_report(report, arguments)


def _switch(arguments: argparse.Namespace) -> int:
    from .ops.switch import settle, switch

    if (arguments.model is None) != (arguments.resume or arguments.undo):
        raise ConfigError("switch needs a model, or --resume or --undo for one that was interrupted")
    if arguments.model is None:
        done = settle(arguments.fleet, undo=arguments.undo, seconds=arguments.timeout)
        if done is None:
            print(f"no switch of {arguments.fleet} was interrupted")
            return 0
    else:
        done = switch(
            arguments.fleet,
            arguments.model,
            backend=arguments.backend,
            context=arguments.context,
            cache=arguments.cache,
            force=arguments.force,
            seconds=arguments.timeout,
        )
    if arguments.json:
        _print_json(done.to_dict())
    else:
        print(done)
    return 0 if done.outcome == "done" or arguments.undo else 1


def _bench(arguments: argparse.Namespace) -> int:
    from .ops import bench

    models, keys = arguments.model or [None], [_key(variable) for variable in arguments.api_key_env or ()]
    report = bench.compare(
        arguments.a,
        arguments.b,
        model=(models[0], models[-1]),
        kinds=arguments.kinds,
        parallel=arguments.parallel,
        repetitions=arguments.repetitions,
        max_tokens=arguments.max_tokens,
        long_tokens=arguments.long_tokens,
        quality=not arguments.no_quality,
        minimum=arguments.minimum / 100,
        seed=arguments.seed,
        file=arguments.file,
        api_keys={arguments.a: keys[0], arguments.b: keys[-1]} if keys else None,
    )
    if arguments.html:
        Path(arguments.html).write_text(report.to_html(), encoding="utf-8")
    print(report.to_json() if arguments.json else report)
    return 0


# ---- what the commands share ---------------------------------------------------------------------------------


def _router(arguments: argparse.Namespace) -> Router:
    """A router over the servers named by --url or --fleet."""
    from .router import Router

    if arguments.fleet and arguments.api_key_env:
        raise ConfigError("--api-key-env goes with --url", hint="a fleet file says for each server where its key is")
    if arguments.fleet:
        return Router.from_file(arguments.fleet)
    key = _key(arguments.api_key_env) if arguments.api_key_env else None
    return Router.from_urls(arguments.url, api_keys=dict.fromkeys(arguments.url, key) if key else None)


def _print_report(report: Report, arguments: argparse.Namespace) -> int:
    print(report.to_json() if arguments.json else report)
    return 0 if report.healthy else 1


def _unsettled(arguments: argparse.Namespace) -> bool:
    """Whether a switch by this fleet file was interrupted; said where people see it beside what is printed."""
    from .ops.switch import unsettled

    told = unsettled(arguments.fleet) if arguments.fleet else None
    if told is not None:
        print(f"hydra-infer: {': '.join(told)}", file=sys.stderr)
    return told is not None


def _print_change(done: Change, arguments: argparse.Namespace) -> int:
    if arguments.json:
        _print_json(done.to_dict())
    else:
        print(done)
    return 0


def _key(variable: str) -> str:
    """The key in an environment variable; on the command line itself it would show in the process list."""
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set", hint="give the name of one that holds the key")
    return key


def _local(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Router:
    """A router over one engine, loaded in this process."""
    from .engines.load import load
    from .router import Router
    from .routing.backend import Backend

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
        _print_json(stream.reply.to_dict())
    else:
        print()
    return stream.text


def _gpu_names(given: list[str] | None) -> list[str] | None:
    """--gpus 'RTX 5090, RTX 4090' and --gpus twice mean the same; --gpus none: no card."""
    if given is None:
        return None
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


# ---- words ---------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hydra-infer", description="Plan, run and route language models on your own graphics cards."
    )
    parser.add_argument("--version", action="version", version=f"hydra-infer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    _command(commands, "demo", _demo, "a plan, two local servers, a failover and an answer, on this machine")

    gpus = _command(commands, "gpus", _gpus, "this machine's NVIDIA cards, in PCI order")
    gpus.add_argument("--json", action="store_true")

    plan = _command(commands, "plan", _plan, "will this model fit on these cards? (exit status 1: no)")
    plan.add_argument("model", nargs="?", help="a model folder, a .gguf file, a config.json, or smollm2")
    plan.add_argument("--fleet", metavar="FILE", help="a hydra.yaml: all its models on their own servers' cards")
    _cards(plan)
    plan.add_argument("--context", type=_tokens, default=8192, metavar="TOKENS", help="8192 or 32k")
    plan.add_argument("--cache", default="fp16", help="fp16, q8, q6, q4, or 'k,v' bits")
    plan.add_argument("--split", default="auto", choices=["auto", "single", "layers", "tensor"])
    plan.add_argument("--gpu-split", type=_numbers, metavar="GIB,GIB")
    plan.add_argument("--reserve", type=_numbers, metavar="GIB,GIB")
    plan.add_argument("--slots", type=int, default=1, help="requests at once")
    plan.add_argument("--chunk", type=int, default=2048, help="tokens of the prompt at once")
    plan.add_argument("--bpw", type=float, help="bits per weight, for a config.json alone")
    plan.add_argument("--format", help="format, for a config.json alone")
    plan.add_argument("--draft", metavar="MODEL", help="a draft model's folder, mtp or ngram")
    plan.add_argument("--draft-tokens", type=int, metavar="N", help="tokens drafted per step")
    plan.add_argument("--engine", help="exllamav3, exllamav2, llamacpp or tabby; default: what loads the format")
    plan.add_argument("--suggest", action="store_true", help="also the longest context, and what to change")
    plan.add_argument("--tabby-config", action="store_true", help="print TabbyAPI's config.yml for this plan, and nothing else")
    plan.add_argument("--json", action="store_true")

    survey = _command(
        commands, "survey", _survey, "which of these models fit, with which context and cache? (exit status 1: none)"
    )
    survey.add_argument("models", nargs="+", help="model folders, .gguf files, config.jsons, or smollm2")
    _cards(survey)
    survey.add_argument("--contexts", type=_tokens, nargs="+", default=[8192], metavar="TOKENS", help="8k 32k")
    survey.add_argument("--caches", nargs="+", default=["fp16"], metavar="CACHE", help="fp16 q8 8,4")
    survey.add_argument("--bpws", type=float, nargs="+", metavar="BITS", help="bits per weight, for a config.json alone")
    survey.add_argument("--format", help="format, for a config.json alone")
    survey.add_argument("--slots", type=int, default=1, help="requests at once")
    survey.add_argument("--json", action="store_true")

    chat = _command(commands, "chat", _chat, "ask a server, or a model loaded here; without a message, line by line")
    chat.add_argument("message", nargs="*")
    chat.add_argument("--model", help="the model's name; not needed where there is only one")
    chat.add_argument(
        "--load", default="smollm2", metavar="MODEL", help="what to load here when no --url is given (default: smollm2)"
    )
    chat.add_argument("--context", type=_tokens, default=4096, metavar="TOKENS")
    chat.add_argument("--threads", type=int)
    chat.add_argument("--max-tokens", type=int)
    chat.add_argument("--temperature", type=float)
    _servers(chat, required=False)

    load = _command(commands, "load", _load, "have a server load a model (TabbyAPI, Ollama), and wait until it has")
    load.add_argument("model", help="the server's name of the model; for TabbyAPI its folder's")
    load.add_argument("--context", type=_tokens, metavar="TOKENS", help="8192 or 32k; default: the server's")
    load.add_argument("--cache", help="TabbyAPI: fp16, q8, q6, q4, or 'k,v' bits")
    load.add_argument("--keep-alive", metavar="TIME", help="Ollama: how long it stays, for example 10m; default: the server's")
    load.add_argument("--force", action="store_true", help="load even what the plan says does not fit")
    unload = _command(commands, "unload", _unload, "have a server give up a model")
    unload.add_argument("model")
    pull = _command(commands, "pull", _pull, "have an Ollama server fetch a model")
    pull.add_argument("model")
    for command in (load, unload, pull):
        _servers(command, required=True)
        command.add_argument("--backend", metavar="HOST:PORT", help="which of several servers; default: the first that can")
        command.add_argument("--timeout", type=float, metavar="SECONDS", help="the longest silence (default: 600)")

    doctor = _command(commands, "doctor", _doctor, "what is wrong, and what mends it (exit status 1: something is)")
    doctor.add_argument("fleet", nargs="?", metavar="FILE", help="a hydra.yaml: its servers, and the machines it can look at")
    doctor.add_argument("--tabby-config", metavar="FILE", help="a TabbyAPI's config.yml, and the model that it names")
    doctor.add_argument("--litellm-config", metavar="FILE", help="a LiteLLM proxy's config.yaml")
    doctor.add_argument("--read-disk", action="store_true", help="also read 256 MB of a model, to time the disk")
    doctor.add_argument("--look", metavar="JSON", help=argparse.SUPPRESS)  # what another machine's doctor asks of this one
    doctor.add_argument("--json", action="store_true")

    prestart = _command(commands, "prestart", _prestart, "may this TabbyAPI start? for ExecStartPre (exit status 1: no)")
    prestart.add_argument("--tabby-config", metavar="FILE", default="config.yml", help="default: config.yml, where it is started")
    prestart.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="for memory to be given back (default: 60)")
    prestart.add_argument("--kill-orphan", action="store_true", help="end a process that is proven to be this server's left-over")
    prestart.add_argument("--python", metavar="FILE", help="the interpreter that TabbyAPI is started with: proof of a left-over")
    prestart.add_argument("--record", metavar="FILE", help="what `watch --record` wrote: proof of a left-over")
    watch = _command(commands, "watch", _watch, "does the right server serve the right model? by one token (exit status 1: no)")
    watch.add_argument("fleet", nargs="?", metavar="FLEET", help="a hydra.yaml: every server, by what it has loaded now")
    watch.add_argument(
        "--tabby-config", metavar="FILE", help="or the TabbyAPI of this config.yml, on this machine; it is waited for"
    )
    watch.add_argument("--pid", type=int, help="the process that should serve: systemd's $MAINPID")
    watch.add_argument("--wait", type=float, default=600.0, metavar="SECONDS", help="until it serves (default: 600)")
    watch.add_argument("--record", metavar="FILE", help="keep who serves, for prestart")
    for command in (prestart, watch):
        command.add_argument("--json", action="store_true")

    switch = _command(commands, "switch", _switch, "another model on a server, proven by one token, or the old one put back")
    switch.add_argument("model", nargs="?")
    switch.add_argument("--fleet", metavar="FILE", required=True, help="a hydra.yaml; what is done is journalled beside it")
    switch.add_argument("--backend", metavar="SERVER", help="which of its servers; default: the first that lists the model")
    switch.add_argument("--context", type=_tokens, metavar="TOKENS", help="default: the file's, else the server's own")
    switch.add_argument("--cache", help="TabbyAPI: fp16, q8, q6, q4, or 'k,v' bits")
    switch.add_argument("--force", action="store_true", help="load even what the plan says does not fit")
    switch.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="the longest a load may take (default: 600)"
    )
    settled = switch.add_mutually_exclusive_group()
    settled.add_argument("--resume", action="store_true", help="finish the switch that was interrupted")
    settled.add_argument("--undo", action="store_true", help="put back what was loaded before the one that was interrupted")
    switch.add_argument("--json", action="store_true")

    bench = _command(commands, "bench", _bench, "two servers side by side: speed, and whether they answer alike")
    bench.add_argument("a", metavar="A", help="a server's address: what there is")
    bench.add_argument("b", metavar="B", help="another one's, or the same: what is compared with it")
    bench.add_argument("--model", action="append", help="what to ask both for; given twice: what to ask A for, and B")
    bench.add_argument("--kinds", nargs="+", default=["chat", "code", "long"], metavar="KIND", help="chat code long")
    bench.add_argument("--parallel", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="so many requests at once")
    bench.add_argument("--repetitions", type=int, default=10, metavar="N", help="of each; fewer than 10 show no difference")
    bench.add_argument("--max-tokens", type=int, default=128, metavar="N", help="of each answer")
    bench.add_argument("--long-tokens", type=_tokens, default=4096, metavar="TOKENS", help="about how long a long prompt is")
    bench.add_argument("--no-quality", action="store_true", help="speed only")
    bench.add_argument("--minimum", type=float, default=3.0, metavar="PERCENT", help="the effect from which a difference counts")
    bench.add_argument("--seed", type=int, metavar="N", help="draws order and prompts; default: anew for each run")
    bench.add_argument("--file", help="keep every result here as JSON lines; the same command continues a run that was stopped")
    bench.add_argument("--html", metavar="FILE", help="also write the picture")
    bench.add_argument("--api-key-env", action="append", metavar="VARIABLE", help="holds the key of both; given twice: A's, B's")
    bench.add_argument("--json", action="store_true")

    serve = _command(commands, "serve", _serve, "these servers behind one OpenAI-compatible address")
    _servers(serve, required=True)
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8100)
    serve.add_argument("--serve-key-env", metavar="VARIABLE", help="holds the key that clients must show; needed beyond loopback")
    serve.add_argument("--cors", metavar="ORIGIN", help="the one origin that browsers may come from")

    status = _command(commands, "status", _status, "ask servers how they are (exit status 1: not all well)")
    _servers(status, required=True)
    models = _command(commands, "models", _models, "which models these servers serve (exit status 1: none)")
    _servers(models, required=True)

    init = _command(commands, "init", _init, "write a first hydra.yaml from what answers at these addresses")
    init.add_argument("urls", nargs="*", metavar="URL", help="servers, in the order in which they are to be asked")
    init.add_argument("--out", default="hydra.yaml", metavar="FILE", help="default: hydra.yaml")
    init.add_argument("--force", action="store_true", help="write over a file that is there; a backup is made")
    init.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the servers' key")
    init.add_argument("--schema", action="store_true", help="print the file's JSON Schema, for editors, and nothing else")

    render = _command(commands, "render", _render, "write the servers' configuration files that a hydra.yaml means")
    render.add_argument("fleet", metavar="FILE", help="a hydra.yaml")
    render.add_argument("out", metavar="FOLDER", help="where to; what would change is shown first")
    render.add_argument("--write", action="store_true", help="also replace files that are there and differ; backups are made")
    from .cli_migrate import add_migrate  # it is made of this module's words

    add_migrate(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:  # noqa: A002
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.set_defaults(run=run)
    return command


def _servers(command: argparse.ArgumentParser, *, required: bool) -> None:
    which = command.add_mutually_exclusive_group(required=required)
    which.add_argument("--url", action="append", help="a server; may be given several times, in order")
    which.add_argument("--fleet", metavar="FILE", help="the servers of a hydra.yaml")
    command.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the servers' key")
    command.add_argument("--json", action="store_true")


def _cards(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--gpus",
        action="append",
        metavar="NAMES",
        help="'RTX 5090, RTX 4090'; 'name:48:960' is a card of 48 GiB and 960 GB/s; 'none'; default: this machine's",
    )


def _tokens(text: str) -> int:
    try:
        return parse_tokens(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
