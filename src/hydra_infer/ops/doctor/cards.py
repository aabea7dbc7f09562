"""The cards of this machine against what its servers are to load: kind, driver, order, and the memory that is free now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...hardware.gpu import ASSUMED_IN_USE, Gpu
from ...planner.report import Plan
from ...planner.verdict import why
from ...units import Size
from .report import Finding

__all__ = ["CardFacts", "check_cards", "check_draft", "check_room", "emptied"]

# NVIDIA's CUDA release notes, table "CUDA Toolkit and Minimum Required Driver Versions": 12.x from 525, 13.x from 580. Cards of
# capability 10 and up came with 12.8, whose driver is 570.
_DRIVERS = {12: 525, 13: 580}
_BLACKWELL, _BLACKWELL_DRIVER = 10.0, 570
# exllamav3's kernels need Ampere.
_LEAST = 8.0


@dataclass(frozen=True, slots=True)
class CardFacts:
    """`driver` is its version, `cuda` the major version that the server's torch was built for; None where it does not tell.

    `order` is CUDA_DEVICE_ORDER in the server's unit, None where there is no unit to look at.
    """

    cards: Sequence[Gpu]
    driver: str | None = None
    cuda: int | None = None
    order: str | None = None


def check_cards(facts: CardFacts, where: str) -> Iterator[Finding]:
    """Whether ExLlamaV3 can run on them, and on which it runs when its configuration says "the first"."""
    if not facts.cards:
        yield Finding(
            "error",
            where,
            "no NVIDIA card answers here",
            "ExLlama has no other place to run",
            "nvidia-smi: is the driver loaded? after an update of it the machine must be started again",
        )
        return
    for card in facts.cards:
        if card.capability is not None and float(card.capability) < _LEAST:
            yield Finding(
                "warning",
                where,
                f"{card.name} has capability {card.capability}",
                f"ExLlamaV3 needs {_LEAST} (Ampere) or newer",
                "leave it out with CUDA_VISIBLE_DEVICES, or serve GGUF on it",
            )
    yield from _driver(facts, where)
    if facts.order is not None and facts.order != "PCI_BUS_ID" and len({card.name for card in facts.cards}) > 1:
        yield Finding(
            "warning",
            where,
            "CUDA_DEVICE_ORDER is not PCI_BUS_ID in its unit",
            "CUDA then counts the fastest card first: gpu_split may reach the wrong cards",
            "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )


def _driver(facts: CardFacts, where: str) -> Iterator[Finding]:
    if facts.driver is None:
        return
    newest = max((float(card.capability) for card in facts.cards if card.capability), default=0.0)
    needed = max(_DRIVERS.get(facts.cuda or 0, 0), _BLACKWELL_DRIVER if newest >= _BLACKWELL else 0)
    if int(facts.driver.partition(".")[0]) < needed:
        yield Finding(
            "error",
            where,
            f"the driver is {facts.driver}, and {needed} is needed",
            "the server's torch does not start on these cards",
            f"install driver {needed} or newer",
        )


def check_room(plan: Plan, where: str, model: str, *, now: bool) -> Iterator[Finding]:
    """A model's plan: on what is free `now`, where it is to be loaded there, or else on cards that nothing uses."""
    if plan.fits:
        return
    holders = sorted({f"{one.name} (pid {one.pid})" for use in plan.devices for one in use.gpu.processes})
    held = f"; on the cards are {', '.join(holders)}" if holders else ""
    yield Finding(
        "error",
        where,
        f"{model} does not fit {'now' if now else 'its cards'}: {why(plan)}{held}",
        "loading it ends with 'Insufficient VRAM', at every start anew",
        "end what holds the memory, or change what the plan says" if now else "change what the plan says",
    )


def check_draft(plan: Plan, where: str, model: str) -> Iterator[Finding]:
    """Whether the draft model that is configured can speak for this one."""
    if plan.draft is not None and not plan.draft.valid:
        yield Finding(
            "error",
            where,
            f"the draft of {model}: {plan.draft.why}",
            "neither ExLlama nor TabbyAPI checks this: answers are nonsense, or the engine ends",
            "a draft model of the same family, or ngram, which needs none",
        )


def emptied(card: Gpu) -> Gpu:
    """The card as if nothing ran on it."""
    room = max(card.free, Size(card.memory - ASSUMED_IN_USE))
    return Gpu(
        card.name,
        memory=card.memory,
        free=room,
        bandwidth=card.bandwidth,
        capability=card.capability,
        index=card.index,
        uuid=card.uuid,
    )
