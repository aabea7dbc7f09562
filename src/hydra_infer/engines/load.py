"""Load: from a model, or a plan of one, to an Engine that answers."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import planning
from ..errors import ConfigError, IncompatibleDraft, LoadError
from ..models.bundled import model_file, model_name
from ..models.folder import read_model
from ..planner.report import Plan
from ..units import parse_tokens
from .progress import reporting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..hardware.gpu import Gpu
    from .engine import Engine
    from .progress import Progress

__all__ = ["load"]

# Which engine loads which format (models.spec).
OF_FORMAT = {"gguf": "llamacpp", "exl3": "exllamav3", "exl2": "exllamav2", "hf": "exllamav3"}
ENGINES = ("auto", "echo", *sorted(set(OF_FORMAT.values())))


def load(
    model: str | os.PathLike[str] | Plan,
    *,
    engine: str = "auto",
    gpus: str | Gpu | Sequence[str | Gpu] | None = None,
    context: int | str = 8192,
    cache: str = "fp16",
    split: str = "auto",
    gpu_split: Sequence[float] | None = None,
    reserve: float | Sequence[float] | None = None,
    slots: int = 1,
    draft: str | None = None,
    draft_tokens: int | None = None,
    threads: int | None = None,
    progress: Progress = None,
    force: bool = False,
) -> Engine:
    """An Engine with `model` loaded: a .gguf file, a folder, "smollm2" (the bundled small one), "echo" (none), or a Plan.

    `context` tokens for each of `slots` requests at once; `threads` is for engines on the CPU and defaults to the
    physical cores less one. What the plan says cannot fit is refused (DoesNotFit); `force` loads without planning.
    A Plan brings its own settings, and is made again with the memory that is free now. `progress` is a function
    (fraction, message), False for none, None for a bar where somebody can see it.

    Raises UnknownModel, ConfigError, DoesNotFit, IncompatibleDraft (of a Plan), MissingExtra (with the pip command), LoadError
    (with the engine's words).
    """
    _check_engine(engine)
    device = {"gpus": gpus, "split": split, "gpu_split": gpu_split, "reserve": reserve}
    if isinstance(model, Plan):
        asked = model.request
        device = {"gpus": asked.gpus, "split": asked.split, "gpu_split": asked.gpu_split, "reserve": asked.reserve}
        context, cache, slots, engine = asked.context, asked.rate.name, asked.slots, asked.engine
        model = asked.spec.path
        if asked.drafter is not None:
            if asked.drafter.problem is not None:
                raise IncompatibleDraft(asked.drafter.problem, hint="another draft, or none: p.replan(draft=None)")
            draft, draft_tokens = asked.drafter.kind, asked.drafter.tokens
    device |= {"draft": draft, "draft_tokens": draft_tokens}
    if _means_echo(model, engine):
        from .echo import echo

        _refuse("echo", device)
        return echo(context=parse_tokens(context), slots=slots)
    path = _gguf(model_file(model), engine)
    _refuse("llamacpp", device)
    settings = {"context": context, "cache": cache, "slots": slots}
    expected = None if force else _planned(path, settings)
    return _llamacpp(path, model_name(model), {**settings, "threads": threads}, expected, progress)


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        near = difflib.get_close_matches(str(engine), ENGINES, n=1)
        raise ConfigError(f"engine={engine!r} is not known", hint=f"did you mean {near[0]!r}?" if near else ", ".join(ENGINES))


def _means_echo(model: str | os.PathLike[str], engine: str) -> bool:
    return engine == "echo" or (engine == "auto" and str(model) == "echo" and not Path(model).exists())


def _gguf(path: Path, engine: str) -> Path:
    """The .gguf file at `path`, where that is what lies there and what `engine` loads."""
    kind = "gguf"
    if path.suffix != ".gguf":
        spec = read_model(path)
        kind, path = spec.format, spec.path
    if kind != "gguf":
        raise LoadError(
            f"{path} is {kind}, and its engine, {OF_FORMAT[kind]}, has no driver in this version of hydra_infer",
            hint="a GGUF of the same model runs here: load('model.gguf', engine='llamacpp')",
        )
    if engine not in ("auto", OF_FORMAT[kind]):
        raise LoadError(f"{path} is {kind}, which engine={engine!r} does not load", hint=f"engine={OF_FORMAT[kind]!r} does")
    return path


def _refuse(engine: str, arguments: dict[str, Any]) -> None:
    """Refuse what an engine without a card has no use for, rather than ignore it."""
    for name, value in arguments.items():
        if value not in (None, "auto", (), []):
            raise ConfigError(f"{name}= does not apply: {engine} runs on the CPU here", hint=f"leave {name}= out")


def _planned(path: Path, settings: dict[str, Any]) -> int:
    """The bytes of weights and cache to come. Raises DoesNotFit, and ConfigError for settings that cannot be."""
    use = planning.plan(path, gpus=[], engine="llamacpp", **settings).raise_if_unfit().host_use
    return use.weights + use.cache


def _llamacpp(path: Path, name: str, options: dict[str, Any], expected: int | None, progress: Progress) -> Engine:
    from .engine import Engine
    from .llamacpp import LlamaCppDriver, LlamaServer

    server = LlamaServer(path, name=name, **options)
    with reporting(progress) as report:
        server.start(report, expected=expected)
    return Engine(LlamaCppDriver(server))
