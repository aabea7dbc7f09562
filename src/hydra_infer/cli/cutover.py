"""hydra-infer migrate cutover, rollback, status and script: the move itself, and the way back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .progress import Telling
from .words import command, key_of, show

if TYPE_CHECKING:
    from ..ops.migrate import Move, State

__all__ = ["add_cutover", "waiting"]


def add_cutover(jobs: Any) -> None:
    """These commands, among those of `migrate`."""
    _add_there(jobs)
    _add_back(jobs)
    _add_script(jobs)


def _add_there(jobs: Any) -> None:
    job = command(
        jobs, "cutover", _cutover, "put the new config, unit and link in place and start the new server; undone if it fails"
    )
    job.add_argument("folder", metavar="FOLDER", help="for the journal; with an interrupted cutover in it, no more is needed")
    _moved(job, required=False)
    waiting(job)
    job.add_argument("--json", action="store_true")


def _cutover(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import cutover

    move = _move(arguments) if arguments.config else None
    return _state(
        cutover(arguments.folder, move, api_key=key_of(arguments), timeout=arguments.timeout, progress=Telling()), arguments
    )


def _add_back(jobs: Any) -> None:
    back = command(jobs, "rollback", _rollback, "back to what was before the last cutover, whether it ended or was interrupted")
    waiting(back)
    status = command(jobs, "status", _status, "where everything is (exit status 1: interrupted, or changed by hand)")
    for job in (back, status):
        job.add_argument("folder", metavar="FOLDER", help="where the journal is")
        job.add_argument("--json", action="store_true")


def _rollback(arguments: argparse.Namespace) -> int:
    from ..ops.migrate import rollback

    return _state(rollback(arguments.folder, api_key=key_of(arguments), timeout=arguments.timeout, progress=Telling()), arguments)


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


def waiting(job: argparse.ArgumentParser) -> None:
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
    show(state, arguments)
    return 0 if state.settled else 1
