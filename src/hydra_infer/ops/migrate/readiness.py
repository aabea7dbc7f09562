"""Readiness: can this model move from ExLlamaV2 to ExLlamaV3, and what is to be done first? A row for each thing it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...hardware.gpu import Gpu
from ...models.architectures import KNOWN_TO_EXLLAMAV3
from .conversion import base_name
from .facts import Facts, gather

__all__ = ["Readiness", "Row", "readiness"]

# ready: nothing to do. to do: see the last column. unseen: nobody could look. optional: good to know, and nothing depends on it.
State = Literal["ready", "to do", "unseen", "optional"]

# TabbyAPI e632af4 (13 August 2026), pyproject.toml: the least exllamav3 that it takes. README of exllamav3 1.6.5: Ampere.
_LEAST_EXLLAMAV3 = (1, 4, 1)
_LEAST_CAPABILITY = 8.0
# Its commit c8b9a8f took ExLlamaV2 out.
_WITHOUT_V2 = "2026-07-14"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing a migration takes: how it stands, what was found, and what to do where something is."""

    what: str
    state: State
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The rows; print it for the table."""

    model: str
    rows: tuple[Row, ...]

    @property
    def ready(self) -> bool:
        """Nothing is to be done, and everything could be looked at."""
        return all(row.state in ("ready", "optional") for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"model": self.model, "ready": self.ready, "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        widths = [max(len(cell) for cell in column) for column in zip(*((row.what, row.state) for row in self.rows), strict=True)]
        lines = [f"{self.model}: {'ready' if self.ready else 'not ready yet'}"]
        for row in self.rows:
            lines.append(f"{row.what:{widths[0]}}  {row.state:{widths[1]}}  {row.found}")
            if row.todo:
                lines.append(f"{'':{sum(widths) + 4}}-> {row.todo}")
        return "\n".join(lines)


def readiness(
    what: str | os.PathLike[str],
    *,
    gpus: str | Gpu | Iterable[str | Gpu] | None = None,
    context: int | str | None = None,
    cache: str | None = None,
    original: str | os.PathLike[str] | None = None,
    tabby: str | os.PathLike[str] | None = None,
    python: str | None = None,
) -> Readiness:
    """How ready a model is to be served by ExLlamaV3. Reads only.

    `what` is its folder, or the config.yml that names it and says context and cache. `gpus`, `context` and `cache` are plan()'s;
    left out, this machine's cards, and what the file says (else 8192 tokens in fp16). `original` is the folder of its
    unquantised weights, where it does not lie beside. `tabby` is TabbyAPI's checkout (default: where the config.yml lies),
    `python` its environment's interpreter (default: the checkout's venv, else this one).

    Raises ConfigError for a config.yml that cannot be read or names no model.
    """
    facts = gather(what, gpus=gpus, context=context, cache=cache, original=original, tabby=tabby, python=python)
    return Readiness(facts.folder.name, tuple(rows(facts)))


def rows(facts: Facts) -> Iterator[Row]:
    """The table."""
    yield _backend(facts)
    yield _tabby(facts)
    yield _cards(facts)
    yield _architecture(facts)
    yield _weights(facts)
    yield from _disk(facts)
    yield _memory(facts)
    yield _tensor(facts)
    yield from _config(facts)


def _backend(facts: Facts) -> Row:
    install = f"{facts.python} -m pip install -U '.[cu13]' in TabbyAPI's folder (cu12 for drivers before 580)"
    if isinstance(facts.versions, str):
        return Row("exllamav3", "unseen", facts.versions, "python= of TabbyAPI's environment")
    version, torch = facts.versions.get("exllamav3"), facts.versions.get("torch")
    if version is None:
        return Row("exllamav3", "to do", f"not installed for {facts.python}", install)
    found = f"{version}, torch {torch or 'not installed'}"
    if torch is None or _numbers(version) < _LEAST_EXLLAMAV3:
        least = ".".join(map(str, _LEAST_EXLLAMAV3))
        return Row("exllamav3", "to do", found, f"TabbyAPI needs {least} or newer, and torch: {install}")
    return Row("exllamav3", "ready", found)


def _tabby(facts: Facts) -> Row:
    if facts.checkout is None:
        return Row("TabbyAPI", "unseen", facts.checkout_trouble, "tabby= its checkout")
    if facts.checkout < _WITHOUT_V2:
        todo = "git pull in a second checkout, so that the old one stays as it is until the cutover"
        return Row("TabbyAPI", "to do", f"of {facts.checkout}: it still has ExLlamaV2, and too little of ExLlamaV3", todo)
    return Row("TabbyAPI", "ready", f"of {facts.checkout}: ExLlamaV3 alone, EXL2 and GPTQ are refused")


def _cards(facts: Facts) -> Row:
    if not facts.cards:
        return Row("cards", "unseen", "no NVIDIA card, or no driver, here", "gpus= names those of the server")
    old = [card.name for card in facts.cards if card.capability and float(card.capability) < _LEAST_CAPABILITY]
    if old:
        return Row(
            "cards", "to do", f"exllamav3 needs capability {_LEAST_CAPABILITY} (Ampere): {', '.join(old)}", "serve without them"
        )
    if unknown := [card.name for card in facts.cards if card.capability is None]:
        return Row("cards", "unseen", f"the capability of {', '.join(unknown)} is not known", "Gpu(…, capability=…)")
    return Row("cards", "ready", ", ".join(f"{card.name} ({card.capability})" for card in facts.cards))


def _architecture(facts: Facts) -> Row:
    if isinstance(facts.shape, str):
        return Row("architecture", "unseen", facts.shape, "is this the model's folder?")
    name = facts.shape.geometry.architecture
    if name not in KNOWN_TO_EXLLAMAV3:
        return Row("architecture", "to do", f"{name}: exllamav3 1.6.5 does not know it", "a newer exllamav3, or GGUF in Ollama")
    return Row("architecture", "ready", name)


def _weights(facts: Facts) -> Row:
    if facts.exl3 is not None:
        return Row("weights", "ready", f"EXL3 in {facts.exl3.path}")
    if facts.original is not None:
        rate = f" --rate {facts.rate:g}" if facts.rate else ""
        out = facts.folder.parent / f"{base_name(facts.folder.name)}-EXL3{f'-{facts.rate:g}bpw' if facts.rate else ''}"
        return Row(
            "weights",
            "to do",
            f"the original in {facts.original.path}",
            f"hydra-infer migrate convert {facts.original.path} {out}{rate}",
        )
    name = base_name(facts.folder.name)
    return Row(
        "weights",
        "to do",
        f"{facts.format}; no EXL3 and no original of {name} beside it",
        f"fetch an EXL3 of {name}, or its 16-bit original to convert: EXL3 cannot be made from EXL2, GPTQ or GGUF",
    )


def _disk(facts: Facts) -> Iterator[Row]:
    if facts.room is None:
        return
    folder, needed, free = facts.room
    what = "a conversion" if facts.original is not None else "the original, fetched and converted,"
    found = f"{what} takes {needed} in {folder}, and {free} are free"
    if needed <= free:
        yield Row("disk", "ready", found)
    else:
        yield Row("disk", "to do", found, "work= on another disk, or an EXL3 that is made already")


def _memory(facts: Facts) -> Row:
    if isinstance(facts.planned, str):
        return Row(
            "memory", "to do" if facts.cards else "unseen", facts.planned, "a shorter context, a smaller cache, or more cards"
        )
    at = f"at {facts.rate:g} bits per weight: " if facts.rate else ""
    return Row("memory", "ready" if facts.planned.fits else "to do", f"{at}{facts.planned.why}")


def _tensor(facts: Facts) -> Row:
    if isinstance(facts.tensor, str):
        return Row("tensor parallel", "optional", facts.tensor)
    able = "possible" if facts.tensor.fits else "does not fit"
    return Row("tensor parallel", "optional", f"{able}: {facts.tensor.why}")


def _config(facts: Facts) -> Iterator[Row]:
    if facts.translation is None:
        return
    changes, left = len(facts.translation.changes), facts.translation.open
    if changes or left:
        found = f"{changes} keys to change, {len(left)} to decide"
        yield Row("config.yml", "to do", found, "hydra-infer migrate translate shows each with its reason")
    else:
        yield Row("config.yml", "ready", "as today's TabbyAPI reads it")


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 1.6.5+cu128 is (1, 6, 5)."""
    return tuple(int(part) for part in version.partition("+")[0].split(".") if part.isdecimal())
