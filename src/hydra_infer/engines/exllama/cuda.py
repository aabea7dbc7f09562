"""CUDA's numbers for the cards: which card is cuda:0, decided before CUDA starts and checked once it has.

CUDA by itself numbers the fastest card 0 (CUDA C++ Programming Guide, CUDA_DEVICE_ORDER); everywhere in this library cards
are in PCI bus order, so that is what CUDA is told.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from ...errors import ConfigError, LoadError

if TYPE_CHECKING:
    from ...hardware.gpu import Gpu

__all__ = ["order", "ordinals", "per_device", "visible"]

T = TypeVar("T")


def order(environ: MutableMapping[str, str], *, started: bool, cards: int) -> None:
    """Have CUDA number the cards as the PCI bus does.

    Raises LoadError where it has started already (`started`) and may have numbered several cards otherwise.
    """
    asked = environ.get("CUDA_DEVICE_ORDER")
    if asked == "PCI_BUS_ID":
        return
    if started and cards > 1:
        raise LoadError(
            f"CUDA has started with CUDA_DEVICE_ORDER={asked or 'FASTEST_FIRST'}, so its card 0 may be another than the plan's",
            hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID before the program starts, or load before anything else uses torch.cuda",
        )
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"


def visible(cards: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The cards that CUDA shows this process, in CUDA's order: all of them, or those of CUDA_VISIBLE_DEVICES.

    As CUDA reads it: numbers or the beginnings of UUIDs, up to the first that means no card.
    """
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return list(cards)
    found: list[Gpu] = []
    for word in (word.strip() for word in listed.split(",")):
        named = [card for card in cards if word and (str(card.index) == word or (card.uuid or "").startswith(word))]
        if not named or named[0] in found:
            break
        found.append(named[0])
    return found


def ordinals(chosen: Sequence[Gpu], shown: Sequence[Gpu]) -> tuple[int, ...]:
    """CUDA's number of each chosen card. Raises ConfigError for one that CUDA does not show, or that is not here."""
    numbers: list[int] = []
    for card in chosen:
        same = [at for at, one in enumerate(shown) if at not in numbers and _is(card, one)]
        if not same:
            here = ", ".join(one.name for one in shown) or "none"
            raise ConfigError(f"{card.name} is not among the cards that CUDA shows this process: {here}")
        numbers.append(same[0])
    return tuple(numbers)


def per_device(values: Sequence[T], numbers: Sequence[int], count: int, missing: T) -> list[T]:
    """A value for each of CUDA's `count` cards from one for each card of a plan; `missing` for those not in it."""
    spread = [missing] * count
    for number, value in zip(numbers, values, strict=True):
        spread[number] = value
    return spread


def _is(asked: Gpu, here: Gpu) -> bool:
    """A card that was found is itself; one that was only named is the first here of that name."""
    return asked.uuid == here.uuid if asked.uuid is not None else asked.name == here.name
