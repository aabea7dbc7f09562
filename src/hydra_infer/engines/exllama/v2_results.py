"""V2 results: what exllamav2's generator reports, with what it leaves out or gets wrong put right."""

from __future__ import annotations

from typing import Any

from .held import with_held

__all__ = ["mended"]

Result = dict[str, Any]


def mended(result: Result) -> Result:
    """One of `iterate()`'s results as the seam wants it; every other part of it is passed on."""
    if "suppressed_tokens" in result:
        result = _without_suppressed(result)
    result = with_held(result)
    return _with_probabilities(result) if "logits" in result else result


def _without_suppressed(result: Result) -> Result:
    """Without the tokens of a banned string, whose text is taken back.

    They are reported all the same. What was held back before the string, which is given out now, would be given out again
    with the next banned attempt at this place: the checkpoint that is gone back to still has it (dynamic.py,
    rewind_checkpoint), and shares its logits with the job.
    """
    checkpoint = result["job"].checkpoint
    checkpoint["held_text"] = ""
    checkpoint["held_tokens"].clear()
    checkpoint["held_logits"] = checkpoint["held_logits"].clone()
    kept = result["token_ids"].shape[-1] - result["suppressed_tokens"].shape[-1]
    return {**result, "token_ids": result["token_ids"][:, :kept]}


def _with_probabilities(result: Result) -> Result:
    """The probabilities that the model gave, penalties and grammars applied, of each token and of the likeliest.

    The engine's own are those that sampling had left. A job's identifier is the number of likeliest tokens asked for.
    """
    rest = {name: value for name, value in result.items() if name != "logits"}
    probabilities = result["logits"][0].softmax(dim=-1)
    rest["token_probs"] = probabilities.gather(-1, result["token_ids"].reshape(-1, 1)).reshape(1, -1)
    if result["identifier"]:
        top = probabilities.topk(result["identifier"])
        rest |= {"top_k_tokens": top.indices[None], "top_k_probs": top.values[None]}
    return rest
