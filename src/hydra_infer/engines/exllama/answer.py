"""Answer: one engine job's results as OpenAI-shaped events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..parts import Reader

__all__ = ["Answer"]

JsonDict = dict[str, Any]
Logprob = tuple[str, float]  # a token's text and the natural logarithm of its probability

# What an engine calls the end of an answer, in OpenAI's words.
FINISH = {
    "stop_token": "stop",
    "stop_string": "stop",
    "end_filter": "stop",
    "loop_detected": "stop",
    "max_new_tokens": "length",
}


class Answer:
    """Turns each result of a generator into events. A chat's text goes through `reader`; a completion has none.

    `pieces` gives the text of a token id, for log probabilities.
    """

    def __init__(self, *, number: int, model: str, reader: Reader | None, pieces: Callable[[], Sequence[str]]) -> None:
        self._reader, self._pieces = reader, pieces
        self._offset = 0
        chat = reader is not None
        self._head: JsonDict = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{number}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._opened = not chat

    def events(self, result: Mapping[str, Any]) -> list[JsonDict]:
        """The events of one "streaming" result; the last one has the finish reason, the usage and the timings."""
        logprobs = self._logprobs(result)
        text = result.get("text", "")
        if self._reader is None:
            events = [self._event({"text": text}, logprobs=logprobs)] if text or logprobs else []
            ending: JsonDict = {"text": ""}
        else:
            deltas = self._reader.feed(text) if text else []
            if result["eos"]:
                deltas += self._reader.end()
            events = self._deltas(deltas, logprobs)
            ending = {"delta": {}}
        if result["eos"]:
            events += [self._event(ending, finish=self._finish(result)), self._closing(result)]
        return events

    def _deltas(self, deltas: list[JsonDict], logprobs: JsonDict | None) -> list[JsonDict]:
        if not self._opened:
            self._opened = True
            deltas = [{"role": "assistant", "content": ""}, *deltas]
        if logprobs and not deltas:
            deltas = [{}]  # tokens whose text is still held back have their probabilities already
        events = [self._event({"delta": delta}) for delta in deltas]
        if logprobs:
            events[-1]["choices"][0]["logprobs"] = logprobs
        return events

    def _event(self, piece: JsonDict, *, finish: str | None = None, logprobs: JsonDict | None = None) -> JsonDict:
        choice = {"index": 0, **piece, "finish_reason": finish}
        if logprobs:
            choice["logprobs"] = logprobs
        return {**self._head, "choices": [choice]}

    def _finish(self, result: Mapping[str, Any]) -> str:
        called = self._reader is not None and self._reader.called
        return "tool_calls" if called else FINISH[result["eos_reason"]]

    def _closing(self, result: Mapping[str, Any]) -> JsonDict:
        """Usage in OpenAI's shape; timings as llama.cpp names them, with what a draft came to."""
        prompt, new, cached = result["prompt_tokens"], result["new_tokens"], result["cached_tokens"]
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": new,
            "total_tokens": prompt + new,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        timings: JsonDict = {"queued_s": result["time_enqueued"], "prefill_s": result["time_prefill"], "cached_n": cached}
        timings["decode_s"] = result["time_generate"]
        timings |= _rate("prompt_per_second", prompt - cached, result["time_prefill"])
        # The first token comes out of the prefill; the others take the time of generating.
        timings |= _rate("predicted_per_second", new - 1, result["time_generate"])
        if "accepted_draft_tokens" in result:
            accepted, rejected = result["accepted_draft_tokens"], result["rejected_draft_tokens"]
            timings |= {"draft_n": accepted + rejected, "draft_n_accepted": accepted}
        return {**self._head, "choices": [], "usage": usage, "timings": timings}

    def _logprobs(self, result: Mapping[str, Any]) -> JsonDict | None:
        """Natural logarithms of the tokens' probabilities, in the shape of a chat's or of a completion's logprobs."""
        if "token_probs" not in result:
            return None
        ids, probabilities = result["token_ids"].flatten().tolist(), result["token_probs"].flatten().tolist()
        tops: list[list[Logprob]] = [[] for _ in ids]
        if "top_k_tokens" in result:
            rows = zip(_rows(result["top_k_tokens"], len(ids)), _rows(result["top_k_probs"], len(ids)), strict=True)
            tops = [[(self._piece(int(token)), _log(one)) for token, one in zip(*row, strict=True)] for row in rows]
        tokens = [(self._piece(token), _log(one)) for token, one in zip(ids, probabilities, strict=True)]
        return self._completion_shape(tokens, tops) if self._reader is None else _chat_shape(tokens, tops)

    def _completion_shape(self, tokens: list[Logprob], tops: list[list[Logprob]]) -> JsonDict:
        offsets = []
        for token, _ in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        names, numbers = [name for name, _ in tokens], [number for _, number in tokens]
        return {"tokens": names, "token_logprobs": numbers, "top_logprobs": list(map(dict, tops)), "text_offset": offsets}

    def _piece(self, token: int) -> str:
        pieces = self._pieces()
        return pieces[token] if token < len(pieces) else ""


def _chat_shape(tokens: list[Logprob], tops: list[list[Logprob]]) -> JsonDict:
    return {
        "content": [
            {**_entry(*token), "top_logprobs": [_entry(*one) for one in top]} for token, top in zip(tokens, tops, strict=True)
        ]
    }


def _entry(token: str, logprob: float) -> JsonDict:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _rows(tensor: Any, count: int) -> list[list[Any]]:
    rows: list[list[Any]] = tensor.reshape(count, -1).tolist()
    return rows


def _log(probability: float) -> float:
    # OpenAI writes -9999.0 for what cannot be: JSON has no infinity.
    return math.log(probability) if probability > 0 else -9999.0


def _rate(name: str, count: int, seconds: float) -> JsonDict:
    return {name: count / seconds} if count > 0 and seconds > 0 else {}
