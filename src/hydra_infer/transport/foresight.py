"""Planning before a server loads: the model's files and the server's cards, where its Backend names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UnknownModel
from ..hardware.gpu import ASSUMED_IN_USE, Gpu
from ..planner.report import Plan
from ..planner.request import cards_of
from ..planner.tabby import tabby_load
from ..planning import plan
from ..routing.backend import Backend
from ..routing.errand import Foresee, Foresight
from ..units import Size

__all__ = ["PlanOf", "foresee", "gguf_name"]

# Who knows more of a server's models than its Backend says: (backend's name, model, context=…, cache=…) -> its Plan, or None.
PlanOf = Callable[..., Plan | None]

# What plan() counts where nobody says one.
_CONTEXT = 8192


def foresee(step: Foresee, plan_of: PlanOf | None = None) -> Foresight:
    """Plan a load: on the cards' whole memory, since what is loaded there now is going to be replaced.

    By `plan_of` where it has a plan, else by the files that the Backend names. Raises DoesNotFit, and UnknownModel where
    `model_dir` lacks the model.
    """
    backend, wish = step.backend, step.wish
    planned = plan_of and plan_of(backend.name, step.model, context=wish.context, cache=wish.cache and wish.cache.lower())
    if planned is not None:
        planned.raise_if_unfit()
        return Foresight(_note(planned), tabby_load(planned) if backend.kind == "tabby" else {}, planned)
    missing = [f"{name}=" for name, value in (("gpus", backend.gpus), ("model_dir", backend.model_dir)) if not value]
    if missing:
        return Foresight(f"not planned: its Backend has no {' and no '.join(missing)}")
    return (_tabby if backend.kind == "tabby" else _gguf)(step, Path(backend.model_dir or "").expanduser())


def _tabby(step: Foresee, folder: Path) -> Foresight:
    try:
        planned = _plan(step.backend, folder / step.local_name, step, engine="tabby", cache=(step.wish.cache or "fp16").lower())
    except UnknownModel as error:
        hint = "model_dir= is the server's folder of models as this machine sees it; force=True loads without planning"
        raise UnknownModel(error.message, hint=hint) from error
    settings: Mapping[str, Any] = tabby_load(planned)
    return Foresight(_note(planned), settings, planned)


def gguf_name(local_name: str) -> str:
    """Ollama keeps models as blobs under their digests; only a .gguf file under the model's own name can be read here."""
    return f"{local_name.replace(':', '-').replace('/', '-')}.gguf"


def _gguf(step: Foresee, folder: Path) -> Foresight:
    file = folder / gguf_name(step.local_name)
    if not file.is_file():
        return Foresight(f"not planned: no {file.name} in {folder}")
    planned = _plan(step.backend, file, step).raise_if_unfit()
    return Foresight(_note(planned), {}, planned)


def _plan(backend: Backend, path: Path, step: Foresee, **options: Any) -> Plan:
    cards = [_emptied(card) for card in cards_of(backend.gpus or ())]
    return plan(path, gpus=cards, context=step.wish.context or _CONTEXT, **options)


def _emptied(card: Gpu) -> Gpu:
    """The card as if nothing ran on it. Its uuid goes too: it names a card of this machine, and the server may be another."""
    room = max(card.free, Size(card.memory - ASSUMED_IN_USE))
    return Gpu(
        card.name, memory=card.memory, free=room, bandwidth=card.bandwidth, capability=card.capability, overhead=card.overhead
    )


def _note(planned: Plan) -> str:
    left = ", ".join(f"{use.left} left on {use.gpu.name}" for use in planned.devices if use.used)
    return f"planned on the cards' whole memory: {left or 'it fits'}"
