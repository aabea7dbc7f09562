"""hydra-infer migrate …: the words of its commands. What all commands share is cli's; no logic lives here."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .words import cards, command, gpu_names, key_in, tokens

if TYPE_CHECKING:
    from ..ops.migrate import Move, State

__all__ = ["add_migrate"]


def add_migrate(commands: Any) -> None:
    """The command and its own commands, as arguments of argparse."""
    help_ = "from ExLlamaV2 to ExLlamaV3: look, translate, convert, try, compare, move, and a way back"
    migrate = commands.add_parser("migrate", help=help_, description=help_)
    jobs = migrate.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_readiness, _add_translate, _add_convert, _add_trial, _add_compare, _add_cutover, _add_way_back, _add_script):
        add(jobs)


def _add_readiness(jobs: Any) -> None:
    job = command(jobs, "readiness", _readiness, "what a move takes, and what of it is there (exit status 1: not all)")
    job.add_argument("what", help="the model's folder, or the config.yml that names it")
    _fitting(job)
    job.add_argument("--original", metavar="FOLDER", help="its unquantised weights, where they do not lie beside it")
    job.add_argument("--tabby", metavar="FOLDER", help="TabbyAPI's checkout; default: where the config.yml lies")
    job.add_argument(
        "--python", metavar="FILE", help="its environment's interpreter; default: the checkout's venv, else this one"
    )
    job.add_argument("--json", action="store_true")


def _readiness(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import readiness

    found = readiness(
        arguments.what,
        gpus=gpu_names(arguments.gpus),
        context=arguments.context,
        cache=arguments.cache,
        original=arguments.original,
        tabby=arguments.tabby,
        python=arguments.python,
    )
    _show(found, arguments)
    return 0 if found.ready else 1


def _add_translate(jobs: Any) -> None:
    job = command(jobs, "translate", _translate, "the old config.yml as today's TabbyAPI reads it (exit status 1: some is open)")
    job.add_argument("file", metavar="CONFIG")
    job.add_argument("--model", metavar="NAME", help="the EXL3 folder's name, instead of the EXL2 one's")
    job.add_argument("--draft", metavar="NAME", help="likewise the draft's")
    job.add_argument(
        "--tabby-version", metavar="DATE", help="of the TabbyAPI commit that will read it; default: the newest known"
    )
    job.add_argument("--out", metavar="FILE", help="write the new file; there must be none yet")
    job.add_argument("--json", action="store_true")


def _translate(arguments: argparse.Namespace) -> int:
    from ..configs.disk import read, write
    from ..ops.migrate import translate

    version = {"version": arguments.tabby_version} if arguments.tabby_version else {}
    done = translate(read(arguments.file), model=arguments.model, draft=arguments.draft, **version)
    if arguments.out:
        write(arguments.out, done.text, was=None)
    _show(done, arguments)
    return 1 if done.open else 0


def _add_convert(jobs: Any) -> None:
    job = command(jobs, "convert", _convert, "EXL3 from a model's unquantised original, by exllamav3's converter")
    job.add_argument("original", metavar="ORIGINAL", help="the folder of the 16-bit weights")
    job.add_argument("out", metavar="OUT", help="the folder to make; the same command continues one that was stopped")
    _fitting(job)
    job.add_argument("--rate", type=float, metavar="BITS", help="bits per weight; default: the largest rate that fits the cards")
    job.add_argument("--work", metavar="FOLDER", help="for what is done so far; default: beside OUT")
    job.add_argument("--devices", type=_integers, default=[0], metavar="N,N", help="CUDA cards that convert; default: 0")
    job.add_argument("--python", metavar="FILE", help="the interpreter of the environment with exllamav3; default: this one")
    job.add_argument("--dry-run", action="store_true", help="only say what would be run")
    job.add_argument("--json", action="store_true")


def _convert(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import convert, prepare

    options = {
        "gpus": gpu_names(arguments.gpus),
        "context": arguments.context or 8192,
        "cache": arguments.cache or "fp16",
        "rate": arguments.rate,
        "work": arguments.work,
        "devices": arguments.devices,
        **({"python": arguments.python} if arguments.python else {}),
    }
    if arguments.dry_run:
        _show(prepare(arguments.original, arguments.out, **options), arguments)
    else:
        _show(convert(arguments.original, arguments.out, progress=_Telling(), **options), arguments)
    return 0


def _add_trial(jobs: Any) -> None:
    job = command(jobs, "trial", _trial, "start the new server beside the old one, on 127.0.0.1, and see whether it answers")
    job.add_argument("file", metavar="CONFIG", help="the new config.yml")
    job.add_argument("--command", required=True, metavar="WORDS", help="what starts TabbyAPI: 'venv/bin/python main.py'")
    job.add_argument("--folder", default=".", help="where to start it: TabbyAPI's checkout, with api_tokens.yml")
    job.add_argument("--port", type=int, default=0, help="default: one that is free")
    job.add_argument("--hold", action="store_true", help="leave it running until Ctrl-C, to be compared")
    _waiting(job)


def _trial(arguments: argparse.Namespace) -> int:
    from ..configs.disk import read
    from ..ops.migrate import trial

    with (
        _ending_by_sigterm(),
        trial(
            read(arguments.file),
            command=arguments.command,
            folder=arguments.folder,
            port=arguments.port,
            api_key=key_in(arguments.api_key_env) if arguments.api_key_env else None,
            timeout=arguments.timeout,
            progress=_Telling(),
        ) as running,
    ):
        print(f"{running.url} serves {running.model or 'no model'} (pid {running.pid})", flush=True)
        if arguments.hold:
            with contextlib.suppress(KeyboardInterrupt):
                running.wait()
    return 0


@contextlib.contextmanager
def _ending_by_sigterm() -> Iterator[None]:
    """SIGTERM is a Ctrl-C: whatever ends this command ends its server, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _add_compare(jobs: Any) -> None:
    job = command(jobs, "compare", _compare, "the old server and the new one, measured side by side")
    job.add_argument("old", metavar="OLD", help="its address")
    job.add_argument("new", metavar="NEW", help="its address, or that of a trial")
    job.add_argument("--repetitions", type=int, default=10, metavar="N", help="of each; fewer than 10 show no difference")
    job.add_argument("--max-tokens", type=int, default=128, metavar="N", help="of each answer")
    job.add_argument("--parallel", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="so many requests at once")
    job.add_argument("--no-quality", action="store_true", help="speed only")
    job.add_argument("--file", help="keep every result here; the same command continues a run that was stopped")
    job.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the key of both")
    job.add_argument("--json", action="store_true")


