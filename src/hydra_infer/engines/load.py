"""Load: from a model, or a plan of one, to an Engine that answers."""

from __future__ import annotations

import difflib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import planning
from ..errors import ConfigError, LoadError
from ..models.bundled import model_file, model_name
from ..models.folder import read_model
from ..planner.report import Plan
from ..units import Size, parse_tokens
from .load_report import DeviceLoad, LoadReport
from .progress import reporting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..hardware.gpu import Gpu
    from .engine import Engine
    from .progress import Progress

__all__ = ["load"]

# Which engine loads which format (models.spec).
OF_FORMAT = {"gguf": "llamacpp", "exl3": "exllamav3", "exl2": "exllamav2", "hf": "exllamav3"}
# What the owner of a format can do beside using its own engine.
ROUTES = {
    "gguf": "ExLlama loads EXL3, EXL2 or plain safetensors of the same model",
    "exl3": "ExLlamaV2 and llama.cpp want an EXL2 or a GGUF of the same model",
    "exl2": "ExLlamaV3 wants an EXL3, converted from the original weights, since EXL2 cannot be converted",
    "hf": "ExLlamaV2 wants an EXL2, llama.cpp a GGUF of the same model",
}
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
    chunk: int = 2048,
    draft: str | os.PathLike[str] | None = None,
    draft_tokens: int | None = None,
    dynamic_draft: bool = False,
    backend: str = "native",
    vision: bool = False,
    warmup: bool | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int | None = None,
    progress: Progress = None,
    force: bool = False,
) -> Engine:
    """An Engine with `model` loaded: a folder, a .gguf file, "smollm2" (the bundled small one), "echo" (none), or a Plan.

    The format decides which engine: EXL3 and plain safetensors go to ExLlamaV3, EXL2 to ExLlamaV2, GGUF to llama.cpp.
    `context` tokens and `slots` requests at once (ExLlama's requests share the context, llama.cpp gives each its own).

    For engines on cards: `gpus`, `split`, `gpu_split` and `reserve` (GiB per card), `chunk` and `draft` mean what they mean in
    `plan()`; `dynamic_draft` lets the engine shorten drafts that are rarely accepted; `backend` carries tensor parallel
    ("native" or "nccl"); `vision` loads the model's own picture encoder; `warmup` runs every kind of pass before the first
    request, which else waits while kernels compile (None: for ExLlamaV3's tensor parallel alone, whose ranks must not wait for
    each other that long); `options` go to ExLlama's generator by its own names, and one that it does not have is an error.
    `threads` is for engines on the CPU and defaults to the physical cores less one.

    What the plan says cannot fit is refused (DoesNotFit) unless `force`. A Plan brings its own settings, and is made again
    with the memory that is free now. `progress` is a function (fraction, message), False for none, None for a bar where
    somebody can see it; whatever it raises cancels the load. `engine.load_report` says what was predicted, and what came.

    Raises UnknownModel, ConfigError, DoesNotFit, IncompatibleDraft, MissingExtra (with the pip command), OutOfMemory (with
    device and stage), LoadError (with the engine's words).
    """
    _check_engine(engine)
    cards: dict[str, Any] = {"gpus": gpus, "split": split, "gpu_split": gpu_split, "reserve": reserve}
    cards |= {"draft": draft, "draft_tokens": draft_tokens}
    extras = {"dynamic_draft": dynamic_draft, "backend": backend, "vision": vision, "warmup": warmup}
    extras["options"] = dict(options or {})
    plan = model if isinstance(model, Plan) else None
    if isinstance(model, Plan):
        asked = model.request
        context, cache, slots, engine = asked.context, asked.rate.name, asked.slots, asked.engine
        cards, model = _cards_of(model), asked.spec.path
    if _means_echo(model, engine):
        from .echo import echo

        _refuse("echo", {**cards, **extras})
        return echo(context=parse_tokens(context), slots=slots)
    path, kind = _found(model_file(model))
    _check_format(path, kind, engine)
    settings = {"context": context, "cache": cache, "slots": slots}
    if kind == "gguf":
        _refuse("llamacpp", {**cards, **extras})
        return _llamacpp(path, model_name(model), {**settings, "threads": threads}, progress, force=force)
    _refuse_threads(kind, threads)
    from .exllama.load import load_exllama

    return load_exllama(
        path,
        OF_FORMAT[kind],
        plan or {**cards, **settings, "chunk": chunk},
        extras=extras,
        progress=progress,
        force=force,
    )


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        near = difflib.get_close_matches(str(engine), ENGINES, n=1)
        raise ConfigError(f"engine={engine!r} is not known", hint=f"did you mean {near[0]!r}?" if near else ", ".join(ENGINES))


def _cards_of(plan: Plan) -> dict[str, Any]:
    """What a plan says about cards, in load()'s words."""
    asked, drafter = plan.request, plan.request.drafter
    draft = (None, None) if drafter is None else (drafter.kind, drafter.tokens)
    devices = {"gpus": asked.gpus, "split": asked.split, "gpu_split": asked.gpu_split, "reserve": asked.reserve}
    return {**devices, "draft": draft[0], "draft_tokens": draft[1]}


def _means_echo(model: str | os.PathLike[str], engine: str) -> bool:
    return engine == "echo" or (engine == "auto" and str(model) == "echo" and not Path(model).exists())


def _found(path: Path) -> tuple[Path, str]:
    """The model's file or folder, and its format."""
    if path.suffix == ".gguf":
        return path, "gguf"
    spec = read_model(path)
    return spec.path, spec.format


def _check_format(path: Path, kind: str, engine: str) -> None:
    right = OF_FORMAT[kind]
    if engine not in ("auto", right):
        raise LoadError(f"{path} is {kind}, which engine={engine!r} does not load", hint=f"engine={right!r} does: {ROUTES[kind]}")


def _refuse(engine: str, arguments: dict[str, Any]) -> None:
    """Refuse what an engine without a card has no use for, rather than ignore it."""
    for name, value in arguments.items():
        if value not in (None, "auto", "native", False, (), [], {}):
            raise ConfigError(f"{name}= does not apply: {engine} runs on the CPU here", hint=f"leave {name}= out")


def _refuse_threads(kind: str, threads: int | None) -> None:
    if threads is not None:
        raise ConfigError(f"threads={threads} does not apply: {OF_FORMAT[kind]} runs on cards", hint="leave threads= out")


def _llamacpp(path: Path, name: str, options: dict[str, Any], progress: Progress, *, force: bool) -> Engine:
    """Raises DoesNotFit, and ConfigError for settings that cannot be, before anything is started."""
    from .engine import Engine
    from .llamacpp import LlamaCppDriver, LlamaServer

    use = None
    if not force:
        asked = {key: value for key, value in options.items() if key != "threads"}
        use = planning.plan(path, gpus=[], engine="llamacpp", **asked).raise_if_unfit().host_use
    server = LlamaServer(path, name=name, **options)
    started = time.perf_counter()
    with reporting(progress) as report:
        server.start(report, expected=None if use is None else use.weights + use.cache)
    predicted = None if use is None else Size(use.weights + use.cache + use.overhead_range.likely)
    host = DeviceLoad("system memory", predicted, server.memory())
    return Engine(LlamaCppDriver(server), load_report=LoadReport((host,), time.perf_counter() - started))
