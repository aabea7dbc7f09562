"""Connects one call to the backend that answers it: the pool of facts, the settings and the connections of one Router."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..routing.backend import Backend
from ..routing.call import Call, Policy
from ..routing.errand import Change, Errand
from ..routing.events import Event
from ..routing.explain import Explanation, explain
from ..routing.flow import Flow, failover
from ..routing.ledger import Ledger
from ..routing.lifecycle import Changing, change
from ..routing.pool import Pool
from ..routing.status import BackendStatus, Status
from ..routing.strategies import UserStrategy, find_strategy
from ..routing.turns import Turns
from ..routing.verdict import GaveUp, unknown_model
from ..wire.lifecycle import Wish
from ..wire.question import Question
from ..wire.trouble import Failure
from . import lifecycle
from .answer import Answer, AsyncAnswer
from .chronicle import Chronicle
from .forks import renew_in_children
from .housekeeping import Housekeeping
from .shell import LOOK_SECONDS, AsyncShell, Looks, Shell

if TYPE_CHECKING:
    from .foresight import PlanOf

__all__ = ["Switchboard"]


class Switchboard:
    """Everything that a Router and its async face share. Safe for many threads and event loops at once."""

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        policy: Policy,
        strategy: str | UserStrategy = "ordered",
        aliases: Mapping[str, str] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        on_event: Callable[[Event], None] | None = None,
        plan_of: PlanOf | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backends = _with_unique_names(backends)
        self.policy = policy
        self.aliases, self.fallbacks = (
            dict(aliases or {}),
            {model: _names(names) for model, names in (fallbacks or {}).items()},
        )
        self._strategy, self._strategy_name = (
            find_strategy(strategy),
            strategy if isinstance(strategy, str) else getattr(strategy, "__name__", "yours"),
        )
        self._clock, self._tell, self._plan_of = clock, Chronicle(on_event), plan_of
        self.pool = Pool(self.backends, cooldown=policy.cooldown, clock=clock)
        self._turns = Turns()
        self._housekeeping = Housekeeping(self.pool, clock)
        self._shell = Shell(self.backends, self.pool, self._housekeeping, clock)
        self._aio = AsyncShell(self.pool, self._housekeeping, clock)
        self._check_names()
        renew_in_children(self)

    # ---- calls -----------------------------------------------------------------------------------------------

    def call(
        self,
        question: Question,
        *,
        mode: str,
        fallback: bool = True,
        tags: Iterable[str] | str | None = None,
        timeout: float | None = None,
        first_token_timeout: float | None = None,
        deadline: float | None = None,
    ) -> Call:
        """What routing is to know of one call. `deadline` is seconds from now; embeddings never change the model."""
        if timeout is not None or first_token_timeout is not None or deadline is not None:
            _check_times(timeout=timeout, deadline=deadline, first_token_timeout=first_token_timeout)
        models: tuple[str, ...] = (self.aliases.get(question.model, question.model),)
        if fallback and question.path != "/embeddings":
            others = self.fallbacks.get(models[0]) or self.fallbacks.get(question.model) or ()
            models = tuple(dict.fromkeys((*models, *others))) if others else models
        allowed = deadline if deadline is not None else self.policy.deadline
        ends_at = None if allowed is None else self._clock() + allowed
        return Call(question, models, mode, _as_tags(tags), timeout, first_token_timeout, ends_at)

    def ask(self, call: Call) -> Answer | GaveUp:
        """Run a call in this thread."""
        return self._shell.run(call, self._flow(call))

    def aask(self, call: Call) -> Awaitable[AsyncAnswer | GaveUp]:
        """Run a call in this event loop."""
        return self._aio.run(call, self._flow(call))

    def _flow(self, call: Call) -> Flow:
        tell = self._tell
        return failover(call, self.pool, self.policy, self._strategy, self._clock, tell, tell_good=tell.hears_good)

    # ---- what servers have loaded ----------------------------------------------------------------------------

    def change(self, verb: str, model: str, deliver: lifecycle.Deliver, **options: Any) -> Change:
        """Load, unload or pull in this thread; `options` as `_changing` has them."""
        return lifecycle.change(self._shell, self._changing(verb, model, **options), deliver, self._plan_of)

    async def achange(self, verb: str, model: str, deliver: lifecycle.Deliver, **options: Any) -> Change:
        """The same in this event loop."""
        return await lifecycle.achange(self._aio, self._changing(verb, model, **options), deliver, self._plan_of)

    def _changing(
        self,
        verb: str,
        model: str,
        *,
        backend: str | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        force: bool = False,
        wish: Wish | None = None,
    ) -> Changing:
        _check_times(timeout=timeout, deadline=deadline)
        if not isinstance(model, str) or not model:
            raise ConfigError(f"model={model!r} is not a model's name")
        errand = Errand(
            verb=verb,
            model=self.aliases.get(model, model),
            backend=backend,
            wish=wish or Wish(),
            force=force,
            timeout=timeout or self.policy.timeout,
            connect=self.policy.connect_timeout,
            ends_at=None if deadline is None else self._clock() + deadline,
        )
        return change(errand, self.pool, self._turns, self._clock)

    # ---- looking ---------------------------------------------------------------------------------------------

    def models(self) -> dict[str, list[str]]:
        """Model names and who serves them; servers that list their own are asked."""
        self._shell.look([place.backend for place in self.pool.unasked()], LOOK_SECONDS)
        return self._models()

    async def amodels(self) -> dict[str, list[str]]:
        """The same from an event loop."""
        await self._aio.look([place.backend for place in self.pool.unasked()], LOOK_SECONDS)
        return self._models()

    def status(self) -> Status:
        """Ask every server now."""
        return self.status_by(self._shell.look(self.backends, LOOK_SECONDS))

    async def astatus(self) -> Status:
        """The same from an event loop."""
        return self.status_by(await self.alook())

    async def alook(self) -> Looks:
        """Ask every server what it has, from an event loop."""
        return await self._aio.look(self.backends, LOOK_SECONDS)

    def explain(
        self, model: str, fields: Mapping[str, Any], tags: Iterable[str] | str | None = None, *, fallback: bool = True
    ) -> Explanation:
        """Who would be asked, by what is known now; asks nobody. Raises UnknownModel."""
        named = self.aliases.get(model, model)
        chain = (
            tuple(dict.fromkeys((named, *(self.fallbacks.get(named) or self.fallbacks.get(model) or ()))))
            if fallback
            else (named,)
        )
        wanted = _as_tags(tags)
        if not any(self.pool.serving(name, wanted) for name in chain) and not self.pool.unasked():
            raise unknown_model(model, list(self._models()), wanted)
        return explain(chain, fields, wanted, self.pool, self._strategy, self._strategy_name)

    def usage(self) -> Ledger:
        """What was used so far."""
        return self.pool.ledger()

    def close(self) -> None:
        """Stop what goes on in the background, and close the connections that threads use."""
        self._housekeeping.close()
        self._shell.close()

    async def aclose(self) -> None:
        """Close the running loop's connections too."""
        await self._aio.aclose()
        self.close()

    def renew(self) -> None:
        """In a forked child: connections, slots and errands of its own; what is known of servers stays."""
        self.pool.renew()
        self._turns.renew()
        self._housekeeping.renew()
        self._shell.renew()

    def _models(self) -> dict[str, list[str]]:
        table = self.pool.models()
        return table | {alias: table[model] for alias, model in self.aliases.items() if model in table}

    def status_by(self, looks: Looks) -> Status:
        """How the backends are now, by what they answered when last looked at; asks nobody."""
        rows = []
        for place in self.pool.places:
            found, seconds = looks[place.backend.name]
            state = self.pool.state(place)
            rows.append(
                BackendStatus(
                    name=place.backend.name,
                    kind=place.backend.kind,
                    url=place.backend.url,
                    reachable=not isinstance(found, Failure),
                    seconds=round(seconds, 4),
                    error=found.message if isinstance(found, Failure) else "",
                    state=state.state,
                    in_flight=state.in_flight,
                    rests_for=round(state.rests_for, 3),
                    why=state.why,
                    answered=state.answered,
                    failed=state.failed,
                    models=state.models,
                    slots=place.backend.max_parallel,
                    loaded=state.loaded,
                    decode_tps=state.decode_tps,
                )
            )
        return Status(tuple(rows), self.pool.waiting())

    def troubles(self) -> list[tuple[float, Event]]:
        """The last failures, rests and failovers, oldest first, with their times (seconds since 1970)."""
        return list(self._tell.troubles)

    def _check_names(self) -> None:
        """A fallback or alias that nobody serves is a slip of the pen, told at once where every list is known."""
        if any(row.models is None for row in self.backends):
            return
        known = list(self.pool.models())
        meant = [("aliases", model) for model in self.aliases.values()]
        meant += [("fallbacks", model) for models in self.fallbacks.values() for model in models]
        for what, model in meant:
            if self.aliases.get(model, model) not in known:
                hint = f"served are: {', '.join(sorted(known))}"
                raise ConfigError(f"{what} names the model {model!r}, which no backend serves", hint=hint)


def _as_tags(tags: Iterable[str] | str | None) -> frozenset[str]:
    return frozenset([tags] if isinstance(tags, str) else tags or ())


def _check_times(**times: float | None) -> None:
    for name, value in times.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise ConfigError(f"{name}={value!r} is not a time", hint="give seconds above 0")


def _names(names: Sequence[str] | str) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _with_unique_names(backends: Sequence[Backend]) -> list[Backend]:
    """Rows under distinct names: two servers behind one address (another key, other tags) are told apart by a number."""
    if not backends or not all(isinstance(row, Backend) for row in backends):
        raise ConfigError(
            f"a Router needs a list of Backends, not {backends!r:.80}",
            hint="[Backend.ollama('http://127.0.0.1:11434', …)]",
        )
    seen: dict[str, int] = {}
    rows = []
    for row in backends:
        seen[row.name] = seen.get(row.name, 0) + 1
        rows.append(row if seen[row.name] == 1 else dataclasses.replace(row, name=f"{row.name}#{seen[row.name]}"))
    return rows
