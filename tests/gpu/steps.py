"""What the check does, in order: each step is one process of its own, small enough to be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LIMIT", "STAGES", "Step", "all_steps", "blocked_by", "still_due"]

# Seconds after which any step is stopped: where machines are rented by the command, one may end after ten minutes.
LIMIT = 530

STAGES = {
    "machine": "What the machine is",
    "wheels": "Packages",
    "build": "Compiled extensions",
    "model": "Synthetic models",
    "memory": "Memory, predicted and actual",
    "speed": "Speed through the Engine and through the raw generator",
    "draft": "Drafting",
    "failure": "Failures and recovery",
    "convert": "Conversion",
    "exl2": "ExLlamaV2",
    "real": "A real model",
}


@dataclass(frozen=True, slots=True)
class Step:
    """`job` is "file.function" under tests/gpu, called with `arguments` in a new process.

    `usual` is what it takes in seconds: no step is begun in less; `limit` is when it is stopped. `resumes`: a step that was
    stopped goes on where it was, so being stopped is no failure. A finished step whose `made` (paths under the state folder)
    are gone counts as not done; steps that make something run only for a step that still needs it.
    """

    name: str
    job: str
    usual: int
    limit: int = LIMIT
    needs: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    resumes: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.name.partition("/")[0]


def still_due(steps: Sequence[Step], done: Collection[str], exists: Callable[[str], bool]) -> list[Step]:
    """The steps to run, in order: those not done, and of those that make something only what another one waits for."""
    lasting = {step.name for step in steps if step.name in done and all(exists(path) for path in step.made)}
    wanted = {step.name for step in steps if step.name not in lasting and not step.made}
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= {need for need in step.needs if need not in lasting}
    return [step for step in steps if step.name in wanted]


def blocked_by(step: Step, unable: Collection[str]) -> str | None:
    """The first of its needs that failed or was itself blocked."""
    return next((need for need in step.needs if need in unable), None)


def all_steps(*, wheels: str | None = None, real: str | None = None) -> list[Step]:
    """Every step; `wheels` is a folder of wheels to install from, `real` that of a real model, where they were given."""
    return [*_ground(wheels), *_models(), *_memory(), *_speed(), *_drafts(), *_failures(), _convert(), *_exl2(), *_real(real)]


# ---- the ground to stand on ------------------------------------------------------------------------------------------

V3, V2 = ("machine", "wheels", "build/exllamav3"), ("machine", "wheels", "build/exllamav2")


def _ground(wheels: str | None) -> Iterable[Step]:
    yield Step("machine", "machine.look", usual=15, limit=60)
    site = ("site/exllamav3", "site/exllamav2")
    yield Step("wheels", "packages.install", 20, 180, needs=("machine",), made=site, arguments={"wheels": wheels})
    for package in ("exllamav3", "exllamav2"):
        made = (f"ext/{package}_ext/{package}_ext.so",)
        needs = ("machine", "wheels")
        yield Step(f"build/{package}", "packages.build", 45, needs=needs, made=made, resumes=True, arguments={"package": package})


# name: the configuration under tests/data/configs, bits per weight, and the token that it always answers with.
MODELS = {
    "1b": ("Llama-3.2-1B-Instruct", 4.0, "a"),
    "1b-other": ("Llama-3.2-1B-Instruct", 4.0, "b"),
    "8b": ("Llama-3.1-8B", 4.0, "a"),
    "27b": ("Qwen3.5-27B", 3.0, "a"),
    "70b": ("Llama-3.1-70B", 2.5, "a"),
}


def _models() -> Iterable[Step]:
    for name, (config, bits, says) in MODELS.items():
        usual = 60 if name in ("27b", "70b") else 30
        arguments = {"name": name, "config": config, "bits": bits, "says": says}
        made = (f"models/{name}/complete",)
        yield Step(f"model/{name}", "recipe.exl3", usual, needs=("machine", "wheels"), made=made, arguments=arguments)
    arguments = {"name": "8b-exl2", "config": "Llama-3.1-8B"}
    yield Step("model/8b-exl2", "recipe.exl2", 30, needs=("machine",), made=("models/8b-exl2/complete",), arguments=arguments)


# ---- what is measured ------------------------------------------------------------------------------------------------

# Each: model, context, cache, split, GiB the loader may use, slots. Tensor parallel on one card runs the loader's parallel
# path with one rank and its CPU helper: hydra_infer itself has no use for it and refuses it.
MEMORY = (
    ("1b", 8192, "fp16", "single", None, 1),
    ("8b", 32768, "fp16", "single", None, 1),
    ("8b", 32768, "q4", "layers", 24, 1),
    ("8b", 65536, "q8", "single", None, 4),
    ("8b", 32768, "fp16", "tensor", None, 1),
    ("27b", 32768, "fp16", "single", None, 4),
    ("27b", 32768, "q8", "layers", 24, 1),
    ("27b", 16384, "fp16", "tensor", None, 1),
    ("70b", 8192, "fp16", "layers", None, 1),
    ("70b", 32768, "q4", "layers", 32, 1),
    ("70b", 32768, "8,4", "single", None, 1),
    ("70b", 32768, "q6", "tensor", None, 1),
)


def _memory() -> Iterable[Step]:
    for model, context, cache, split, budget, slots in MEMORY:
        job = "parallel.measure" if split == "tensor" else "memory.measure"
        arguments = {"model": model, "context": context, "cache": cache, "slots": slots}
        if split != "tensor":
            arguments |= {"split": split, "gpu_split": None if budget is None else [budget]}
        name = f"memory/{model}-{split}-{cache.replace(',', '.')}-{context // 1024}k"
        usual, limit = (100, 480) if split == "tensor" else (60, 300)
        yield Step(name, job, usual, limit, needs=(*V3, f"model/{model}"), arguments=arguments)


def _speed() -> Iterable[Step]:
    for model, batch in (("1b", 1), ("8b", 1), ("8b", 4), ("8b", 8), ("27b", 1), ("70b", 1)):
        arguments = {"model": model, "batch": batch, "prompts": [512, 4096] if model == "8b" else [512]}
        yield Step(f"speed/{model}-batch{batch}", "speed.compare", 90, 400, needs=(*V3, f"model/{model}"), arguments=arguments)


def _drafts() -> Iterable[Step]:
    """The same words, other words, and the text itself: every draft is accepted, or none is, so the rest is arithmetic."""
    for name, model, draft in (
        ("ngram", "8b", "ngram"),
        ("agrees", "8b", "1b"),
        ("differs", "8b", "1b-other"),
        ("mtp", "27b", "mtp"),
    ):
        needs = (*V3, f"model/{model}", *([f"model/{draft}"] if draft in MODELS else []))
        arguments = {"model": model, "draft": draft, "tokens": 3 if draft == "mtp" else 4}
        yield Step(f"draft/{name}", "drafts.compare", 75, 300, needs=needs, arguments=arguments)


def _failures() -> Iterable[Step]:
    for name in ("loading", "answering", "reloading"):
        yield Step(f"failure/{name}", f"failures.{name}", 75, 300, needs=(*V3, "model/8b"), arguments={"model": "8b"})


def _convert() -> Step:
    return Step("convert", "convert.convert", 120, needs=V3, arguments={"rate": 4.0})


def _exl2() -> Iterable[Step]:
    for cache in ("fp16", "q4"):
        arguments = {"model": "8b-exl2", "context": 16384, "cache": cache, "split": "single", "gpu_split": None, "slots": 1}
        yield Step(f"exl2/memory-{cache}", "memory.measure", 60, 300, needs=(*V2, "model/8b-exl2"), arguments=arguments)
    arguments = {"model": "8b-exl2"}
    yield Step("exl2/speed", "speed.compare2", 75, 300, needs=(*V2, "model/8b-exl2"), arguments=arguments)


def _real(folder: str | None) -> Iterable[Step]:
    if folder is None:
        return
    arguments = {"model": folder, "context": 4096, "cache": "fp16", "split": "single", "gpu_split": None, "slots": 1}
    yield Step("real/memory", "memory.measure", 60, 300, needs=V3, arguments=arguments)
    yield Step("real/words", "memory.words_of", 60, 300, needs=V3, arguments={"model": folder})
    yield Step("real/draft", "drafts.compare", 60, 300, needs=V3, arguments={"model": folder, "draft": "ngram", "tokens": 4})
