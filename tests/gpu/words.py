"""Prompts of a given length, and a request run through an Engine from its text to its end."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING, Any

from hydra_infer.reply import usage_of

if TYPE_CHECKING:
    from pathlib import Path

    from hydra_infer import Engine

__all__ = ["answer", "folder_of", "letters"]


def folder_of(state: Path, model: str) -> Path:
    """A synthetic model's folder by its name, or a real one by its path."""
    from pathlib import Path

    made = state / "models" / model
    return made if made.is_dir() else Path(model)


def letters(count: int, seed: int) -> list[int]:
    """Token ids of so many random letters: no prompt shares its pages with another. Any vocabulary has these ids."""
    dice = random.Random(seed)
    return [ord(dice.choice(string.ascii_letters)) for _ in range(count)]


def answer(engine: Engine, ids: list[int], tokens: int) -> dict[str, Any]:
    """Greedy, to its end; raises what the engine raises. `text`, `tokens`, and the timings of the reply."""
    job = engine.submit({"prompt": ids, "max_tokens": tokens, "temperature": 0})
    while job.take() is not None:
        pass
    reply = job.answer.reply(timings=job.timings)
    return {
        "text": reply.text,
        "tokens": usage_of(job.answer.body()).completion_tokens,
        "prefill_tps": reply.timings.prefill_tps,
        "decode_tps": reply.timings.decode_tps,
    }
