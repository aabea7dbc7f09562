"""How fast a plan decodes: tokens per second of one stream, from what each card reads per token and how fast it reads.

One step of one card takes layers x fixed + bytes / (efficiency x bandwidth). A layer split adds the cards' times; tensor
parallel waits for the slowest card, and then for two all-reduces per layer. The constants are fitted on some published
rows and judged on others: docs/accuracy_measured.md lists which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models.spec import Geometry, Layer, Recurrent
from .request import Request
from .usage import Outcome

__all__ = ["PACES", "Pace", "Speed", "Stage", "active_share", "ceiling", "seconds", "speed", "stages"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How well an engine uses cards. `efficiency` is the share of the bandwidth reached on weights, by CUDA capability.

    `elsewhere` is the share taken for generations nobody measured; `thin` scales both below THIN_BITS. `layer` and `sync` are
    seconds per layer and per all-reduce, `cache` the shares reached on plain and on quantised keys and values. `judged` tells
    whether they were checked against measurements.
    """

    efficiency: Mapping[str, float]
    elsewhere: float
    layer: float
    thin: float = 1.0
    sync: float = 23e-6
    cache: tuple[float, float] = (0.37, 0.175)
    judged: bool = True

    def reached(self, capability: str | None, bits: float) -> float:
        """The share of its bandwidth that a card of this generation reaches on weights of so many bits."""
        share = self.efficiency.get(capability or "", self.elsewhere)
        return share * self.thin if bits < THIN_BITS else share


# Below this many bits per weight llama.cpp's kernels are bound by arithmetic: on an RTX 3090 and an RTX 3080 three rows of
# 2- and 3-bit files reach 70 to 83 % of what 4 bits reach.
THIN_BITS = 4.0

# What is assumed for a generation without a row here: a V100 with llama.cpp, the least efficient one known.
OLDEST = 0.61

# Factors from likely to low and high: judged rows are at most 11 % off (tests/measured); elsewhere, from the least to the most
# efficient engine known.
NEAR, WIDE = (0.85, 1.15), (0.7, 1.4)

# Not one published row of exllamav3 1.x says all that is needed. Its bracket: an RTX 3090 with Qwen3.8-27B at 4.0 bits made
# 39 to 41 tokens per second with MTP (local-ai-registry PR 56), some 25 without it, a share of 0.45; and exllamav2's 0.85.
_EXLLAMAV3 = Pace({}, 0.6, 38.9e-6, judged=False)

