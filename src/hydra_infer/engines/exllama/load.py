"""Load: an Engine over ExLlamaV3 or ExLlamaV2, planned on the cards that are here, refused or warned about before it starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import planning
from ...errors import ConfigError, IncompatibleDraft
from ...hardware import nvml
from ...planner.report import Plan
from ...planner.request import cards_of
from ...units import Size
from ..engine import Engine
from ..load_report import DeviceLoad, LoadReport
from ..loading import Loading
from ..progress import reporting
from .cuda import ordinals
from .driver import ExllamaDriver
from .preflight import check_machine, warnings_for
from .prompt import Prompts
from .seam import Extras
from .surroundings import look

if TYPE_CHECKING:
    from ...hardware.gpu import Gpu
    from ..progress import Progress
    from .seam import Opener

__all__ = ["load_exllama"]


def load_exllama(
    path: Path,
    engine: str,
    asked: Plan | Mapping[str, Any],
    *,
    extras: Mapping[str, Any],
    progress: Progress,
    force: bool,
) -> Engine:
    """`asked` is a Plan, or the arguments to make one with; `extras` are seam.Extras' fields but the ordinals.

    Warns (UserWarning) of what will surprise. Raises LoadError or MissingExtra where the engine cannot run here, DoesNotFit
    unless `force`, IncompatibleDraft, OutOfMemory with stage "loading".
    """
    if isinstance(asked, Plan):
        _check_draft(asked)  # whatever machine this is
    around = look(engine)
    check_machine(engine, path, around)
    _check_backend(extras.get("backend", "native"))
    chosen = asked.request.gpus if isinstance(asked, Plan) else asked.get("gpus")
    numbers = ordinals(around.cards if chosen is None else cards_of(chosen), around.cards)
    plan = _planned(path, asked, [around.cards[number] for number in numbers])
    _check_draft(plan)
    if not force:
        plan.raise_if_unfit()
    found = warnings_for(plan, around)
    for text in found:
        warnings.warn(text, UserWarning, stacklevel=3)
    return _load(plan, Extras(ordinals=numbers, **extras), found, progress)


def _check_draft(plan: Plan) -> None:
    drafter = plan.request.drafter
    if drafter is not None and drafter.problem is not None:
        raise IncompatibleDraft(drafter.problem, hint="another draft, or none: draft=None")


def _check_backend(name: Any) -> None:
    if name not in ("native", "nccl"):
        raise ConfigError(f"backend={name!r} carries no tensor parallel", hint="'native' or 'nccl'")


def _planned(path: Path, asked: Plan | Mapping[str, Any], cards: list[Gpu]) -> Plan:
    """The plan on the cards as they are now, with the memory that is free on them now."""
    if isinstance(asked, Plan):
        return asked.replan(gpus=cards)
    return planning.plan(path, **{**asked, "gpus": cards})


def _load(plan: Plan, extras: Extras, found: tuple[str, ...], progress: Progress) -> Engine:
    path, open_runner = plan.request.spec.path, _opener(plan.request.engine)
    before, started = _in_use(), time.perf_counter()
    with reporting(progress) as report:
        loading = Loading(report)
        driver = ExllamaDriver(lambda: open_runner(plan, extras, loading.report), Prompts.read(path), wait=loading.wait)
    seconds, after = time.perf_counter() - started, _in_use()
    return Engine(driver, load_report=LoadReport(tuple(_devices(plan, before, after)), seconds, found))


def _opener(engine: str) -> Opener:
    if engine == "exllamav2":
        from . import v2

        return v2.open_runner
    from . import v3

    return v3.open_runner


def _in_use() -> dict[str | None, Size]:
    """Bytes in use on each card, whoever holds them: the workers of tensor parallel are processes of their own."""
    return {card.uuid: Size(card.memory - card.free) for card in nvml.gpus()}


def _devices(plan: Plan, before: Mapping[str | None, Size], after: Mapping[str | None, Size]) -> Sequence[DeviceLoad]:
    rows = []
    for use in plan.devices:
        key = use.gpu.uuid
        took = Size(max(0, after[key] - before[key])) if key in before and key in after else None
        predicted = Size(use.loaded - use.transient + use.overhead_range.likely)
        rows.append(DeviceLoad(f"{use.gpu.name} ({use.gpu.index})", predicted, took))
    return rows
