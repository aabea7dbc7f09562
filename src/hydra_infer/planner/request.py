"""What was asked for, checked once: everything a plan depends on, and nothing that has to be looked up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..hardware.gpu import Gpu
from ..models.spec import ModelSpec
from ..units import Size, gib, parse_tokens
from .cache import CacheRate, rate_of
from .drafter import Drafter, drafter_of
from .weights import Weights, weigh

__all__ = ["ENGINES", "Request", "cards_of"]

# Which engines load which format, the first being the one meant when none is named. TabbyAPI is ExLlama behind a server
# that needs one chunk of cache beyond the context.
ENGINES = {
    "exl3": ("exllamav3", "tabby"),
    "hf": ("exllamav3", "tabby"),
    "exl2": ("exllamav2", "tabby"),
    "gguf": ("llamacpp",),
}

SPLITS = ("auto", "single", "layers", "tensor")

# Nobody serves, or chunks, or holds open, more than this; beyond it the plan would be nonsense rather than large.
MOST_TOKENS = 2**30
MOST_SLOTS = 2**16


@dataclass(frozen=True, slots=True)
class Request:
    """A checked question. `ram` is the system memory available (bytes), None where it is not known or not to be judged.

    `weights` are the model's, weighed once however often the question changes. `context` and `chunk` are tokens;
    `gpu_split` and `reserve` are bytes per card, in the order of `gpus`.
    """

    spec: ModelSpec
    weights: Weights
    gpus: tuple[Gpu, ...]
    ram: Size | None
    engine: str
    context: int
    rate: CacheRate
    split: str
    gpu_split: tuple[Size, ...] | None
    reserve: tuple[Size, ...] | None
    slots: int
    chunk: int
    drafter: Drafter | None = None

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        *,
        gpus: str | Gpu | Iterable[str | Gpu],
        ram: Size | None = None,
        weights: Weights | None = None,
        context: int | str = 8192,
        cache: str = "fp16",
        draft: Any = None,
        draft_tokens: int | None = None,
        split: str = "auto",
        gpu_split: Sequence[float] | None = None,
        reserve: float | Sequence[float] | None = None,
        slots: int = 1,
        chunk: int = 2048,
        engine: str | None = None,
    ) -> Request:
        """Check every argument as a user gives it (sizes in GiB). Raises ConfigError naming argument and value."""
        cards = cards_of(gpus)
        known = ENGINES[spec.format]
        engine = known[0] if engine in (None, "auto") else engine
        if engine not in known:
            raise ConfigError(f"engine={engine!r} does not load {spec.format}", hint=f"{' or '.join(known)} does")
        if not cards and spec.format != "gguf":
            raise ConfigError(
                f"{engine} needs an NVIDIA card, and there is none here", hint="name those to plan for: gpus=['RTX 4090']"
            )
        drafter = drafter_of(draft, draft_tokens, spec)
        if drafter is not None and not cards:
            raise ConfigError("a draft in system RAM is not planned yet", hint="leave draft= out, or name cards")
        return cls(
            spec=spec,
            weights=weigh(spec) if weights is None else weights,
            gpus=cards,
            ram=ram,
            engine=engine,
            context=_count(parse_tokens(context), "context", MOST_TOKENS),
            rate=rate_of(cache, spec.format),
            split=_split(split, cards, gpu_split, spec.format),
            gpu_split=_gpu_split(gpu_split, cards, reserve),
            reserve=_reserve(reserve, cards),
            slots=_count(slots, "slots", MOST_SLOTS),
            chunk=_count(chunk, "chunk", MOST_TOKENS),
            drafter=drafter,
        )

    def arguments(self) -> dict[str, Any]:
        """What a user said: the keyword arguments of `of`, without what was looked up, that give this request again."""
        return {
            "gpus": self.gpus,
            "context": self.context,
            "cache": self.rate.name,
            "split": self.split,
            "gpu_split": None if self.gpu_split is None else [size.gib for size in self.gpu_split],
            "reserve": None if self.reserve is None else [size.gib for size in self.reserve],
            "slots": self.slots,
            "chunk": self.chunk,
            "engine": self.engine,
            "draft": self.drafter,
            "draft_tokens": None,  # the drafter knows
        }

    def reserved(self, index: int) -> Size | None:
        """The reserve asked for on one card, None where nothing was said."""
        return self.reserve[index] if self.reserve is not None and index < len(self.reserve) else None


def cards_of(gpus: str | Gpu | Iterable[str | Gpu]) -> tuple[Gpu, ...]:
    """The cards meant by names and Gpus; a single one is a list of one.

    "name:48:960" is a card of 48 GiB and 960 GB/s. Raises UnknownGpu, and ConfigError for anything else.
    """
    listed = [gpus] if isinstance(gpus, str | Gpu) else list(gpus)
    for card in listed:
        if not isinstance(card, str | Gpu):
            raise ConfigError(f"gpus has {card!r}, which is neither a name nor a Gpu", hint="for example ['RTX 4090']")
    return tuple(_named(card) if isinstance(card, str) else card for card in listed)


def _named(name: str) -> Gpu:
    first, *sizes = name.split(":")
    if not sizes:
        return Gpu(name)
    try:
        memory, bandwidth = (float(size) for size in sizes)
    except ValueError:
        raise ConfigError(f"gpus has {name!r}", hint="a card by hand is name:GiB:GB/s, for example 'mine:48:960'") from None
    return Gpu(first, memory=memory, bandwidth=bandwidth)


def _count(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(f"{name}={value!r} is not a number from 1 to {most}")
    return value


def _split(split: str, cards: tuple[Gpu, ...], gpu_split: Sequence[float] | None, form: str) -> str:
    if split not in SPLITS:
        raise ConfigError(f"split={split!r} is not known", hint=f"one of {', '.join(SPLITS)}")
    if split == "tensor" and form == "gguf":
        raise ConfigError("split='tensor' is not planned yet for gguf", hint="split='layers' is")
    if split != "auto" and not cards:
        raise ConfigError(f"split={split!r} needs a card, and there is none", hint="leave split= out")
    if gpu_split is not None and split == "single":
        raise ConfigError("gpu_split and split='single' exclude each other", hint="leave one of them out")
    return "layers" if gpu_split is not None and split != "tensor" else split


def _gpu_split(values: Sequence[float] | None, cards: tuple[Gpu, ...], reserve: object) -> tuple[Size, ...] | None:
    if values is None:
        return None
    if reserve is not None:
        raise ConfigError("gpu_split and reserve exclude each other: the loader takes one of them")
    sizes = tuple(gib(value, f"gpu_split[{index}]") for index, value in enumerate(values))
    _match(sizes, "gpu_split", cards)
    if not any(sizes):
        raise ConfigError(f"gpu_split={list(values)} leaves no card to load on")
    return sizes


def _reserve(value: float | Sequence[float] | None, cards: tuple[Gpu, ...]) -> tuple[Size, ...] | None:
    if value is None:
        return None
    values = [value] * len(cards) if isinstance(value, int | float) else list(value)
    sizes = tuple(gib(one, f"reserve[{index}]") for index, one in enumerate(values))
    _match(sizes, "reserve", cards)
    return sizes


def _match(sizes: tuple[Size, ...], name: str, cards: tuple[Gpu, ...]) -> None:
    if len(sizes) > len(cards):
        raise ConfigError(f"{name} has {len(sizes)} values for {len(cards)} cards")
    for index, (size, card) in enumerate(zip(sizes, cards, strict=False)):
        # gpu_split may be the marketed size, a little above the real one; a reserve beyond the card is never meant.
        if size > card.memory * (2 if name == "gpu_split" else 1):
            raise ConfigError(
                f"{name}[{index}]={size.gib:g} is larger than {card.name} ({card.memory}): that looks like MB",
                hint=f"sizes are GiB: {math.ceil(size.gib) / 1024:.2g}",
            )
