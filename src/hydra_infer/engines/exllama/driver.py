"""ExllamaDriver: either ExLlama engine behind Engine's seam, on the one thread that owns it."""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...hardware import nvml
from ...units import Size
from ..driver import Memory
from ..machine import resident_memory
from ..thread import EngineThread
from .params import known_fields
from .stepper import Stepper

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...reply import Embeddings
    from ..job import Job
    from .prompt import Prompts
    from .seam import Runner

__all__ = ["ExllamaDriver"]


class ExllamaDriver:
    """Loads with `open_runner` on a thread of its own, and answers from there until `close`. Raises what loading raises.

    `wait` passes on the load's progress meanwhile, on the caller's thread.
    """

    def __init__(
        self, open_runner: Callable[[], Runner], prompts: Prompts, *, wait: Callable[[Future[Stepper]], object] = Future.result
    ) -> None:
        self.thread = EngineThread(lambda: Stepper(open_runner, prompts), name="hydra-exllama", wait=wait)
        self._stepper = self.thread.stepper
        self.info = self._stepper.info
        self.options = known_fields(self._stepper.sampling)

    def submit(self, job: Job) -> None:
        self.thread.submit(job)

    def cancel(self, job: Job) -> None:
        self.thread.cancel(job)

    def embed(self, texts: list[str]) -> Future[Embeddings]:
        raise ConfigError(
            f"{self.info.name} gives no embeddings ({len(texts)} texts asked)",
            hint="load an embedding model's GGUF: hydra_infer.load('model.gguf')",
        )

    def tokenize(self, text: str) -> Future[list[int]]:
        return self.thread.call(lambda: self._stepper.runner().plain_ids(text))

    def detokenize(self, ids: list[int]) -> Future[str]:
        return self.thread.call(lambda: self._stepper.runner().decode(ids))

    def reload(self) -> Future[None]:
        return self.thread.call(self._stepper.reload)

    def stats(self) -> dict[str, Any]:
        return self._stepper.stats()

    def memory(self) -> Memory:
        return Memory(resident_memory(os.getpid()), tuple(Size(card.memory - card.free) for card in nvml.gpus()))

    def close(self) -> None:
        self.thread.close()
