"""Whether a draft pays: the speed-up to expect, and from which acceptance on there is any.

The speed-up of drafting n tokens of which the share a is accepted is (1 + n a) / (1 + n c); c is what one drafted token
costs, in steps of the main model: the drafter's own step and the main model's extra work for one more row to verify.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..models.spec import Geometry
from ..units import Size
from .cache import cache_bytes
from .draft_room import draft_rate
from .drafter import Drafter
from .request import Request
from .speed import PACES, Pace, Stage, active_share, seconds, stages
from .usage import DeviceUse, Outcome

__all__ = ["VERIFY", "Draft", "acceptance", "expert_cost", "judge", "row_cost", "speedup"]

# What one more row to verify costs, in steps, by CUDA capability: fitted on one row each of the measured ones (two for
# 8.9 and 7.0), which docs/accuracy_measured.md names. For other generations the dearest of them; for a card without CUDA
# what an Apple M4 shows, where drafting gains nothing.
VERIFY = {"7.0": 0.302, "8.6": 0.137, "8.9": 0.108, "12.0": 0.106}
VERIFY_WITHOUT_CUDA = 0.69

# Other streams use the card's spare arithmetic, which verifying lives from. With two, three drafted tokens brought 1.08
# times the speed instead of 1.70, c three times as large; with four nothing (2 x RTX 5060 Ti, qwen38-mtp).
BUSY = 3.0
TOO_BUSY = 4

# The share of drafted tokens that is accepted: (prose, mixed, code). MTP by draft length: an RTX 5090's series, the mixed
# one over 27 runs and the others its lowest and highest single runs (qwen38-mtp, sweeps/rtx-5090.md).
MTP_ACCEPTANCE = {
    1: (0.68, 0.889, 0.94),
    2: (0.56, 0.790, 0.92),
    3: (0.45, 0.725, 0.90),
    4: (0.38, 0.647, 0.87),
    5: (0.30, 0.591, 0.78),
    6: (0.27, 0.537, 0.76),
}

# Per drafted token, given those before it: a small model of the same family. T5-small for T5-XXL had 0.53 to 0.75
# (Leviathan et al. 2023, table 2), an 8B for a 70B accepted 58.7 % of 8 tokens, which is 0.9 each (devquasar).
MODEL_ACCEPTANCE = (0.53, 0.75, 0.90)

# Prompt lookup made input-grounded tasks 2.4 times as fast with 10 tokens a round, so about 14 % were accepted
# (prompt-lookup-decoding's README); nothing where nothing repeats, nearly all where a text is copied.
NGRAM_ACCEPTANCE = (0.0, 0.14, 0.90)


Three = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan's draft, judged. `acceptance` and `speedup` are (low, likely, high): prose, mixed text, code.

    `valid`: its tokens are the main model's. `fits`: the whole plan fits with it, valid or not. `pays`: it is valid, fits, and
    the likely speed-up is above 1. `break_even` is the acceptance from which it gains anything, None where the speeds are not
    known. `size` is what it takes on the cards. `judged`: its cost was checked against measurements, which are of MTP with
    llama.cpp only.
    """

    kind: str
    draft_tokens: int
    valid: bool
    fits: bool
    pays: bool
    acceptance: Three
    speedup: Three | None
    break_even: float | None
    size: Size
    judged: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the key of the size ends in _bytes."""
        values = asdict(self)
        values["size_bytes"] = int(values.pop("size"))
        return values


def acceptance(kind: str, tokens: int) -> Three:
    """The default (low, likely, high) share of `tokens` drafted per round that is accepted. Beyond 6 MTP's is that of 6."""
    if kind == "mtp":
        return MTP_ACCEPTANCE[min(tokens, max(MTP_ACCEPTANCE))]
    if kind == "ngram":
        return NGRAM_ACCEPTANCE
    low, likely, high = (sum(each**place for place in range(1, tokens + 1)) / tokens for each in MODEL_ACCEPTANCE)
    return low, likely, high


def speedup(tokens: int, accepted: float, cost: float) -> float:
    """(1 + n a) / (1 + n c): Leviathan et al. 2023 with the cost of verifying added to the drafter's own."""
    return (1 + tokens * accepted) / (1 + tokens * cost)


def row_cost(main: Sequence[Stage], drafts: Stage, paces: tuple[Pace, Pace], split: str, filled: float = 0.5) -> float:
    """What one drafted token costs, in steps of the main model: the drafter's own step and one more row to verify.

    `paces` are the main model's and the drafter's engine's. Of several cards the dearest row counts.
    """
    own = seconds([drafts], paces[1], "single", filled) / seconds(main, paces[0], split, filled)
    return own + max(_verify(part.capability) for part in main)