def _compare(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import compare

    key = key_in(arguments.api_key_env) if arguments.api_key_env else None
    report = compare(
        arguments.old,
        arguments.new,
        repetitions=arguments.repetitions,
        max_tokens=arguments.max_tokens,
        parallel=arguments.parallel,
        quality=not arguments.no_quality,
        file=arguments.file,
        api_keys=dict.fromkeys((arguments.old, arguments.new), key) if key else None,
    )
    _show(report, arguments)
    return 0


def _add_cutover(jobs: Any) -> None:
    job = command(
        jobs, "cutover", _cutover, "put the new config, unit and link in place and start the new server; undone if it fails"
    )
    job.add_argument("folder", metavar="FOLDER", help="for the journal; with an interrupted cutover in it, no more is needed")
    _moved(job, required=False)
    _waiting(job)
    job.add_argument("--json", action="store_true")


def _cutover(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import cutover

    key = key_in(arguments.api_key_env) if arguments.api_key_env else None
    move = _move(arguments) if arguments.config else None
    return _state(cutover(arguments.folder, move, api_key=key, timeout=arguments.timeout, progress=_Telling()), arguments)


def _add_way_back(jobs: Any) -> None:
    back = command(jobs, "rollback", _rollback, "back to what was before the last cutover, whether it ended or was interrupted")
    _waiting(back)
    status = command(jobs, "status", _status, "where everything is (exit status 1: interrupted, or changed by hand)")
    for job in (back, status):
        job.add_argument("folder", metavar="FOLDER", help="where the journal is")
        job.add_argument("--json", action="store_true")


def _rollback(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import rollback

    key = key_in(arguments.api_key_env) if arguments.api_key_env else None
    return _state(rollback(arguments.folder, api_key=key, timeout=arguments.timeout, progress=_Telling()), arguments)


def _status(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import status

    return _state(status(arguments.folder), arguments)


def _add_script(jobs: Any) -> None:
    job = command(jobs, "script", _script, "the steps of a cutover as a shell script for another host, or those back")
    _moved(job, required=True)
    job.add_argument("--old-config", metavar="FILE", help="a copy of that host's present config.yml")
    job.add_argument("--old-unit", metavar="FILE", help="likewise of its unit")
    job.add_argument("--old-target", metavar="FOLDER", help="where its link leads now")
    job.add_argument("--host", help="named in the script's first lines")
    job.add_argument("--back", action="store_true", help="the way back")


def _script(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import script

    print(script(_move(arguments), side="old" if arguments.back else "new", host=arguments.host), end="")
    return 0


# ---- what these commands share -------------------------------------------------------------------------------


def _fitting(job: argparse.ArgumentParser) -> None:
    cards(job)
    job.add_argument("--context", type=tokens, metavar="TOKENS", help="8192 or 32k")
    job.add_argument("--cache", help="fp16, q8, q6, q4, or 'k,v' bits")


def _waiting(job: argparse.ArgumentParser) -> None:
    job.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="for each command, and for the model to load"
    )
    job.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the servers' key")


def _moved(job: argparse.ArgumentParser, *, required: bool) -> None:
    job.add_argument("--config", required=required, metavar="FILE", help="TabbyAPI's config.yml, in its place")
    job.add_argument("--new-config", required=required, metavar="FILE", help="what it is to read")
    job.add_argument("--unit", metavar="FILE", help="systemd's unit, in its place")
    job.add_argument("--new-unit", metavar="FILE", help="what it is to read")
    job.add_argument("--link", metavar="LINK", help="a link to the model's folder, in its place")
    job.add_argument("--new-target", metavar="FOLDER", help="where it is to lead")
    job.add_argument("--stop", default="", metavar="WORDS", help="'systemctl stop tabbyapi'")
    job.add_argument("--reload", default="", metavar="WORDS", help="'systemctl daemon-reload'")
    job.add_argument("--start", default="", metavar="WORDS", help="'systemctl start tabbyapi'; then the server is asked")


def _move(arguments: argparse.Namespace) -> Move:
    from ..configs.disk import read
    from ..errors import ConfigError
    from ..ops.migrate import Move

    if not arguments.new_config:
        raise ConfigError("--config goes with --new-config")
    old = {name: getattr(arguments, name, None) for name in ("old_config", "old_unit", "old_target")}
    return Move.of(
        config=arguments.config,
        new_config=read(arguments.new_config),
        old_config=read(old["old_config"]) if old["old_config"] else None,
        unit=arguments.unit,
        new_unit=read(arguments.new_unit) if arguments.new_unit else None,
        old_unit=read(old["old_unit"]) if old["old_unit"] else None,
        link=arguments.link,
        new_target=arguments.new_target,
        old_target=old["old_target"],
        stop=arguments.stop,
        reload=arguments.reload,
        start=arguments.start,
    )


def _state(state: State, arguments: argparse.Namespace) -> int:
    _show(state, arguments)
    return 0 if state.settled else 1


class _Telling:
    """Progress as lines on stderr: these jobs take minutes or hours, and what is done is worth a line in a log."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, fraction: float, message: str) -> None:
        if message != self._last:
            self._last = message
            print(f"{fraction:4.0%}  {message}", file=sys.stderr, flush=True)


def _show(found: Any, arguments: argparse.Namespace) -> None:
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if arguments.json else found)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
