"""How much of an answer is taken in before it is one no longer: every server is believed to be hostile.

What honest servers send stays far below. Beyond a bound an answer is broken, and the next server is asked.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_CHOICES",
    "MAX_EARLY_EVENTS",
    "MAX_ERROR_BYTES",
    "MAX_EVENT_LINES",
    "MAX_LINE_BYTES",
    "MAX_LIST_BYTES",
    "MAX_STREAM_BYTES",
    "MAX_VALUES",
    "MAX_VECTOR_BYTES",
    "UNPACKED_AT_ONCE",
    "load",
]

# A tool call or a picture may come as one line of several MB; an endless line must still end somewhere.
MAX_LINE_BYTES = 64 * 2**20
# A complete chat or completion: with logprobs of five alternatives, 100,000 tokens take some 50 MB.
MAX_BODY_BYTES = 64 * 2**20
# Embeddings of a large batch: 2,048 of 4,096 numbers take some 170 MB.
MAX_VECTOR_BYTES = 256 * 2**20
# A streamed answer as a whole. A token is some 250 bytes of events, so that this is a million of them.
MAX_STREAM_BYTES = 256 * 2**20
# Events before the first token are kept until it is known who answers: a role, and a prompt's progress batch by batch.
MAX_EARLY_EVENTS = 10_000
# Lines of one event: JSON written for people has thousands.
MAX_EVENT_LINES = 20_000
# An error page is read only so far; no message needs more.
MAX_ERROR_BYTES = 64 * 1024
# A list of models, or of what is loaded: thousands of them have some hundred bytes each.
MAX_LIST_BYTES = 16 * 2**20
# OpenAI allows 128 answers to one question, and as many tools.
MAX_CHOICES = 1024
# Three bytes of JSON ({},) can become 72 in memory: what is beyond counting is not parsed.
MAX_VALUES = 4_000_000
# A compressed body grows a thousandfold at most (deflate), and is unpacked by so many bytes.
UNPACKED_AT_ONCE = 256 * 1024

_SURELY_FEW = 2**20
# json.loads itself spends a good part of a token's time on looking for the space around it.
_decoder = json.JSONDecoder()


def load(text: bytes, most: int = MAX_VALUES) -> Any:
    """json.loads for what a server sent. Raises ValueError, also for more than `most` values and for nesting without end."""
    if len(text) > _SURELY_FEW and (values := sum(map(text.count, (b",", b"[", b"{")))) > most:
        raise ValueError(f"the JSON has up to {values} values, more than {most}")
    said = text.decode("utf-8", "surrogatepass").strip(" \t\r\n")
    try:
        value, end = _decoder.raw_decode(said)
    except RecursionError:
        raise ValueError("the JSON nests too deeply") from None
    if end != len(said):
        raise json.JSONDecodeError("Extra data", said, end)
    return value
