"""LlamaServer: llama.cpp in a process of its own, from its start to its certain end."""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from ..errors import ConfigError, LoadError, MissingExtra, UnknownModel
from ..models.bundled import model_file, model_name
from ..planner.cache import rate_of
from ..units import Size, parse_tokens
from .machine import physical_cores, resident_memory
from .progress import quiet, reporting

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from .progress import Progress, Report

__all__ = ["LlamaServer", "serve"]

HOST = "127.0.0.1"
LOG_LINES = 200
LOGGED = re.compile(r"[\d.]+ ([A-Z]) ")  # how llama.cpp's logger begins a line: time, level

# What a process can end with, beside its log, that needs explaining. The wheels of xllamacpp are built for AVX2, FMA,
# F16C and BMI2; -4 is SIGILL, 0xC000001D its Windows twin, -9 SIGKILL.
ENDINGS = {
    -4: "this processor lacks AVX2, FMA, F16C or BMI2, which xllamacpp needs",
    0xC000001D: "this processor lacks AVX2, FMA, F16C or BMI2, which xllamacpp needs",
    -9: "it was killed, perhaps because the machine ran out of memory: a smaller context or slots=1 takes less",
}


class LlamaServer:
    """An OpenAI-compatible llama.cpp server on 127.0.0.1, on the CPU.

    `model` is a .gguf file; `context` tokens for each of `slots` requests at once; `cache` is llama.cpp's type of keys
    and values ("fp16", "q8", "q4_0", or a pair "q8_0,q4_0"); `threads` defaults to the physical cores less one, `port` to
    one that the system picks, `api_key` to a random one. `start` brings it up; `url` (without /v1), `pid` and `log` (its
    last lines) are there afterwards. It ends with `close`, with the object, and with this process, however that ends.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        name: str | None = None,
        context: int | str = 8192,
        slots: int = 1,
        cache: str = "fp16",
        threads: int | None = None,
        port: int = 0,
        api_key: str | None = None,
    ) -> None:
        self.path = Path(model).expanduser()
        self.name = name or self.path.stem
        self.context, self.slots = parse_tokens(context), slots
        self.cache = rate_of(cache, "gguf").name
        self.threads = max(1, physical_cores() - 1) if threads is None else threads
        if slots < 1 or self.threads < 1:
            raise ConfigError(f"slots={slots}, threads={self.threads}: each must be at least 1")
        self.port = port
        self.api_key = api_key or secrets.token_urlsafe(24)
        self.url = ""
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None

    def start(self, report: Report = quiet, *, expected: int | None = None) -> None:
        """Load the model and wait until it answers; `report` hears how far it is, as part of the `expected` bytes.

        `close()` from another thread ends it, as any exception in this one does (Ctrl-C, one out of `report`).
        Raises LoadError with the end of llama.cpp's log, UnknownModel for a missing file, MissingExtra.
        """
        self._check()
        try:
            hello = self._spawn()
            while (line := _next_line(hello)) is None:
                self._report(report, expected)
            if not line or self._closed:
                raise self._not_loaded()
            self.url = str(json.loads(line)["url"])
            self.port = int(self.url.rpartition(":")[2])
            report(1.0, f"{self.name} is loaded")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process's id. Raises LoadError before the start."""
        if self._process is None:
            raise LoadError(f"{self.name} has not been started", hint="call start()")
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines that llama.cpp wrote."""
        return tuple(self._log)

    def memory(self) -> Size | None:
        """Bytes of system memory in use; None where the system does not tell (Windows)."""
        return resident_memory(self.pid) if self.alive else None

    def ending(self) -> str:
        """One sentence on how the process ended, with what its log has to say about it."""
        if self._process is None or self._process.poll() is None:
            return f"llama.cpp ({self.name}) is running"
        if self._drain is not None:
            self._drain.join(timeout=1)  # its last words are still on their way
        said = "; ".join(_last_words(self._log, loading=not self.url))
        status = self._process.returncode
        return f"llama.cpp ({self.name}, pid {self._process.pid}) ended with status {status}" + (f": {said}" if said else "")

    def hint(self) -> str:
        """What to try after such an end."""
        status = None if self._process is None else self._process.poll()
        return ENDINGS.get(status or 0, "load the model again" if self.url else "is the file whole? the log is in error.log")

    def close(self) -> None:
        """End the process and wait until it is gone. A second call does nothing."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            _end(process, os.getpid())
        if self._drain is not None:
            self._drain.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check(self) -> None:
        if find_spec("xllamacpp") is None:
            raise MissingExtra("llama.cpp is not installed", hint="pip install 'hydra-infer[llamacpp]'")
        if not self.path.is_file():
            raise UnknownModel(f"there is no file {self.path}", hint="give the path of a .gguf file")
        if self.port:
            _check_free(self.port)

    def _spawn(self) -> queue.SimpleQueue[bytes]:
        spec = {
            "path": str(self.path),
            "name": self.name,
            "context": self.context,
            "slots": self.slots,
            "cache": self.cache.split(","),
            "threads": self.threads,
            "port": self.port,
            "api_key": self.api_key,
            "sys_path": sys.path,
        }
        with self._lock:
            if self._closed or self._process is not None:
                raise LoadError(f"{self.name} was started or closed before", hint="make a new LlamaServer")
            process = self._process = _popen()
        weakref.finalize(self, _end, process, os.getpid())
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None and stdout is not None and stderr is not None  # noqa: PT018  all are pipes
        with suppress(OSError):  # it is gone already: the end of its stdout will say so
            stdin.write(json.dumps(spec).encode() + b"\n")
            stdin.flush()
        hello: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._drain = threading.Thread(target=_keep, args=(stderr, self._log), name="hydra-llama-log", daemon=True)
        self._drain.start()
        threading.Thread(target=_hear, args=(stdout, hello), name="hydra-llama-start", daemon=True).start()
        return hello

    def _report(self, report: Report, expected: int | None) -> None:
        held = self.memory()
        # Memory fills as the file is read, so it is the one honest measure; llama.cpp tells none of its own.
        fraction = min(0.99, held / expected) if held and expected else 0.0
        report(fraction, f"loading {self.name}" + (f", {held} in memory" if held else ""))

    def _not_loaded(self) -> LoadError:
        if self._closed:
            return LoadError(f"loading {self.name} was cancelled", hint="load it again")
        if any("couldn't bind" in line for line in self._log):
            return _taken(self.port)
        if self._process is not None:
            self._process.wait()  # its stdout has ended, so it is ending
        return LoadError(self.ending(), hint=self.hint(), log=self.log)


