"""A Move as a shell script for another host: the same steps, each of which may be done twice, and the same refusals."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from .move import Move, Server
from .swap import Side, Swap

__all__ = ["script"]

_HEAD = """\
#!/bin/sh
# Leads to the {side} state. Safe to run again: what is done is left as it is, and the other script leads back.
set -eu
umask 077
note() {{ echo "$1"; echo "$(date -u +%FT%TZ) {side}: $1" >> {log}; sync; }}
refuse() {{ note "REFUSED: $1"; exit 1; }}"""

# cmp compares bytes; the new file has the old one's owner and permissions, and takes its place in one step. A file may be a link.
_FILE = """\
is_file() { [ -e "$1" ] && printf %s "$2" | cmp -s - "$1"; }
swap_file() {  # name, path, wanted text
  if is_file "$2" "$3"; then note "$1: done already"; return; fi
  note "$1: $2"
  to=$(readlink -f "$2"); cp -p "$to" "$to.bak-hydra"; cp -p "$to" "$to.hydra-new"
  printf %s "$3" > "$to.hydra-new"; sync; mv -f "$to.hydra-new" "$to"
}"""

_LINK = """\
is_link() { [ "$(readlink "$1" || true)" = "$2" ]; }
swap_link() {  # name, path, wanted target
  if is_link "$2" "$3"; then note "$1: done already"; return; fi
  note "$1: $2"
  ln -sfn "$3" "$2.hydra-new"; mv -fT "$2.hydra-new" "$2"
}"""

# The key goes by stdin: what stands on a command line is in the process list.
_VERIFY = """\
key=${{TABBY_API_KEY:-$(sed -n 's/^api_key: *//p' {tokens} 2> /dev/null | tr -d '\\042\\047')}}
ask() {{ printf 'header = "Authorization: Bearer %s"\\n' "$key" | curl -fsS -m 5 -K - "$1/v1/model" 2> /dev/null; }}
verify() {{  # URL, model
  note "verify: $1"
  left={seconds}
  until said=$(ask "$1"); do
    left=$((left - 1)); [ "$left" -gt 0 ] || refuse "$1 does not serve"; sleep 1
  done
  case "$said" in *"\\"id\\":\\"$2\\""*|*"\\"id\\": \\"$2\\""*) ;; *) refuse "$1 has another model: $said" ;; esac
}}"""


def script(move: Move, *, side: Side = "new", host: str | None = None, seconds: int = 600) -> str:
    """The script (POSIX sh with GNU or BusyBox tools) that leads to `side`: `ssh host sudo sh -s < cutover.sh`.

    `seconds` are waited for the server to have its model; its key is that of api_tokens.yml beside the config, or in
    TABBY_API_KEY. The script holds the files it writes. What it did is logged beside the config. Where a step fails it stops;
    the other script leads back.
    """
    config = move.swaps[0].path
    log, tokens = shlex.quote(f"{config}.migration-log"), shlex.quote(str(PurePosixPath(config).with_name("api_tokens.yml")))
    where = [f"# For {host}: ssh {host} sudo sh -s < this-file"] if host else []
    kinds = {swap.kind for swap in move.swaps}
    defined = [_FILE] * ("file" in kinds) + [_LINK] * ("link" in kinds)
    if move.start and move.server(side).model:
        defined.append(_VERIFY.format(seconds=seconds, tokens=tokens))
    first, *rest = _HEAD.format(side=side, log=log).splitlines()
    told = [line for swap in move.swaps for line in _told(swap, side)]
    return "\n".join([first, *where, *rest, "", *defined, "", *told, "", *_steps(move, side), 'note "done"', ""])


def _told(swap: Swap, side: Side) -> Iterator[str]:
    """Both forms as variables, and the refusal of a third, before any server is stopped."""
    wanted, other = (swap.new, swap.old) if side == "new" else (swap.old, swap.new)
    for what, value in (("path", swap.path), ("wanted", wanted), ("other", other)):
        yield f"{swap.name}_{what}={shlex.quote(value)}"
    known = " || ".join(f'is_{swap.kind} "${swap.name}_path" "${swap.name}_{form}"' for form in ("wanted", "other"))
    yield f'{known} || refuse "${swap.name}_path is neither as it was nor as it is to be"'


def _steps(move: Move, side: Side) -> Iterator[str]:
    kinds = {swap.name: swap.kind for swap in move.swaps}
    for name in move.steps:
        if name in kinds:
            yield f'swap_{kinds[name]} {name} "${name}_path" "${name}_wanted"'
        elif name == "verify":
            yield from _verified(move.server(side))
        else:
            words = shlex.join(getattr(move, name))
            # The script itself comes by stdin.
            yield f"note {shlex.quote(f'{name}: {words}')}; {words} < /dev/null"


def _verified(server: Server) -> Iterator[str]:
    if server.model:
        yield f"verify {shlex.quote(server.url)} {shlex.quote(server.model)}"