PACES = {
    # exllamav2's README: RTX 4090 (TinyLlama 4.0 and 70B 2.5 bpw) and RTX 3090 Ti (70B).
    "exl2": Pace({"8.6": 0.788, "8.9": 0.923}, OLDEST, 38.9e-6),
    # qwen38-mtp: RTX 5090 and RTX 5060 Ti together, RTX 3090, RTX 4090; all-reduces and cache from two RTX 5060 Ti.
    "gguf": Pace({"8.6": 0.828, "8.9": 0.892, "12.0": 0.917}, OLDEST, 47e-6, thin=0.75),
    "exl3": _EXLLAMAV3,
    "hf": _EXLLAMAV3,
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One card's part of a step: bytes of weights read and of state read and written per token, `cache` of a full context.

    `bandwidth` is GB/s, `bits` are per weight; `plain` says that the cache is not quantised.
    """

    bandwidth: float
    capability: str | None
    weights: float
    cache: float = 0.0
    state: float = 0.0
    layers: int = 0
    bits: float = 16.0
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of one stream without drafting, as (low, likely, high); None where it cannot be said, `why` tells.

    `likely` is with the context half full, `high` with it empty, `low` with it full. `ceiling` is what the bandwidth allows.
    `judged` is False where the constants are assumed, not checked against measurements.
    """

    decode_tps: tuple[float, float, float] | None
    ceiling: float | None
    judged: bool
    why: str

    def __str__(self) -> str:
        if self.decode_tps is None:
            return f"decode speed not predicted: {self.why}"
        low, likely, high = self.decode_tps
        return f"decodes {likely:.0f} tokens/s ({low:.0f} to {high:.0f}{'' if self.judged else ', by assumed efficiencies'})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; speeds are tokens per second."""
        tps = None if self.decode_tps is None else list(self.decode_tps)
        return {"decode_tps": tps, "ceiling_tps": self.ceiling, "judged": self.judged, "why": self.why}


def seconds(parts: Sequence[Stage], pace: Pace, split: str, filled: float) -> float:
    """Time of one step with the share `filled` of the context in the cache. `split` is "single", "layers" or "tensor"."""
    times = [_stage_seconds(part, pace, filled) for part in parts]
    if split != "tensor":
        return sum(times)
    return max(times) + 2 * max(part.layers for part in parts) * pace.sync


def _stage_seconds(part: Stage, pace: Pace, filled: float) -> float:
    rate = part.bandwidth * 1e9
    weights = (part.weights + part.state) / (rate * pace.reached(part.capability, part.bits))
    cache = part.cache * filled / (rate * pace.cache[0 if part.plain else 1])
    return part.layers * pace.layer + weights + cache


def ceiling(parts: Sequence[Stage], split: str) -> float:
    """Tokens per second if the weights were all that is read, at the full bandwidth: nothing can be faster."""
    times = [part.weights / (part.bandwidth * 1e9) for part in parts]
    return 1 / (max(times) if split == "tensor" else sum(times))


def speed(request: Request, outcome: Outcome) -> Speed:
    """The Speed of a plan's outcome."""
    pace = PACES[request.spec.format]
    if not outcome.devices:
        return Speed(None, None, False, "decoding in system RAM is not predicted: its bandwidth is not known")
    unknown = [use.gpu.name for use in outcome.devices if use.used and use.gpu.bandwidth is None]
    if unknown:
        return Speed(None, None, False, f"the bandwidth of {unknown[0]} is not known: Gpu(name, memory=…, bandwidth=GB/s)")
    parts = stages(request, outcome)
    most = ceiling(parts, outcome.split)
    slow, middle, fast = (1 / seconds(parts, pace, outcome.split, filled) for filled in (1.0, 0.5, 0.0))
    judged = pace.judged and all(_is_judged(part, pace) for part in parts)
    less, more = NEAR if judged else WIDE
    tps = (slow * less, min(middle, most), min(fast * more, most))
    return Speed(tps, most, judged, _why(request, parts, judged))


def _is_judged(part: Stage, pace: Pace) -> bool:
    return part.capability in pace.efficiency and (pace.thin == 1.0 or part.bits >= THIN_BITS)


def _why(request: Request, parts: Sequence[Stage], judged: bool) -> str:
    read = sum(part.weights + part.state for part in parts) / 1e9
    text = f"{read:.1f} GB are read per token, and {sum(part.cache for part in parts) / 1e9:.1f} GB of cache when it is full"
    return text if judged else f"{text}; assumed efficiency: no measurements of {request.engine} here to judge it by"


def stages(request: Request, outcome: Outcome) -> list[Stage]:
    """What each used card reads per token of one stream. Every used card must have a bandwidth."""
    geometry, slots = request.spec.geometry, request.slots
    share = active_share(geometry)
    elements = sum(_elements(geometry.hidden, layer, every=True) for layer in geometry.layers) + geometry.hidden * geometry.vocab
    bits = 8 * sum(use.weights for use in outcome.devices) / elements
    one_context = request.context / max(1, outcome.cache_tokens)
    # A recurrent state is read and written. ExLlama holds both of these, llama.cpp one for each token it may have to undo.
    drafted = request.drafter.tokens if request.drafter else 0
    passes = 2 / (1 + drafted) if request.spec.format == "gguf" else 1.0
    return [
        Stage(
            bandwidth=use.gpu.bandwidth or 0.0,
            capability=use.gpu.capability,
            weights=use.weights * share,
            cache=use.cache * min(1.0, one_context),
            state=passes * use.state / slots,
            layers=len(geometry.layers) if outcome.split == "tensor" else use.layers,
            bits=bits,
            plain=request.rate.plain,
        )
        for use in outcome.devices
        if use.weights
    ]


def active_share(geometry: Geometry, rows: int = 1) -> float:
    """The share of the loaded weights that one step over `rows` tokens reads: of the experts only those chosen.

    Each token is taken to choose its k of n experts evenly: n (1 - (1 - k/n)^rows) different ones.
    """
    head = geometry.hidden * geometry.vocab
    read = sum(_elements(geometry.hidden, layer, every=False, rows=rows) for layer in geometry.layers)
    held = sum(_elements(geometry.hidden, layer, every=True) for layer in geometry.layers)
    return (read + head) / (held + head)


def _elements(hidden: int, layer: Layer, *, every: bool, rows: int = 1) -> float:
    """Elements of a layer's large matrices, of all experts or of those that `rows` tokens choose."""
    total = 0.0
    if isinstance(layer.attention, Recurrent):
        total += hidden * (layer.attention.channels + 2 * layer.attention.q_width)
    elif layer.attention is not None:
        total += 2 * hidden * (layer.attention.q_width + layer.attention.kv_width)
    if layer.mlp is not None:
        count: float = max(1, layer.mlp.experts)
        if layer.mlp.experts and not every:
            count *= 1 - (1 - layer.mlp.experts_per_token / layer.mlp.experts) ** rows
        total += (3 if layer.mlp.gated else 2) * hidden * (layer.mlp.intermediate * count + layer.mlp.shared)
    return total
