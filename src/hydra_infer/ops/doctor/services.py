"""Services of this machine: their ports and who has them, their units and what those do when a start fails, their errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..processes import Listener
from ..units import Unit
from .report import Finding, unseen

__all__ = ["ServiceFacts", "check_service"]

# A load of tens of gigabytes from a disk or over a network: a start that fails may need so long to do so.
_SLOW_FAILURE = 60.0
# torch's name for it, and its older one.
_ALLOCATOR = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """One server that runs here: `unit` and `errors` are words where they could not be looked at.

    `allocator`: whether TabbyAPI chooses torch's allocator itself, None where its config.yml could not be read.
    """

    name: str
    kind: str
    port: int
    listeners: Sequence[Listener] | str
    unit: Unit | str
    errors: Sequence[str] | str = ()
    parallel: int | None = None
    shared: bool = False
    allocator: bool | None = None


def check_service(facts: ServiceFacts) -> Iterator[Finding]:
    """Every finding of one service."""
    yield from _ports(facts)
    if isinstance(facts.unit, str):
        yield unseen(facts.name, f"its unit: {facts.unit}")
        return
    yield from _state(facts, facts.unit)
    yield from (_tabby if facts.kind == "tabby" else _ollama)(facts, facts.unit)


def _ports(facts: ServiceFacts) -> Iterator[Finding]:
    """Who has its port. Others may have the same number at another address, as long as it has it at one."""
    if isinstance(facts.listeners, str):
        yield unseen(facts.name, f"who has port {facts.port}: {facts.listeners}")
        return
    unit = facts.unit
    there = [one for one in facts.listeners if one.port == facts.port]
    if isinstance(unit, Unit) and any(_is_of(one, unit) for one in there):
        return
    if any(one.process is None for one in there):
        yield unseen(facts.name, f"whose process has port {facts.port}: another user's", "run doctor as root")
    if not isinstance(unit, Unit):
        return
    for one in there:
        if one.process is not None:
            yield Finding(
                "error",
                facts.name,
                f"port {one.port} belongs to {one.who}, not to {unit.name}",
                "clients talk to that process; TabbyAPI itself moves to the next port without failing",
                f"see what it is (ps -fp {one.process.pid}), end it, and restart {unit.name}",
            )
    if facts.kind == "tabby" and any(one.port == facts.port + 1 and _is_of(one, unit) for one in facts.listeners):
        yield Finding(
            "error",
            facts.name,
            f"it listens on port {facts.port + 1} and not on {facts.port}",
            f"port {facts.port} was taken when it started, and TabbyAPI then takes the next one",
            f"free port {facts.port}, then systemctl restart {unit.name}",
        )


def _is_of(one: Listener, unit: Unit) -> bool:
    return one.process is not None and (unit.name == one.process.unit or unit.pid == one.process.pid)


def _state(facts: ServiceFacts, unit: Unit) -> Iterator[Finding]:
    if unit.state == "failed":
        told = f": {' | '.join(facts.errors)}" if facts.errors and not isinstance(facts.errors, str) else ""
        yield Finding(
            "error",
            facts.name,
            f"{unit.name} has failed ({unit.result}){told}",
            "systemd does not start it again by itself",
            f"mend the cause, then systemctl reset-failed {unit.name} && systemctl start {unit.name}",
        )
    elif unit.restarts:
        told = " | ".join(facts.errors) if not isinstance(facts.errors, str) else ""
        yield Finding(
            "warning",
            facts.name,
            f"{unit.name} was restarted {unit.restarts} times{f'; its last errors: {told}' if told else ''}",
            "it ends by itself: each time its model is loaded anew and its answers are cut",
            f"journalctl -u {unit.name}",
        )
    if isinstance(facts.errors, str):
        yield unseen(facts.name, f"the journal of {unit.name}: {facts.errors}")


def _tabby(facts: ServiceFacts, unit: Unit) -> Iterator[Finding]:
    failure = unit.restart_seconds + _SLOW_FAILURE
    for is_so, what, why, mend in (
        (
            unit.restart != "always",
            f"has Restart={unit.restart}",
            "with its port and the next one taken TabbyAPI ends with status 0, which is no failure",
            "Restart=always",
        ),
        (
            unit.restart != "no" and unit.limit_seconds < unit.limit_burst * failure,
            f"may start {unit.limit_burst} times in {unit.limit_seconds:g} s, and a failure takes {failure:g} s",
            "the limit is never reached: a model that does not fit is loaded for ever",
            f"StartLimitIntervalSec={math.ceil((unit.limit_burst + 1) * failure)} or more",
        ),
        (
            unit.kill_mode not in ("control-group", "mixed"),
            f"has KillMode={unit.kill_mode}",
            "its children may outlive it and keep the card's memory",
            "leave KillMode out",
        ),
        (
            unit.prestart is not None and unit.start_seconds <= unit.prestart,
            f"has TimeoutStartSec={unit.start_seconds:g}, and its prestart may wait {unit.prestart or 0:g} s",
            "systemd ends prestart before it has said what it waits for",
            f"TimeoutStartSec={(unit.prestart or 0) + 60:g}, or a shorter --wait",
        ),
        (
            facts.allocator is not False and _ALLOCATOR & unit.environment.keys(),
            f"sets {' and '.join(sorted(_ALLOCATOR & unit.environment.keys()))}",
            "TabbyAPI overwrites it while memory.cuda_malloc_async is true, as it is unsaid before September 2026",
            "memory: cuda_malloc_async: false in its config.yml, or take the variable out",
        ),
    ):
        if is_so:
            yield Finding("warning", facts.name, f"{unit.name} {what}", why, mend)


def _ollama(facts: ServiceFacts, unit: Unit) -> Iterator[Finding]:
    host = unit.environment.get("OLLAMA_HOST", "127.0.0.1")
    if facts.shared and host.startswith(("127.", "localhost")):
        yield Finding(
            "error",
            facts.name,
            f"OLLAMA_HOST is {host} in {unit.name}",
            "no other machine reaches it",
            f"Environment=OLLAMA_HOST=0.0.0.0:{facts.port} in a drop-in: hydra-infer render writes one",
        )
    parallel = unit.environment.get("OLLAMA_NUM_PARALLEL") or "1"
    if facts.parallel is not None and str(facts.parallel) != parallel:
        yield Finding(
            "warning",
            facts.name,
            f"OLLAMA_NUM_PARALLEL is {parallel} in {unit.name}, and the fleet file says max_parallel {facts.parallel}",
            "requests beyond its number wait there without a sign, where the router could turn to another server",
            f"max_parallel: {parallel}, or the other number in the drop-in (each slot costs a context)",
        )
