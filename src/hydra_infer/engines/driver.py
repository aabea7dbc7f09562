"""The seam between Engine and whatever runs a model.

A driver knows one engine: its options, its events, its errors. It may import that engine (inside functions), Job, reply
and errors; it knows nothing of planning, routing or servers. Nothing here blocks its caller but `close`: answers go into
the Job, everything else into a Future, so that threads and event loops are served alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..units import Size

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..reply import Embeddings
    from .job import Job

__all__ = ["Driver", "EngineInfo", "Memory"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded: `name` is the engine's ("llamacpp"), `context` the tokens of each of `slots` requests at once.

    `format` is the model's ("gguf"; "none" where there is no model), `cache` the engine's word for the type of its
    key/value cache, `path` the model's file or folder.
    """

    name: str
    model: str
    context: int
    slots: int
    format: str
    cache: str
    path: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data that survives json.dumps unchanged."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use now: `host` is system memory (None where the system does not tell), `devices` each card in PCI order."""

    host: Size | None = None
    devices: tuple[Size, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; sizes in bytes."""
        return {
            "host_bytes": None if self.host is None else int(self.host),
            "device_bytes": [int(size) for size in self.devices],
        }


class Driver(Protocol):
    """What an engine must do to stand behind `Engine`."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def options(self) -> frozenset[str]:
        """Every request field that it understands beside messages and prompt; nothing else reaches it by `chat`."""

    def submit(self, job: Job) -> None:
        """Begin to answer `job.request` ("messages": chat; "prompt": completion), or raise LoadError if it cannot."""

    def cancel(self, job: Job) -> None:
        """Stop working on `job` soon; a job that is not known, or over, is no error."""

    def embed(self, texts: list[str]) -> Future[Embeddings]: ...

    def tokenize(self, text: str) -> Future[list[int]]: ...

    def detokenize(self, ids: list[int]) -> Future[str]: ...

    def stats(self) -> dict[str, Any]:
        """Facts of its own for `Engine.stats()`, as plain data."""

    def memory(self) -> Memory: ...

    def reload(self) -> Future[None]:
        """Load again what a fault has taken down; nothing to do where it is loaded. Raises LoadError where it cannot be."""

    def close(self) -> None:
        """Free everything, fail what is in flight with LoadError, return when it is done. A second call does nothing."""
