"""Drafts: speed with and without one, what share was accepted, and what one drafted token costs."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import hydra_infer

from . import judge, meter, words

if TYPE_CHECKING:
    from hydra_infer.planner.report import Plan

__all__ = ["compare"]

TOKENS, ROUNDS = 256, 3

# The share that must be accepted: the synthetic models always say the same, so all or none of it, but for the last round, which
# may draft beyond the end. A draft of n-grams has nothing to look up in the first words. Nothing is asked of a real model: where
# two words are nearly as likely, passes of several rows may round to the other one.
EXPECTED = {"1b": (0.95, 1.0), "1b-other": (0.0, 0.01), "mtp": (0.95, 1.0), "ngram": (0.9, 1.0)}


def compare(state: Path, *, model: str, draft: str, tokens: int) -> dict[str, Any]:
    """The same prompts, greedy, without and with the draft."""
    folder = words.folder_of(state, model)
    drafter = str(words.folder_of(state, draft)) if draft not in ("mtp", "ngram") else draft
    plain = hydra_infer.plan(folder, gpus=[meter.card()], context=4096, split="single")
    drafted = hydra_infer.plan(folder, gpus=[meter.card()], context=4096, split="single", draft=drafter, draft_tokens=tokens)
    before, after = _run(plain), _run(drafted)
    return _told(before, after, drafted, EXPECTED.get(draft) if folder.parent.parent == state else None)


def _run(plan: Plan) -> dict[str, Any]:
    """Decoding speed over some prompts after one that warms up, the texts, and what the engine counted of drafts."""
    with hydra_infer.load(plan, progress=False) as engine:
        told = [words.answer(engine, _prompt(seed), TOKENS) for seed in range(ROUNDS + 1)]
        stats = engine.stats()
    return {"tps": median(one["decode_tps"] for one in told[1:]), "texts": [one["text"] for one in told], "stats": stats}


def _prompt(seed: int) -> list[int]:
    """A text to copy: letters, and the same again."""
    ids = words.letters(192, seed)
    return [*ids, *ids, *ids[:64]]


def _told(before: dict[str, Any], after: dict[str, Any], plan: Plan, expected: tuple[float, float] | None) -> dict[str, Any]:
    draft, drafted, accepted = plan.draft, after["stats"]["draft_tokens"], after["stats"]["draft_accepted"]
    share = accepted / drafted if drafted else 0.0
    same = before["texts"] == after["texts"]
    judged = []
    if expected is not None:
        judged = [{"term": "greedy answers", "expected": "the same", "found": "the same" if same else "others", "within": same}]
        row = {"term": "accepted", "expected": f"{expected[0]:.0%} to {expected[1]:.0%}", "found": f"{share:.1%} of {drafted}"}
        judged.append({**row, "within": drafted > 0 and expected[0] <= share <= expected[1]})
    facts: dict[str, Any] = {"plain_tps": round(before["tps"], 2), "drafted_tps": round(after["tps"], 2), "accepted": share}
    facts |= {"gain": round(after["tps"] / before["tps"], 3), "same_answers": same}
    if draft is not None:
        facts |= {"predicted_cost_of_a_drafted_token": draft.break_even, "draft_tokens": draft.draft_tokens}
        cost = judge.cost_of_a_draft(before["tps"], after["tps"], draft.draft_tokens, share)
        facts["measured_cost_of_a_drafted_token"] = round(cost, 4)
    return {"judged": judged, "facts": facts}