def serve(model: str | os.PathLike[str], *, progress: Progress = None, **options: Any) -> LlamaServer:
    """A started LlamaServer; `model` is a .gguf file or the name of the bundled model, options are LlamaServer's.

    Nothing is planned here: whoever asks for a server by hand knows what fits.
    """
    server = LlamaServer(model_file(model), **{"name": model_name(model), **options})
    with reporting(progress) as report:
        server.start(report)
    return server


def _popen() -> subprocess.Popen[bytes]:
    # -P: the script's folder holds our modules, which must not stand before the standard library's.
    command = [sys.executable, "-P", str(Path(__file__).with_name("llamacpp_child.py"))]
    # Threads that wait must sleep: spinning ones made two threads on two busy cores 8 to 12 times slower than one.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: no console of its own
        )
    except OSError as error:
        hint = "llama.cpp runs in a second Python: sys.executable must be one"
        raise LoadError(f"{sys.executable!r} could not be started: {error}", hint=hint) from error


def _last_words(log: Iterable[str], *, loading: bool) -> list[str]:
    """The lines that explain an end: the logged errors of a load, else what no logger wrote (a failed assertion, say).

    Errors logged later are of requests, and explain nothing.
    """
    lines = [(LOGGED.match(line), line) for line in log]
    errors = [line[logged.end() :] for logged, line in lines if logged and logged[1] == "E"] if loading else []
    unlogged = [line for logged, line in lines if logged is None]
    return [line.strip() for line in (errors or unlogged)[-3:]]


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End the process: the end of its stdin asks it, and half a second later it is killed (it may be loading, deaf)."""
    if os.getpid() != owner:
        return  # a fork of ours is ending, which is none of its business
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _keep(stream: IO[bytes], log: deque[str]) -> None:
    with stream:
        for line in stream:
            log.append(line.decode("utf-8", "replace").rstrip())


def _hear(stream: IO[bytes], hello: queue.SimpleQueue[bytes]) -> None:
    with stream:
        hello.put(stream.readline())


def _next_line(hello: queue.SimpleQueue[bytes]) -> bytes | None:
    try:
        return hello.get(timeout=0.1)
    except queue.Empty:
        return None


def _check_free(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # a port that was closed a moment ago is free; on Windows this option would mean stealing
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise _taken(port) from error


def _taken(port: int) -> LoadError:
    return LoadError(f"port {port} on {HOST} cannot be used", hint="another program has it: choose another, or port=0 for any")
