"""Every error of hydra_infer, in one tree.

HydraError                   .hint: what to try next; str(error) includes it
├─ DoesNotFit                the arithmetic says no: .plan
├─ UnknownModel              no such file, folder, architecture or model name
├─ UnknownGpu                not in the catalogue
├─ IncompatibleDraft         the draft cannot speak for this model
├─ MissingExtra              an optional package is absent (also ImportError)
├─ LoadError                 the engine could not be brought up
├─ OutOfMemory               a card or the machine ran out: .device .stage
├─ ContextTooLong            the prompt is longer than the context: .tokens .context
├─ BackendError              one server: .backend
│  ├─ Unreachable            nothing answered (also ConnectionError)
│  ├─ Refused                it answered no, or nonsense: .status .body
│  └─ StreamBroken           it began to answer, then failed: .text
├─ AllBackendsFailed         every candidate was tried: .attempts
├─ DeadlineExceeded          the time allowed is over (also TimeoutError)
└─ ConfigError               a file or an argument says something impossible (also ValueError)
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AllBackendsFailed",
    "BackendError",
    "ConfigError",
    "ContextTooLong",
    "DeadlineExceeded",
    "DoesNotFit",
    "HydraError",
    "IncompatibleDraft",
    "LoadError",
    "MissingExtra",
    "OutOfMemory",
    "Refused",
    "StreamBroken",
    "UnknownGpu",
    "UnknownModel",
    "Unreachable",
]


class HydraError(Exception):
    """What went wrong, with the thing and the numbers; `hint` is the next step.

    Facts beyond the message (`plan`, `backend`, `text`, …) are keyword arguments and become attributes.
    """

    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # n8n and many log lines show nothing but str(error), so the hint travels with the message.
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not survive pickling (multiprocessing, executors) by themselves.
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(cls: type[HydraError], message: str, state: dict[str, Any]) -> HydraError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class DoesNotFit(HydraError):
    """The plan needs more memory than there is. `plan` is the plan that says so."""

    plan: Any = None


class UnknownModel(HydraError):
    """No such model: a path that is not there, an architecture not known, or a name no backend serves."""


class UnknownGpu(HydraError):
    """A card that is not in the catalogue and was not described by memory and bandwidth."""


class IncompatibleDraft(HydraError):
    """The draft model's vocabulary or tokenizer differs from the main model's."""


class MissingExtra(HydraError, ImportError):
    """An optional package is needed here; the hint is the pip command."""


class LoadError(HydraError):
    """The engine could not load the model, or ended while loading it."""


class OutOfMemory(HydraError):
    """Memory ran out on `device` during `stage`."""

    device: str | None = None
    stage: str | None = None


class ContextTooLong(HydraError):
    """The prompt has `tokens` tokens; `context` is what there is room for."""

    tokens: int | None = None
    context: int | None = None


class BackendError(HydraError):
    """Something one server did. `backend` is its name."""

    backend: str | None = None


class Unreachable(BackendError, ConnectionError):
    """Nothing answered: refused, no such host, or silence within the time allowed."""


class Refused(BackendError):
    """The server answered, and the answer is no or not usable: `status` (HTTP), `body` (text, shortened)."""

    status: int | None = None
    body: str | None = None


class StreamBroken(BackendError):
    """The server began to answer and then failed. `text` is what had arrived; nothing is spliced from elsewhere."""

    text: str = ""


class AllBackendsFailed(HydraError):
    """Every candidate was tried or resting. `attempts` tells each one's story, in order."""

    attempts: tuple[Any, ...] = ()


class DeadlineExceeded(HydraError, TimeoutError):
    """The time allowed for the whole call is over. `attempts` tells what was tried."""

    attempts: tuple[Any, ...] = ()


class ConfigError(HydraError, ValueError):
    """A file or an argument says something that cannot be; the message names the file, the field and the value."""
