"""Who is alive, resting or full: the facts about backends that all threads and event loops of a Router share."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..wire.dialect import DIALECTS, Look
from ..wire.trouble import Failure, Trouble
from .backend import Backend, LocalModel
from .ledger import Entry, Ledger
from .place import NEVER, Candidate, Place, State
from .roster import Roster

if TYPE_CHECKING:
    from .call import Ended

__all__ = ["Pool"]

Ticket = Future["Place"]

# Our own choices for servers that say "later" without saying when: both conditions usually end within seconds, and a
# backend that is asked once a second too early costs one refused request.
BUSY_REST = 1.0
LOADING_REST = 2.0
# How long an answered model list is believed before a call for a name that is not in it asks again.
MODELS_TTL = 60.0
# The weight of the newest answer in the averages of ttft and speed: about the last ten answers count.
NEWEST = 0.2
_NO_ANSWERS = Entry()


class Pool:
    """Reservations and rests, under one lock that is never held while anything is waited for.

    A reservation is taken at the moment of choice, so that eight simultaneous requests do not all see the same idle
    server, and released by the flow that took it, whatever happens. `clock` gives seconds, monotonic.
    """

    def __init__(self, backends: Sequence[Backend], *, cooldown: float, clock: Callable[[], float]) -> None:
        self.places = [Place(backend, position) for position, backend in enumerate(backends)]
        self._by_name = {place.backend.name: place for place in self.places}
        self._cooldown, self._clock = cooldown, clock
        self._rosters: dict[tuple[str, frozenset[str]], Roster] = {}
        self._unlisted = [place for place in self.places if place.backend.models is None]
        self._untold = [
            place for place in self.places if place.backend.models is not None and DIALECTS[place.backend.kind].loaded_path
        ]
        self._note_ages()
        self._lock = threading.Lock()
        self.turn = threading.RLock()  # held while one call chooses; a user's strategy may look at the router meanwhile
        self._line: deque[tuple[Ticket, frozenset[str]]] = deque()

    # ---- who serves what -------------------------------------------------------------------------------------

    def serving(self, model: str, tags: frozenset[str] = frozenset()) -> Roster:
        """Every backend that serves `model` and has all `tags`, in list order, with its own name for the model."""
        roster = self._rosters.get((model, tags))
        if roster is not None:
            return roster
        with self._lock:
            roster = Roster(
                Candidate(place, local)
                for place in self.places
                if (local := place.local(model)) is not None and tags <= place.backend.tags_of(model)
            )
            if roster:  # names that nobody serves are anything that a caller may think of, and are not kept
                self._rosters[model, tags] = roster
            return roster

    def models(self) -> dict[str, list[str]]:
        """Every model name that is known of, with the backends that serve it."""
        table: dict[str, list[str]] = {}
        for place in self.places:
            for model in place.names:
                table.setdefault(model, []).append(place.backend.name)
        return table

    def unasked(self, models: Sequence[str] = ()) -> list[Place]:
        """Backends to ask before a call goes on.

        Those whose models nobody has listed and which were not asked within MODELS_TTL; and, once, those that serve one of
        `models` and can tell what they have loaded.
        """
        now, unasked = self._clock(), []
        if now > self._listed_until:
            unasked += [place for place in self._unlisted if now - place.told_at > MODELS_TTL]
        if self._untold:
            unasked += [place for place in self._untold if any(map(place.local, models))]
        return unasked

    def silent(self) -> list[Place]:
        """Backends that were asked for their models and never answered."""
        return [place for place in self._unlisted if place.told is None]

    def tell(self, backend: Backend, found: Look | Failure) -> None:
        """What a server answered when asked about itself. One that cannot be reached rests, so that no call finds out again."""
        with self._lock:
            place = self._by_name[backend.name]
            place.told_at = self._clock()
            if isinstance(found, Look):
                self._learn(place, found)
            else:
                place.told_at -= MODELS_TTL - self._cooldown  # it is worth asking again when its rest is over
                if found.trouble is Trouble.UNREACHABLE:
                    place.last = found
                    place.rests_until = place.rests_until or self._clock() + self._cooldown
            self._note_ages()

    def _learn(self, place: Place, found: Look) -> None:
        """Take in what a server told. New names make new rosters; a model loaded or gone moves its place in the old ones."""
        names = set(place.names)
        place.told = found
        place.changed()
        if names != set(place.names):
            self._rosters.clear()
            for other in self.places:
                other.heard_by.clear()

    def _note_ages(self) -> None:
        """From when on somebody is to be asked again: until then calls need not look at every place."""
        self._untold = [place for place in self._untold if place.told_at == NEVER]
        self._listed_until = min((place.told_at for place in self._unlisted), default=math.inf) + MODELS_TTL
        told = (place.told_at for place in self.places if place.told_at > NEVER)
        self._fresh_until = min(told, default=math.inf) + MODELS_TTL

    def service(self, place: Place, local: LocalModel) -> tuple[int | None, bool]:
        """How to ask there: the context, and whether the model is known to be cold.

        The context is as configured, else as loaded, else the dialect's own, and the same ever after.
        """
        loaded = place.told.loaded if place.told else None
        chosen = local.context or place.backend.context or (loaded or {}).get(local.name) or DIALECTS[place.backend.kind].context
        context = None if chosen is None else place.contexts.setdefault(local.name, chosen)
        return context, place.is_cold(local)

    def warmed(self, backend: Backend, local_name: str, context: int | None) -> None:
        """A model has been loaded there."""
        with self._lock:
            place = self._by_name[backend.name]
            known = place.told or Look([])
            self._learn(place, replace(known, loaded={**(known.loaded or {}), local_name: context}))

    def tell_loaded(self, backend: Backend, loaded: dict[str, int | None]) -> None:
        """What a server answered when asked for its loaded models alone."""
        with self._lock:
            place = self._by_name[backend.name]
            self._learn(place, replace(place.told or Look([]), loaded=loaded))

    def welcome(self, place: Place, local: LocalModel, context: int | None, settings: Mapping[str, Any]) -> None:
        """A model was loaded there on purpose: whatever was held against it is forgotten, and calls ask for this context."""
        with self._lock:
            place.rests_until, place.last = None, None
            place.missing.pop(local.name, None)
            place.loaded_with = (local.name, dict(settings))
            if context is not None:
                place.contexts[local.name] = context

    def loaded_with(self, place: Place, local_name: str) -> dict[str, Any]:
        """The settings of this router's last load there; none where that was of another model."""
        with self._lock:
            return place.loaded_with[1] if place.loaded_with is not None and place.loaded_with[0] == local_name else {}

    def stale(self) -> list[Backend]:
        """Servers asked about themselves so long ago that another look, beside the calls, is worth it.

        One that nobody asks, because its model was cold, is among them: else its coming back would go unnoticed.
        """
        now = self._clock()
        if now <= self._fresh_until:
            return []
        return [place.backend for place in self.places if place.told_at > NEVER and now - place.told_at > MODELS_TTL]

    # ---- who may be asked now --------------------------------------------------------------------------------

    def rested(self, place: Place, local: LocalModel) -> bool:
        """Whether a request may go there: never failed, or its rest is over and nobody is finding out already."""
        if place.probing:
            return False
        if place.rests_until is None and not place.missing:  # as nearly always
            return True
        now = self._clock()
        return (place.rests_until or now) <= now and place.missing.get(local.name, now) <= now

    def tiredness(self, place: Place, local: LocalModel) -> float:
        """Seconds until its rest is over, for finding the least tired when all rest."""
        now = self._clock()
        return max((place.rests_until or now) - now, place.missing.get(local.name, now) - now, 0.0)

    def reserve(self, place: Place, *, anyway: bool = False) -> bool:
        """Take a slot; False when the backend is full, or (unless `anyway`) somebody else is finding out about it."""
        with self._lock:
            if place.full or (place.probing and not anyway):
                return False
            self._take(place)
            return True

    def release(self, place: Place) -> None:
        """Give a slot back, to the longest waiting ticket that can use it if there is one."""
        with self._lock:
            place.in_flight = max(0, place.in_flight - 1)  # a forked child may end an answer of its parent's
            place.probing = False
            place.changed()
            granted = self._next_in_line(place) if self._line else None
            if granted is not None:
                self._take(place)
        if granted is not None:
            granted.set_result(place)  # outside the lock: waking a waiter runs its callbacks

    def queue(self, places: Iterable[Place]) -> Ticket:
        """Stand in line for a slot at any of `places`: a future of the Place whose slot is then reserved for you."""
        ticket: Ticket = Future()
        with self._lock:
            free = next((place for place in places if not place.full), None)
            if free is not None:
                self._take(free)
            else:
                self._line.append((ticket, frozenset(place.backend.name for place in places)))
        if free is not None:
            ticket.set_result(free)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Leave the line; a slot granted in the meantime goes back."""
        with self._lock:
            waiting = [entry for entry in self._line if entry[0] is ticket]
            for entry in waiting:
                self._line.remove(entry)
        if not waiting and ticket.done() and not ticket.cancelled():
            self.release(ticket.result())

    def renew(self) -> None:
        """In a forked child: the slots that its parent's calls have taken there are not its own, nor are its parent's locks."""
        self._lock, self.turn = threading.Lock(), threading.RLock()
        self._line.clear()
        self._rosters.clear()  # one may have been in the making
        for place in self.places:
            place.in_flight, place.probing = 0, False
            place.heard_by.clear()

    def waiting(self) -> int:
        """How many calls stand in line for a slot."""
        return len(self._line)

    def _take(self, place: Place) -> None:
        place.in_flight += 1
        place.changed()
        # The first request after a rest is the probe; until it is judged, others go elsewhere.
        place.probing = place.rests_until is not None

    def _next_in_line(self, place: Place) -> Ticket | None:
        if place.full:
            return None
        for entry in self._line:
            if place.backend.name in entry[1]:
                self._line.remove(entry)
                return entry[0]
        return None

    # ---- what became of it -----------------------------------------------------------------------------------

    def book(self, place: Place, model: str, ended: Ended) -> None:
        """Enter an answer into the ledger. After a whole one nothing is held against its backend, and its speed is noted."""
        with self._lock:
            place.ledger[model] = place.ledger.get(model, _NO_ANSWERS).plus(ended, place.backend)
            if ended.failure is not None or ended.left:
                return
            place.answered += 1
            place.rests_until, place.probing, place.last = None, False, None
            if ended.ttft is not None:
                place.ttft = _average(place.ttft, ended.ttft)
                tokens, spent = ended.usage.completion_tokens or 0, ended.seconds - ended.ttft
                if tokens > 1 and spent > 0:
                    place.decode_tps = _average(place.decode_tps, (tokens - 1) / spent)

    def ledger(self) -> Ledger:
        """A copy of what every backend has answered so far."""
        with self._lock:
            return Ledger(
                tuple((place.backend.name, model, entry) for place in self.places for model, entry in place.ledger.items())
            )

    def failed(self, place: Place, local: LocalModel, failure: Failure, *, rest: bool) -> None:
        """It failed. With `rest`, it is left alone for a while: Retry-After if it said so, else by what went wrong."""
        with self._lock:
            place.failed += 1
            place.probing = False
            place.last = failure
            if not rest:
                place.rests_until = None
                return
            until = self._clock() + self._rest_time(failure)
            if failure.trouble is Trouble.NO_MODEL:
                place.missing[local.name] = until
            else:
                place.rests_until = max(until, place.rests_until or until)

    def _rest_time(self, failure: Failure) -> float:
        if failure.retry_after is not None:
            return failure.retry_after
        return {Trouble.BUSY: BUSY_REST, Trouble.LOADING: LOADING_REST}.get(failure.trouble, self._cooldown)

    def state(self, place: Place) -> State:
        """A consistent copy of one backend's facts."""
        with self._lock:
            now = self._clock()
            rests_for = max(0.0, (place.rests_until or now) - now)
            word = "ready"
            if place.probing:
                word = "probing"
            elif rests_for > 0:
                word = "misconfigured" if place.last and place.last.trouble is Trouble.MISCONFIGURED else "resting"
            elif place.full:
                word = "full"
            known = place.backend.models is not None or place.told is not None
            why = place.last.message if place.last else ""
            return State(
                word,
                place.in_flight,
                rests_for,
                why,
                place.answered,
                place.failed,
                tuple(place.names) if known else None,
                place.in_memory,
                place.decode_tps,
            )


def _average(before: float | None, now: float) -> float:
    return now if before is None else before + NEWEST * (now - before)