def _verify(capability: str | None) -> float:
    return VERIFY_WITHOUT_CUDA if capability is None else VERIFY.get(capability, max(VERIFY.values()))


def expert_cost(geometry: Geometry, main: Sequence[Stage], pace: Pace, split: str, tokens: int) -> float:
    """What each drafted token adds in a mixture of experts, in steps: more rows choose more experts, which are read too."""
    wider = active_share(geometry, tokens + 1) / active_share(geometry)
    more = [replace(part, weights=part.weights * wider) for part in main]
    return (seconds(more, pace, split, 0.5) / seconds(main, pace, split, 0.5) - 1) / tokens


def judge(request: Request, outcome: Outcome) -> Draft | None:
    """The Draft of a plan, None where none was asked for."""
    drafter = request.drafter
    if drafter is None:
        return None
    wrong = drafter.problem
    accepted = acceptance(drafter.kind, drafter.tokens)
    cost = None if wrong else _cost(request, outcome, drafter)
    gains = None
    if cost is not None:
        low, likely, high = (speedup(drafter.tokens, share, cost) for share in accepted)
        gains = low, likely, high
    fits = outcome.fits and (drafter.kind == "ngram" or drafter.takes_room)
    return Draft(
        kind=drafter.kind,
        draft_tokens=drafter.tokens,
        valid=wrong is None,
        fits=fits,
        pays=wrong is None and fits and gains is not None and gains[1] > 1 and request.slots < TOO_BUSY,
        acceptance=accepted,
        speedup=gains,
        break_even=cost,
        size=Size(sum(use.draft for use in outcome.devices)),
        judged=_is_judged(request, outcome, drafter),
        why=wrong or _why(request, outcome, drafter, accepted, gains),
    )


def _is_judged(request: Request, outcome: Outcome, drafter: Drafter) -> bool:
    known = all(use.gpu.capability in VERIFY for use in outcome.devices if use.used)
    return known and request.spec.format == "gguf" and drafter.kind == "mtp" and request.slots == 1


def _cost(request: Request, outcome: Outcome, drafter: Drafter) -> float | None:
    """What a drafted token costs here, in steps; None where a bandwidth is not known."""
    used = [use for use in outcome.devices if use.used]
    if not used or any(use.gpu.bandwidth is None for use in used):
        return None
    pace, main = PACES[request.spec.format], stages(request, outcome)
    drafts = _draft_stage(request, next((use for use in used if use.draft), used[0]), drafter)
    own = PACES[request.spec.format if drafter.spec is None else drafter.spec.format]
    cost = row_cost(main, drafts, (pace, own), outcome.split)
    cost += expert_cost(request.spec.geometry, main, pace, outcome.split, drafter.tokens)
    return cost * (BUSY if request.slots > 1 else 1.0)


def _draft_stage(request: Request, use: DeviceUse, drafter: Drafter) -> Stage:
    """What drafting one token reads on its card; an MTP head passes the main model's output head as well."""
    bandwidth, capability = use.gpu.bandwidth or 0.0, use.gpu.capability
    if drafter.kind == "ngram":
        return Stage(bandwidth, capability, 0.0)
    if drafter.spec is None or drafter.weights is None:
        return Stage(bandwidth, capability, drafter.mtp + request.weights.head, layers=drafter.layers)
    geometry, rate = drafter.spec.geometry, draft_rate(request)
    return Stage(
        bandwidth,
        capability,
        weights=drafter.weights.on_device * active_share(geometry),
        cache=sum(cache_bytes(layer.attention, rate, request.context) for layer in geometry.layers),
        layers=drafter.layers,
        plain=rate.plain,
    )


def _why(request: Request, outcome: Outcome, drafter: Drafter, accepted: Three, gains: Three | None) -> str:
    if not outcome.fits:
        return "the plan does not fit with it"
    if gains is None:
        return "whether it pays is not predicted: the bandwidth of the cards is not known"
    if request.slots >= TOO_BUSY:
        return f"with {request.slots} streams at once there is nothing left to verify with: from 4 on no gain was measured"
    said = f"{drafter.tokens} tokens a round, {accepted[1]:.0%} accepted (assumed; {accepted[0]:.0%} to {accepted[2]:.0%}), "
    said += f"make {gains[1]:.2f} times the speed ({gains[0]:.2f} to {gains[2]:.2f})"
    return said if drafter.compared else f"{said}; only the sizes of the vocabularies were compared, not the tokenizers"
