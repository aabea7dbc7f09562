"""The Plan: what was asked, what came out, and how to say it to people and programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DoesNotFit
from ..units import Size
from . import exllama, llamacpp, picture
from .cache import PAGE, pages
from .request import Request
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
        return cls(request, lay_out(request))

    # ---- the answer --------------------------------------------------------------------------------------------------

    @property
    def fits(self) -> bool:
        return self.outcome.fits

    @property
    def why(self) -> str:
        """One sentence: what decides."""
        short = [device for device in self.devices if not device.fits]
        if not self.host_use.fits:
            return f"needs {self.host} of system RAM, {self.host_use.available} are available"
        if short:
            return "; ".join(_shortage(device) for device in short)
        if not self.devices:
            return f"fits in system RAM: needs {self.host}" + _of(self.host_use.available)
        used = ", ".join(f"{use.gpu.name} {use.needed} of {use.free}" for use in self.devices if use.used)
        return f"fits: {used}"

    @property
    def split(self) -> str:
        """ "single" (one card), "layers" (one card after the other) or "cpu" (no card)."""
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
        """The most prompt tokens that leave room for an answer of one token."""
        if self.request.engine == "tabby":
            return self.cache_tokens - self.request.chunk + 1
        per_slot = pages(self.request.context) if self.request.engine == "llamacpp" else self.cache_tokens
        return per_slot - 1

    @property
    def max_context(self) -> int:
        """The longest context, in whole pages, that fits with everything else as asked; 0 where none does.

        No longer than the model was trained for. Searched when asked for: some 20 plans.
        """
        low, high = 0, (self.request.spec.geometry.trained_context or UNTRAINED_LIMIT) // PAGE
        while low < high:
            middle = (low + high + 1) // 2
            if self.replan(context=middle * PAGE).fits:
                low = middle
            else:
                high = middle - 1
        return low * PAGE

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the numbers rest on that may not be so."""
        return tuple(_warnings(self))

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
        unknown = sorted(changes.keys() - asked.keys() - {"draft", "draft_tokens"})
        if unknown:
            raise ConfigError(f"replan has no argument {unknown[0]!r}", hint=f"it has {', '.join(sorted(asked))}")
        same = self.request
        return Plan.of(Request.of(same.spec, ram=same.ram, weights=same.weights, **(asked | changes)))

    def raise_if_unfit(self) -> Plan:
        """Itself where it fits, else DoesNotFit carrying it."""
        if not self.fits:
            raise DoesNotFit(
                f"{self.request.spec.name} does not fit: {self.why}",
                hint="try a smaller context or cache, fewer bits per weight, or another card",
                plan=self,
            )
        return self

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
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        return "\n".join([title, *table, self.why, *(f"note: {warning}" for warning in self.warnings)])

    def __repr__(self) -> str:
        return f"<Plan {self.request.spec.name}: {self.why}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": picture.html(str(self), self.devices)}


def _of(available: Size | None) -> str:
    return "" if available is None else f" of {available}"


def _shortage(use: DeviceUse) -> str:
    if use.allowed is not None and use.loaded > use.allowed:
        return f"needs {use.loaded} on {use.gpu.name}, gpu_split allows {use.allowed}"
    text = f"needs {use.needed} on {use.gpu.name}, has {use.free}"
    if use.left >= 0:
        return f"{text}, of which {use.reserve} must stay free: {Size(use.reserve - use.left)} too little"
    return f"{text}: {Size(-use.left)} too little"


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


def _warnings(plan: Plan) -> list[str]:
    request, spec = plan.request, plan.request.spec
    found = []
    trained = spec.geometry.trained_context
    if trained is not None and request.context > trained:
        found.append(f"context {request.context} is beyond the {trained} tokens the model was trained for")
    if not spec.tensors:
        found.append(f"weights are computed from config.json at {spec.bpw:g} bits per weight: there are no files to read")
    elif other := request.weights.other:
        found.append(f"{other} in the files are not counted: no layer of the text model uses them")
    for use in plan.devices:
        holders = ", ".join(
            f"{process.name} (pid {process.pid}){'' if process.used is None else f' {process.used}'}"
            for process in use.gpu.processes
        )
        if holders:
            found.append(f"{use.gpu.name} is in use: {holders}")
    assumed = [use.gpu.name for use in plan.devices if use.gpu.assumed]
    if assumed:
        found.append(f"free memory is assumed, not measured: {', '.join(assumed)}")
    return found
