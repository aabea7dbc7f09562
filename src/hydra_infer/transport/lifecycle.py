"""The two loops that obey a change of what a server has loaded, one for threads and one for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..routing.errand import Ask, Change, Foresee, Foresight, Progressed
from ..routing.lifecycle import Changing
from .shell import AsyncShell, Shell

if TYPE_CHECKING:
    from .foresight import PlanOf

__all__ = ["achange", "change"]

Deliver = Callable[[Progressed], None]


def change(shell: Shell, flow: Changing, deliver: Deliver, plan_of: PlanOf | None) -> Change:
    """Obey the flow in this thread; `deliver` gets its progress, `plan_of` knows plans."""
    fact: Any = None
    try:
        while True:
            step, fact = flow.send(fact), None
            if isinstance(step, Ask):
                fact = shell.fetch(step.backend, step.request, step.limits, step.reading, _progress(step, deliver))
            elif isinstance(step, Foresee):
                fact = _foresee(step, plan_of)
            else:
                shell.meanwhile(step)
    except StopIteration as stop:
        done: Change = stop.value
        return done
    finally:
        flow.close()  # interrupted: the turn goes to the next in line at once


async def achange(shell: AsyncShell, flow: Changing, deliver: Deliver, plan_of: PlanOf | None) -> Change:
    """The same in an event loop; planning reads files, in a thread."""
    fact: Any = None
    try:
        while True:
            step, fact = flow.send(fact), None
            if isinstance(step, Ask):
                fact = await shell.fetch(step.backend, step.request, step.limits, step.reading, _progress(step, deliver))
            elif isinstance(step, Foresee):
                fact = await asyncio.to_thread(_foresee, step, plan_of)
            else:
                await shell.meanwhile(step)
    except StopIteration as stop:
        done: Change = stop.value
        return done
    finally:
        flow.close()


def _foresee(step: Foresee, plan_of: PlanOf | None) -> Foresight:
    from .foresight import foresee  # the whole planner, which calls never need

    return foresee(step, plan_of)


def _progress(step: Ask, deliver: Deliver) -> Callable[[Any], None]:
    return lambda advance: deliver(Progressed(step.backend.name, step.model, advance.fraction, advance.message))
