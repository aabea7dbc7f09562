"""The failover flow: which backend is asked next, when to wait, when to give up. A generator of instructions.

It is sent what happened and lives until the answer has ended; its `finally` is the only release of a reservation. Whoever
drives it (two short loops in transport, a list in tests) does what it says and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tenacity import RetryCallState

from ..wire.dialect import DIALECTS
from ..wire.trouble import Failure, Trouble, overflow_numbers
from .call import Attempt, Call, Ended, Limits, Outcome, Pause, Policy, Probe, Serve, Wait
from .events import Attempted, Failed, Finished, Rested, Tell, nobody
from .order import in_order
from .place import Candidate, Place
from .pool import LOADING_REST, Pool
from .roster import Roster
from .strategies import Ask, Strategy
from .verdict import GaveUp

__all__ = ["Flow", "Step", "failover"]

Step = Attempt | Serve | Pause | Wait | Probe
Flow = Generator[Step, Any, GaveUp | None]

# Seconds until the first token where the Router's setting is None. A server of these kinds lists only what it has loaded;
# the others may have to load 40 GB first.
WARM_KINDS = frozenset({"openai", "engine"})
WARM, COLD = 60.0, 300.0
# First contact with a server whose models nobody listed.
PROBE_TIMEOUT = 1.0

# What a server refuses of one model it may grant of another.
_OF_A_MODEL = frozenset({Trouble.NO_MODEL, Trouble.OVERFLOW})
_RESTS = frozenset(
    {
        Trouble.UNREACHABLE,
        Trouble.SILENT,
        Trouble.BROKEN,
        Trouble.FAILED,
        Trouble.BUSY,
        Trouble.LOADING,
        Trouble.MISCONFIGURED,
        Trouble.NO_MODEL,
    }
)
_WORTH_RETRYING = frozenset({Trouble.UNREACHABLE, Trouble.BROKEN, Trouble.FAILED, Trouble.BUSY})


def failover(
    call: Call,
    pool: Pool,
    policy: Policy,
    strategy: Strategy,
    clock: Callable[[], float],
    tell: Tell = nobody,
    *,
    tell_good: bool = True,
) -> Flow:
    """Instructions for one call. Returns None when it was served, or the GaveUp that says why not.

    `tell` gets its events; without `tell_good` only those of trouble, and of what helped after it.
    """
    return _Failover(call, pool, policy, strategy, clock, tell, tell_good, clock()).steps()


@dataclass(slots=True)
class _Failover:
    call: Call
    pool: Pool
    policy: Policy
    strategy: Strategy
    clock: Callable[[], float]
    tell: Tell
    tell_good: bool
    began: float
    outcomes: list[Outcome] = field(default_factory=list)
    tried: set[tuple[str, str | None]] = field(default_factory=set)  # (backend, its name of the model; None: whichever)
    retries: int = 0
    lone: bool = False  # one backend is all there is: it is retried instead of failed over, and never rests
    more_context_than: int | None = None  # after an overflow: only a larger context can help

    def steps(self) -> Flow:
        if unasked := self.pool.unasked(self.call.models):
            yield Probe(tuple(place.backend for place in unasked), PROBE_TIMEOUT)
        self.lone = self._is_alone()
        if unasked and not self.lone:
            self._leave_out_the_dead({place.backend.name for place in unasked})
        for model in self.call.models:
            while (choice := (yield from self._choose(model))) is not None:
                failure = yield from self._attempt(model, choice)
                if failure is None:
                    return None
                if (verdict := self._verdict(choice, failure)) is not None:
                    return verdict
                yield from self._again(choice, failure)
            if self._out_of_time():
                return self._gave_up(out_of_time=True)
        return (yield from self._last_resort())

    def _is_alone(self) -> bool:
        """Whether one backend is all that serves any of the models."""
        rosters = map(self._serving, self.call.models)
        first = next(rosters)
        return len(first) < 2 and len({place.position for roster in (first, *rosters) for place, _ in roster}) == 1

    def _leave_out_the_dead(self, looked_at: set[str]) -> None:
        """A look that found nobody there is this call's attempt at that backend, and part of its story."""
        for model in self.call.models:
            for place, local in self._left(model):
                if place.backend.name in looked_at and place.last is not None and not self.pool.rested(place, local):
                    self._note(Candidate(place, local), model, place.last, 0.0)
                    self.tried.add((place.backend.name, None))

    # ---- choosing --------------------------------------------------------------------------------------------

    def _choose(self, model: str) -> Generator[Step, Any, Candidate | None]:
        """A candidate with a slot reserved, or None when this model has nobody left to ask."""
        if self._out_of_time():
            return None
        waitable = []
        with self.pool.turn:  # choosing and reserving are one act: eight threads at once must not all see the same idle server
            for candidate in self._in_order(model):
                if not (self.lone or self.pool.rested(*candidate)):
                    continue
                if self.pool.reserve(candidate.place, anyway=self.lone):
                    return candidate
                if candidate.place.full:
                    waitable.append(candidate)
        return (yield from self._wait_for_slot(model, waitable)) if waitable else None

    def _wait_for_slot(self, model: str, full: list[Candidate]) -> Generator[Step, Any, Candidate | None]:
        """Stand in line: shortly if another model may answer instead, else as long as an attempt may take."""
        patience = self.policy.queue_timeout if self._other_models(model) else self._timeout(full[0].place)
        ticket: Future[Place] = self.pool.queue([place for place, _ in full])
        taken = False
        try:
            yield Wait(ticket, self._within_deadline(patience))
            if ticket.done():
                taken = True
                return next(candidate for candidate in full if candidate.place is ticket.result())
            self._note(full[0], model, Failure(Trouble.BUSY, f"no free slot within {patience:g} s"), 0.0)
            self.tried.update((place.backend.name, None) for place, _ in full)
            return None
        finally:
            if not taken:
                self.pool.leave(ticket)

    def _serving(self, model: str) -> Roster:
        return self.pool.serving(model, self.call.tags)

    def _left(self, model: str) -> Iterator[Candidate]:
        """Those not tried in this call, in list order."""
        return filter(self._is_left, self._serving(model))

    def _is_left(self, candidate: Candidate) -> bool:
        """Not tried in this call; after an overflow, with room for more."""
        place, local = candidate
        if self.tried and not self.tried.isdisjoint(((place.backend.name, None), (place.backend.name, local.name))):
            return False
        return self.more_context_than is None or (place.context(local) or 0) > self.more_context_than

    def _in_order(self, model: str) -> Iterator[Candidate]:
        return in_order(self._serving(model), Ask(self.call.question.body.fields, model, self._is_left), self.strategy)

    def _any_left(self, model: str) -> bool:
        return any(True for _ in self._left(model))

    def _other_models(self, model: str) -> bool:
        later = self.call.models[self.call.models.index(model) + 1 :]
        return any(map(self._any_left, later))

    def _last_resort(self) -> Flow:
        """Everybody who was ready has failed: of those left alone because they rest, try the least tired."""
        if not any(map(self._serving, self.call.models)):
            return self._unserved()
        resting = [(model, candidate) for model in self.call.models for candidate in self._left(model)]
        stories = tuple(_rest_story(candidate, self.pool) for _, candidate in resting)
        if resting and not self._out_of_time():
            model, candidate = min(resting, key=lambda pair: self.pool.tiredness(*pair[1]))
            if self.pool.reserve(candidate.place, anyway=True):
                failure = yield from self._attempt(model, candidate)
                if failure is None:
                    return None
                if (verdict := self._verdict(candidate, failure)) is not None:
                    return verdict
                stories = tuple(_rest_story(other, self.pool) for _, other in resting if other is not candidate)
        return self._gave_up(resting=stories)

    # ---- one attempt -----------------------------------------------------------------------------------------

    def _attempt(self, model: str, candidate: Candidate) -> Generator[Step, Any, Failure | None]:
        """Ask one backend; None when it has served the call, however that ended. Holds and releases its slot."""
        place, local = candidate
        began = self.clock()
        try:
            fact = yield Attempt(place.backend, local, model, self._limits(candidate), *self.pool.service(place, local))
            if isinstance(fact, Failure):
                self._failed(candidate, fact)
                self._note(candidate, model, fact, self.clock() - began)
                return fact
            self._note(candidate, model, None, self.clock() - began)
            ended: Ended = yield Serve(tuple(self.outcomes))
            self.pool.book(place, model, ended)
            if self.tell_good or ended.failure is not None:
                self.tell(Finished.of(place.backend.name, model, ended))
            if ended.failure is not None:
                self._failed(candidate, ended.failure)
            return None
        finally:
            self.pool.release(place)

    def _failed(self, candidate: Candidate, failure: Failure) -> None:
        if failure.limit == "deadline":
            return  # the caller's patience ended; the backend may be as well as ever
        if failure.trouble in _RESTS:
            self.pool.failed(*candidate, failure, rest=not self.lone)
            if not self.lone:
                place, local = candidate
                self.tell(
                    Rested(place.backend.name, local.name, str(failure.trouble), round(self.pool.tiredness(place, local), 3))
                )

    def _strike(self, candidate: Candidate, failure: Failure) -> None:
        """Ask it no more in this call: not for this model, or for none, as the failure is about one or the other."""
        place, local = candidate
        self.tried.add((place.backend.name, local.name if failure.trouble in _OF_A_MODEL else None))

    def _verdict(self, candidate: Candidate, failure: Failure) -> GaveUp | None:
        """The end, if this failure is one that asking elsewhere cannot mend."""
        if failure.trouble is Trouble.CALLER:
            return self._gave_up(final=failure)
        if failure.trouble is Trouble.OVERFLOW:
            self._strike(candidate, failure)
            self.more_context_than = max(self.more_context_than or 0, self._too_small_for(candidate, failure))
            return None if any(map(self._any_left, self.call.models)) else self._gave_up(final=failure)
        if failure.trouble is Trouble.NO_PATH and self.lone:
            return self._gave_up(final=failure)
        return self._gave_up(out_of_time=True) if self._out_of_time() else None

    def _again(self, candidate: Candidate, failure: Failure) -> Generator[Step, Any, None]:
        """Make ready for the next choice: elsewhere at once, or the same one after a pause when it is all there is."""
        if self.lone:
            asked = failure.retry_after or 0.0
            if failure.trouble is Trouble.LOADING and self.clock() - self.began < min(COLD, self._timeout(candidate.place)):
                yield Pause(self._within_deadline(max(LOADING_REST, asked)))
                return
            if failure.trouble in _WORTH_RETRYING and self.retries < self.policy.retries and asked <= self.policy.cooldown:
                self.retries += 1
                yield Pause(self._within_deadline(max(self._backoff(), asked)))
                return
        self._strike(candidate, failure)

    def _backoff(self) -> float:
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # waits read only the number
        state.attempt_number = self.retries
        return self.policy.wait(state)

    # ---- limits ----------------------------------------------------------------------------------------------

    def _limits(self, candidate: Candidate) -> Limits:
        place = candidate.place
        own, timeout = place.backend.timeouts, self._timeout(place)
        first, first_name = timeout, "timeout"
        if self.call.mode != "plain":
            patience = own.first_token_timeout or self.policy.first_token_timeout or self._usual(candidate)
            if patience < timeout and not self._is_last(candidate):
                first, first_name = patience, "first_token_timeout"
        if self.call.first_token_timeout is not None and self.call.first_token_timeout < first:
            first, first_name = self.call.first_token_timeout, "the client's own timeout"
        idle = own.idle_timeout or self.policy.idle_timeout
        # Tool calls are buffered by TabbyAPI and Ollama and sent whole: 1,200 tokens at 20 a second are 60 s of silence.
        # One that can tell whether it still holds the model is asked at each `idle`; the others have `timeout` at once.
        buffered = self.call.question.has_tools
        asked = buffered and DIALECTS[place.backend.kind].loaded_path is not None
        patient = buffered and not asked
        return Limits(
            own.connect_timeout or self.policy.connect_timeout,
            first,
            first_name,
            max(idle, timeout) if patient else idle,
            "timeout" if patient else "idle_timeout",
            timeout if self.call.mode == "reply" else None,
            self.call.ends_at,
            silence=max(idle, timeout) if asked else None,
        )

    def _usual(self, candidate: Candidate) -> float:
        is_warm = candidate.place.backend.kind in WARM_KINDS or candidate.place.is_loaded(candidate.local)
        return WARM if is_warm else COLD

    def _timeout(self, place: Place) -> float:
        return self.call.timeout or place.backend.timeouts.timeout or self.policy.timeout

    def _is_last(self, candidate: Candidate) -> bool:
        """Whether nobody else could be asked after this one."""
        others = (other for name in self.call.models for other in self._left(name) if other.place is not candidate.place)
        return not any(self.pool.rested(*other) for other in others)

    def _within_deadline(self, seconds: float) -> float:
        return seconds if self.call.ends_at is None else max(0.0, min(seconds, self.call.ends_at - self.clock()))

    def _out_of_time(self) -> bool:
        return self.call.ends_at is not None and self.clock() >= self.call.ends_at

    # ---- the story -------------------------------------------------------------------------------------------

    def _note(self, candidate: Candidate, model: str, failure: Failure | None, seconds: float) -> None:
        name, local_name = candidate.place.backend.name, candidate.local.name
        result, message, status = (
            ("answered", "", None) if failure is None else (str(failure.trouble), failure.message, failure.status)
        )
        self.outcomes.append(Outcome(name, model, local_name, result, message, status, seconds))
        if self.tell_good or failure is not None or len(self.outcomes) > 1:
            self.tell(Attempted(name, model, local_name, result, status, round(seconds, 6), len(self.outcomes)))

    def _unserved(self) -> GaveUp:
        """Nobody is known to serve any of the models; servers that would not say what they serve are named."""
        silent = tuple(f"{place.backend.name}: could not be asked for its models" for place in self.pool.silent())
        return self._told(GaveUp(self.call.models[0], (), resting=silent, known=tuple(self.pool.models()), tags=self.call.tags))

    def _gave_up(self, *, final: Failure | None = None, out_of_time: bool = False, resting: tuple[str, ...] = ()) -> GaveUp:
        return self._told(GaveUp(self.call.models[0], tuple(self.outcomes), final, out_of_time, resting))

    def _told(self, verdict: GaveUp) -> GaveUp:
        self.tell(Failed.of(verdict, self.clock() - self.began))
        return verdict

    def _too_small_for(self, candidate: Candidate, failure: Failure) -> int:
        """A context that is too small, after the backend's refusal: its own, and if it counted the prompt, anything below that.

        A server that never told its context counts as beyond compare.
        """
        tokens, context = overflow_numbers(failure)
        return max(context or candidate.place.context(candidate.local) or 2**62, (tokens or 1) - 1)


def _rest_story(candidate: Candidate, pool: Pool) -> str:
    place = candidate.place
    why = place.last.message if place.last else "no reason known"
    return f"{place.backend.name}: resting {pool.tiredness(*candidate):.0f} s more after: {why}"
