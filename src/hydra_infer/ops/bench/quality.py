"""From the results of a run to how alike the two answer, and who solves more tasks. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .interval import sign_test
from .likeness import agreement, divergence
from .prompts import OPENINGS, TALKS
from .steps import SIDES, Step
from .tasks import TASKS

__all__ = ["Quality", "Score", "quality_of"]

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Score:
    """How many of a group's tasks each side solved; one that a server refused is not solved."""

    group: str
    asked: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How alike, and how good.

    `agreement`: the mean share of a greedy answer that both begin with, in `unit`s ("token", or "word" where a server does not
    list its tokens), over `talks` answers, of which `identical` are the same to the end. `kl`: the mean divergence in nats of
    b's next token from a's after `openings` texts (likeness.divergence), with the same first choice in `same_choice`; None
    where a server gives no logprobs. `scores`: the tasks; `a_only` and `b_only` were solved by one side alone, and `p` is how
    likely so uneven a split is by chance.
    """

    agreement: float | None
    unit: str
    identical: int
    talks: int
    kl: float | None
    same_choice: int
    openings: int
    scores: tuple[Score, ...]
    a_only: int
    b_only: int
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        data = asdict(self)
        return data | {"scores": list(data["scores"])}


def quality_of(results: Results) -> Quality | None:
    """The Quality of a run's results; None where it was not asked for."""
    tasks = [(TASKS[number], a, b) for number, a, b in _pairs(results, "task", len(TASKS))]
    talks = [(a, b) for _, a, b in _pairs(results, "agreement", len(TALKS)) if "text" in a and "text" in b]
    tops = [(a["top"], b["top"]) for _, a, b in _pairs(results, "next", len(OPENINGS)) if a.get("top") and b.get("top")]
    if not tasks and not talks and not tops:
        return None
    unit = "token" if talks and all(side.get("tokens") for pair in talks for side in pair) else "word"
    spoken = [tuple(side["tokens"] if unit == "token" else side["text"].split() for side in pair) for pair in talks]
    won = [(task.group, bool(a.get("passed")), bool(b.get("passed"))) for task, a, b in tasks]
    a_only, b_only = _alone(won, a=True), _alone(won, a=False)
    groups = dict.fromkeys(group for group, _, _ in won)
    return Quality(
        agreement=statistics.fmean(agreement(a, b) for a, b in spoken) if spoken else None,
        unit=unit,
        identical=sum(a == b for a, b in spoken),
        talks=len(spoken),
        kl=statistics.fmean(divergence(a, b) for a, b in tops) if tops else None,
        same_choice=sum(max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in tops),
        openings=len(tops),
        scores=tuple(_score(group, won) for group in groups),
        a_only=a_only,
        b_only=b_only,
        p=sign_test(a_only, b_only),
    )


def _alone(won: list[tuple[str, bool, bool]], *, a: bool) -> int:
    """How many tasks that side alone solved."""
    return sum(first is a and second is not a for _, first, second in won)


def _score(group: str, won: list[tuple[str, bool, bool]]) -> Score:
    mine = [(a, b) for name, a, b in won if name == group]
    return Score(group, len(mine), sum(a for a, _ in mine), sum(b for _, b in mine))


def _pairs(results: Results, group: str, count: int) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """(number, a's result, b's result) wherever both have been asked."""
    for number in range(count):
        a, b = (results.get(Step(group, str(number), side).key) for side in SIDES)
        if a is not None and b is not None:
            yield number, a, b
