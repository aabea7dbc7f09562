"""Trial: a second TabbyAPI beside the one that serves, on 127.0.0.1 and a port of its own, from its start to its certain end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...configs.disk import read
from ...configs.document import parse
from ...configs.edit import edit
from ...engines.progress import Progress, reporting
from ...errors import ConfigError, LoadError
from .ladder import climb
from .move import Server, section

__all__ = ["Trial", "trial"]

HOST = "127.0.0.1"

# TabbyAPI ends about 4 s after a SIGTERM, also with a stream open (measured, e632af4).
_END_SECONDS = 15.0

# Waits until nobody holds the other end of its input, then ends the group $0, and removes the folder $1.
_GUARD = """\
read -r line
kill -TERM "-$0"
for second in $(seq 15); do kill -0 "-$0" || break; sleep 1; done
kill -KILL "-$0"
rm -rf -- "$1"
"""


class Trial:
    """A server that runs: `url`, `model` (None: none loaded), `pid`, `log` so far. It ends with `close` or its `with` block.

    Should this process be killed, a shell that waits for that ends it (not on Windows).
    """

    def __init__(self, text: str, command: Sequence[str], folder: Path, port: int) -> None:
        # The address counts most: nobody else is to reach a server on trial.
        own = edit(text, {"network.host": HOST, "network.port": port})
        self._stack = contextlib.ExitStack()
        place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hydra-trial-")))
        config = place / "config.yml"
        config.write_text(own, encoding="utf-8", newline="")
        self._log = place / "log"
        self.server = Server(f"http://{HOST}:{port}", Server.of(text).model)
        output = self._stack.enter_context(self._log.open("wb"))
        words = [*command, "--config", str(config)]
        try:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # gpu_split counts CUDA's devices, whose order is the fastest first unless told otherwise.
                env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ},
                start_new_session=True,  # its tensor-parallel workers are its group, and end with it
            )
        except OSError as error:
            self._stack.close()
            raise LoadError(f"{shlex.join(words[:-2])} cannot be started: {error.strerror or error}") from error
        self._guard = None if sys.platform == "win32" else _guard(self.pid, place)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def model(self) -> str | None:
        return self.server.model

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has printed. TabbyAPI prints its keys at every start."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def ended(self) -> str | None:
        """How it ended, with its last words; None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        said = [line for line in self.log.splitlines() if line.strip() and "key" not in line.lower()]
        return f"status {status}: {'; '.join(said[-3:]) or 'it says nothing'}"

    def wait(self) -> None:
        """Until it ends by itself."""
        self._process.wait()

    def close(self) -> None:
        """End it, and every process it has started, and wait until it is gone. A second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError):  # nobody is left of its group
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def trial(
    text: str,
    *,
    command: str | Sequence[str],
    folder: str | os.PathLike[str],
    port: int = 0,
    api_key: str | None = None,
    timeout: float = 600.0,
    progress: Progress = None,
) -> Trial:
    """A TabbyAPI by the config.yml's `text`, proven to answer, on 127.0.0.1 and another port; the one that serves goes on.

    `command` starts TabbyAPI ("venv/bin/python main.py"), in `folder`, where its api_tokens.yml lies; `--config FILE` is added.
    `port` 0 takes one that is free. `api_key` is taken from there unless given. Both
    models have to fit beside each other, or the old one is to be unloaded first.

    Raises LoadError where it ends, or comes up without its model, with the last lines of its log; DeadlineExceeded after
    `timeout` seconds; ConfigError for a port that is taken. Then nothing is left running.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    place = Path(folder)
    key = api_key if api_key is not None else _key(place, text)
    running = Trial(text, words, place, _free_port(port))
    try:
        with reporting(progress) as report:
            climb(running.server, api_key=key, timeout=timeout, ended=running.ended, report=report)
    except BaseException:
        running.close()
        raise
    return running


def _guard(group: int, place: Path) -> subprocess.Popen[bytes]:
    """The shell that outlives a kill; its input's other end is this process's alone."""
    return subprocess.Popen(
        ["sh", "-c", _GUARD, str(group), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C at the terminal is not for it
    )


def _key(folder: Path, text: str) -> str | None:
    """The key in TabbyAPI's own file, a word or the first of several; None where it asks for none."""
    if section(text, "network").get("disable_auth") is True:
        return None
    file = folder / "api_tokens.yml"
    if not file.exists():
        raise ConfigError(
            f"there is no {file}",
            hint="copy the serving one's there: a new TabbyAPI makes keys of its own, and its clients have the old ones",
        )
    said: Any = parse(read(file), str(file))
    key = said.get("api_key") if isinstance(said, dict) else None
    first = key[0] if isinstance(key, list) and key else key
    return str(first) if first else None


def _free_port(wanted: int) -> int:
    """A port that is free as TabbyAPI needs it: finding it taken, it would go to the next one, where nobody looks for it."""
    with socket.socket() as probe:
        if os.name == "posix":  # a port that was closed a moment ago is free; on Windows this option would mean stealing
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {wanted} on {HOST} cannot be used", hint="another program has it: choose another, or 0 for any"
            ) from error
        return int(probe.getsockname()[1])
