"""hydra-infer migrate …: its commands up to the move itself, which is cutover's. What all commands share is words'."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from .compare import add_bench
from .cutover import add_cutover, waiting
from .progress import Telling
from .words import cards, command, gpu_names, key_of, show, tokens

__all__ = ["add_migrate"]


def add_migrate(commands: Any) -> None:
    """The command and its own commands, as arguments of argparse."""
    help_ = "from ExLlamaV2 to ExLlamaV3: look, translate, convert, try, compare, move, and a way back"
    migrate = commands.add_parser("migrate", help=help_, description=help_)
    jobs = migrate.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_readiness, _add_translate, _add_convert, _add_trial):
        add(jobs)
    add_bench(jobs, "compare", "OLD", "NEW")
    add_cutover(jobs)


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
    show(found, arguments)
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
    show(done, arguments)
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
        show(prepare(arguments.original, arguments.out, **options), arguments)
    else:
        with _ending_by_sigterm():
            show(convert(arguments.original, arguments.out, progress=Telling(), **options), arguments)
    return 0


def _add_trial(jobs: Any) -> None:
    job = command(jobs, "trial", _trial, "start the new server beside the old one, on 127.0.0.1, and see whether it answers")
    job.add_argument("file", metavar="CONFIG", help="the new config.yml")
    job.add_argument("--command", required=True, metavar="WORDS", help="what starts TabbyAPI: 'venv/bin/python main.py'")
    job.add_argument("--folder", default=".", help="where to start it: TabbyAPI's checkout, with api_tokens.yml")
    job.add_argument("--port", type=int, default=0, help="default: one that is free")
    job.add_argument("--hold", action="store_true", help="leave it running until Ctrl-C, to be compared")
    waiting(job)


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
            api_key=key_of(arguments),
            timeout=arguments.timeout,
            progress=Telling(),
        ) as running,
    ):
        print(f"{running.url} serves {running.model or 'no model'} (pid {running.pid})", flush=True)
        if arguments.hold:
            with contextlib.suppress(KeyboardInterrupt):
                running.wait()
    return 0


@contextlib.contextmanager
def _ending_by_sigterm() -> Iterator[None]:
    """SIGTERM is a Ctrl-C: whatever ends this command ends the program that it started, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fitting(job: argparse.ArgumentParser) -> None:
    cards(job)
    job.add_argument("--context", type=tokens, metavar="TOKENS", help="8192 or 32k")
    job.add_argument("--cache", help="fp16, q8, q6, q4, or 'k,v' bits")


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
