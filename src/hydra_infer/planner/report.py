"""The Plan: what was asked, what came out, and how to say it to people and programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .. import table
from ..errors import ConfigError, DoesNotFit
from ..units import Size
from . import draft_room, exllama, llamacpp, options, picture, tabby, verdict
from .cache import PAGE, pages
from .cpu_experts import CpuExperts, cpu_experts
from .draft import Draft, judge
from .request import Request
from .solver import largest
from .speed import Speed, speed
from .suggest import Suggestion, better_split, suggestions
from .usage import DeviceUse, HostUse, Outcome

__all__ = ["Plan"]

# Where a model does not say how long a context it was trained for, the search for the longest ends here.
UNTRAINED_LIMIT = 2**20

_TERMS = ("weights", "cache", "state", "draft", "transient", "overhead", "needed", "free", "left")
_HOST_TERMS = ("weights", "cache", "transient", "overhead", "needed")


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """Whether a model fits, and how. Sizes are Size (bytes); nothing is loaded and nothing is measured.

    `fits` is judged at the high end of the overheads.
    """

    request: Request
    outcome: Outcome

    @classmethod
    def of(cls, request: Request) -> Plan:
        """The plan for a checked request."""
        lay_out = llamacpp.lay_out if request.spec.format == "gguf" else exllama.lay_out
        return cls(request, draft_room.lay_out(request, lay_out))

    # ---- the answer --------------------------------------------------------------------------------------------------

    @property
    def fits(self) -> bool:
        return self.outcome.fits

    @property
    def why(self) -> str:
        """One sentence: what decides and, where it does not fit, what would help."""
        return verdict.why(self)

    @property
    def split(self) -> str:
        """ "single" (one card), "layers" (one card after the other), "tensor" (all at once) or "cpu" (no card)."""
        return self.outcome.split

    @property
    def gpu_split(self) -> list[float] | None:
        """GiB per card to paste into the engine's configuration; None where the engine's split means something else."""
        return None if self.outcome.gpu_split is None else list(self.outcome.gpu_split)

    @property
    def devices(self) -> tuple[DeviceUse, ...]:
        return self.outcome.devices

    @property
    def host(self) -> Size:
        """System RAM: the embedding, and everything where there is no card."""
        return self.host_use.needed

    @property
    def host_use(self) -> HostUse:
        return self.outcome.host

    @property
    def cache_tokens(self) -> int:
        """Tokens there is cache for: one pool in ExLlama, context x slots in llama.cpp."""
        return self.outcome.cache_tokens

    @property
    def longest_prompt(self) -> int:
        """The most prompt tokens that leave room for an answer of one token.

        ExLlama writes a whole draft beyond the last token, and ExLlamaV3 one more (exllamav3 1.6.5, generator/job.py
        prepare_for_queue).
        """
        request = self.request
        if request.engine == "tabby":
            return self.cache_tokens - request.chunk + 1
        if request.engine == "llamacpp":
            return pages(request.context) - 1
        draft = request.drafter.tokens if request.drafter else 0
        return self.cache_tokens - 1 - draft - (request.engine == "exllamav3")

    @property
    def max_context(self) -> int:
        """The longest context, in whole pages, that fits with everything else as asked; 0 where none does.

        No longer than the model was trained for. Searched when asked for: some 20 plans.
        """
        limit = (self.request.spec.geometry.trained_context or UNTRAINED_LIMIT) // PAGE
        return (largest(lambda count: self.replan(context=count * PAGE).fits, 1, limit) or 0) * PAGE

    @property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """What to change so that it fits, cheapest first, each with the plan that it gives; empty where nothing helps.

        Searched when asked for: some tens of plans.
        """
        return tuple(suggestions(self))

    def better_split(self) -> Suggestion | None:
        """The `gpu_split` that reads fastest and fits, None where the loader's own order is as good; says what it gains."""
        return better_split(self)

    def cpu_experts(self) -> CpuExperts | None:
        """How many layers' experts in system RAM would make a mixture fit; None where that is no question or no help."""
        return cpu_experts(self)

    @property
    def speed(self) -> Speed:
        """Decoding: .decode_tps is (low, likely, high) tokens per second of one stream, without a draft."""
        return speed(self.request, self.outcome)

    @property
    def draft(self) -> Draft | None:
        """Whether the draft asked for is valid, fits and pays; None where none was."""
        return judge(self.request, self.outcome)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the numbers rest on that may not be so."""
        return tuple(verdict.warnings(self))

    # ---- what to do with it ------------------------------------------------------------------------------------------

    def replan(self, **changes: Any) -> Plan:
        """The same with some of plan()'s arguments changed, without reading the model again."""
        fixed = sorted(changes.keys() & {"model", "bpw", "format"})
        if fixed:
            raise ConfigError(f"replan keeps the model: {fixed[0]}= cannot change", hint="call plan() again")
        asked = self.request.arguments()
        if "gpu_split" in changes or "reserve" in changes:
            asked.update(gpu_split=None, reserve=None)
        if "split" in changes:
            asked.update(gpu_split=None)
        elif asked["gpu_split"] is not None:
            asked.update(split="auto")
        unknown = sorted(changes.keys() - asked.keys())
        if unknown:
            raise ConfigError(f"replan has no argument {unknown[0]!r}", hint=f"it has {', '.join(sorted(asked))}")
        same = self.request
        return Plan.of(Request.of(same.spec, ram=same.ram, weights=same.weights, **(asked | changes)))

    def raise_if_unfit(self) -> Plan:
        """Itself where it fits, else DoesNotFit carrying it."""
        if not self.fits:
            raise DoesNotFit(
                f"{self.request.spec.name} does not fit: {verdict.verdict(self)}",
                hint=_hint(self),
                plan=self,
            )
        return self

    def tabby_config(self) -> str:
        """TabbyAPI's config.yml for what was counted, with the chunk it needs beyond the context; cards in comments.

        Raises ConfigError for GGUF, DoesNotFit where it does not fit with that chunk.
        """
        return tabby.tabby_config(self)

    def engine_options(self) -> dict[str, Any]:
        """What to hand to the engine itself, by the engine's own argument names, so that it does what was counted."""
        return options.engine_options(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; keys of sizes end in _bytes."""
        request, host = self.request, self.host_use
        return {
            "model": request.spec.name,
            "format": request.spec.format,
            "architecture": request.spec.geometry.architecture,
            "engine": request.engine,
            "context": request.context,
            "cache": request.rate.name,
            "cache_tokens": self.cache_tokens,
            "longest_prompt": self.longest_prompt,
            "slots": request.slots,
            "chunk": request.chunk,
            "split": self.split,
            "gpu_split": self.gpu_split,
            "fits": self.fits,
            "why": self.why,
            "speed": self.speed.to_dict(),
            "draft": None if self.draft is None else self.draft.to_dict(),
            "devices": [_device_dict(device) for device in self.devices],
            "host": {
                **{f"{term}_bytes": int(getattr(host, term)) for term in _HOST_TERMS},
                "available_bytes": None if host.available is None else int(host.available),
            },
            "warnings": list(self.warnings),
        }

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent)

    # ---- how it looks ------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        request = self.request
        title = f"{request.spec.name} ({request.spec.format}, {request.engine}), context {request.context}, "
        title += f"cache {request.rate.name}, split {self.split}"
        terms = [term for term in _TERMS if term not in ("state", "draft") or any(getattr(use, term) for use in self.devices)]
        rows = [["", *terms]]
        rows += [[use.gpu.name, *(str(getattr(use, term)) for term in terms)] for use in self.devices]
        known = {term: str(getattr(self.host_use, term)) for term in _HOST_TERMS}
        known["free"] = "" if self.host_use.available is None else str(self.host_use.available)
        rows.append(["system RAM", *(known.get(term, "") for term in terms)])
        columns = table.text(rows, right=range(1, len(rows[0])))
        said = [self.why, *verdict.remarks(self)]
        return "\n".join([title, columns, *said, *(f"note: {warning}" for warning in self.warnings)])

    def __repr__(self) -> str:
        return f"<Plan {self.request.spec.name}: {verdict.verdict(self)}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": picture.html(self)}


def _hint(plan: Plan) -> str:
    """The two cheapest remedies."""
    remedies = [remedy.why for remedy in islice(suggestions(plan), 2)]
    remedies += [moved.why] if not remedies and (moved := plan.cpu_experts()) else []
    return ", or ".join(remedies) or "another card, or a smaller model"


def _device_dict(use: DeviceUse) -> dict[str, Any]:
    gpu, extra = use.gpu, use.overhead_range
    return {
        "gpu": gpu.name,
        "index": gpu.index,
        "uuid": gpu.uuid,
        "memory_bytes": int(gpu.memory),
        "free_is_assumed": gpu.assumed,
        "layers": use.layers,
        **{f"{term}_bytes": int(getattr(use, term)) for term in _TERMS},
        "overhead_range_bytes": [int(extra.low), int(extra.likely), int(extra.high)],
        "reserve_bytes": int(use.reserve),
        "allowed_bytes": None if use.allowed is None else int(use.allowed),
    }
