"""Who serves one model, and orders of them that are kept up to date instead of being sorted for every call."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .place import Candidate

__all__ = ["Ranking", "Roster", "late_last"]


class Roster(tuple[Candidate, ...]):
    """The candidates for one model (and tags), in list order, with what a strategy has worked out about them beforehand."""

    def __init__(self, _: Iterable[Candidate]) -> None:
        self._prepared: dict[Any, Any] = {}

    def prepared(self, make: Callable[[Sequence[Candidate]], Any]) -> Any:
        """What `make` makes of these candidates; made once."""
        if make not in self._prepared:
            self._prepared[make] = make(self)
        return self._prepared[make]


class Ranking:
    """Candidates by a key that changes while they work; equals in list order.

    A change costs a place its old position and gives it a new one, found by bisection; whoever looks pays for the changes since
    the last look and not for all candidates. Looked at by one call at a time (Pool.turn).
    """

    def __init__(self, candidates: Sequence[Candidate], key: Callable[[Candidate], Any]) -> None:
        self._key = key
        self._by_position = {candidate.place.position: candidate for candidate in candidates}
        self._ranks = {position: (key(candidate), position) for position, candidate in self._by_position.items()}
        self._order = sorted(self._ranks.values())
        self._changed: set[int] = set()
        for candidate in candidates:
            candidate.place.heard_by.append(self._changed)

    def __iter__(self) -> Iterator[Candidate]:
        while self._changed:
            self._move(self._changed.pop())
        return (self._by_position[position] for _, position in self._order)

    def _move(self, position: int) -> None:
        old, new = self._ranks[position], (self._key(self._by_position[position]), position)
        if new != old:
            del self._order[bisect_left(self._order, old)]
            insort(self._order, new)
            self._ranks[position] = new


def late_last(candidates: Iterable[Candidate], is_late: Callable[[Candidate], bool]) -> Iterator[Candidate]:
    """The same order with some put off to its end; the first is found without looking at the rest."""
    put_off = []
    for candidate in candidates:
        if is_late(candidate):
            put_off.append(candidate)
        else:
            yield candidate
    yield from put_off
