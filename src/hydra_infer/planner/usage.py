"""What a loaded model takes, on one card and in system RAM: plain sums with their terms kept apart."""

from __future__ import annotations

from dataclasses import dataclass

from ..hardware.gpu import Gpu
from ..units import Size

__all__ = ["ZERO", "DeviceUse", "HostUse", "Outcome", "Range"]

ZERO = Size(0)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes that cannot be computed, only bracketed by what was measured."""

    low: Size
    likely: Size
    high: Size

    def plus(self, more: int) -> Range:
        """The same range, moved up."""
        return Range(Size(self.low + more), Size(self.likely + more), Size(self.high + more))


NOTHING = Range(ZERO, ZERO, ZERO)


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """One card in a plan. All sizes are bytes; a card that is not used needs nothing.

    `cache` is KV pages, `state` recurrent state, `draft` the draft model, `transient` the largest working memory of any
    forward pass, `overhead` the high end of what the engine's process takes beside all that, `overhead_range` the whole
    of it. `reserve` has to stay free (asked for, or kept by the loader itself). `allowed` is what a manual split grants to
    weights, cache, state and transient of the main model, on top of what is there already. `layers` is how many lie here.
    """

    gpu: Gpu
    weights: Size = ZERO
    cache: Size = ZERO
    state: Size = ZERO
    draft: Size = ZERO
    transient: Size = ZERO
    overhead_range: Range = NOTHING
    reserve: Size = ZERO
    allowed: Size | None = None
    layers: int = 0

    @property
    def overhead(self) -> Size:
        return self.overhead_range.high

    @property
    def loaded(self) -> Size:
        """What the engine itself allocates: everything but the overhead."""
        return Size(self.weights + self.cache + self.state + self.draft + self.transient)

    @property
    def needed(self) -> Size:
        return Size(self.loaded + self.overhead)

    @property
    def free(self) -> Size:
        return self.gpu.free

    @property
    def left(self) -> Size:
        """What stays free; negative where it does not fit."""
        return Size(self.free - self.needed)

    @property
    def used(self) -> bool:
        return self.needed > 0

    @property
    def fits(self) -> bool:
        within = self.allowed is None or self.loaded - self.draft <= self.allowed
        return not self.used or (within and self.left >= self.reserve)


@dataclass(frozen=True, slots=True)
class HostUse:
    """System RAM of a plan; `available` is None where it is not judged. `shared` is how much of it is in /dev/shm."""

    weights: Size = ZERO
    cache: Size = ZERO
    transient: Size = ZERO
    overhead_range: Range = NOTHING
    shared: Size = ZERO
    available: Size | None = None

    @property
    def overhead(self) -> Size:
        return self.overhead_range.high

    @property
    def needed(self) -> Size:
        return Size(self.weights + self.cache + self.transient + self.overhead)

    @property
    def fits(self) -> bool:
        return self.available is None or self.needed <= self.available


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a model would lie: `split` is "single", "layers", "tensor" or "cpu"; `gpu_split` is GiB per card to paste, or None."""

    split: str
    devices: tuple[DeviceUse, ...]
    host: HostUse
    cache_tokens: int
    gpu_split: tuple[float, ...] | None = None

    @property
    def fits(self) -> bool:
        return self.host.fits and all(device.fits for device in self.devices)
