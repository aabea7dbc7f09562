"""What is asked: prompts by kind for speed, questions and beginnings of text for likeness. All written for this purpose. Pure."""

from __future__ import annotations

import random

__all__ = ["KINDS", "OPENINGS", "TALKS", "prompt"]

KINDS = ("chat", "code", "long")

# OpenAI's rule of thumb for English; servers say how many tokens it really was.
_CHARACTERS_PER_TOKEN = 4

_CHAT = (
    "Which plants would live on a small balcony that faces north? Tell me in detail how to look after each through the year.",
    "Write my grandmother a friendly letter that explains every step of a video call, from charging the tablet to the goodbye.",
    "Explain at length how a tide comes about, why there are two in most places every day, and why some bays have hardly any.",
    "Tell a story about two rival lighthouse keepers who must share one boat for a winter. Give each a voice of their own.",
)
_CODE = (
    "Write a Python class for a least-recently-used cache without functools, its tests, and the cost of every operation.",
    """\
This function should merge overlapping intervals, but it loses some. Find the fault and show the whole function, corrected.

```python
def merge(spans):
    spans.sort()
    out = [spans[0]]
    for low, high in spans:
        if low < out[-1][1]:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out
```""",
    "Write an SQL schema for a lending library, then queries for overdue loans and for the ten books most often lent this year.",
    "Write a small HTTP server in Go that counts requests per path, gives the counts as JSON on /stats, and has a test.",
)
_THINGS = "copper wire|dried apples|lamp oil|window glass|school slates|sailcloth|red bricks|seed potatoes|clock springs|tin cups"
_PLACES = "the north quay|the old mill|the customs house|the upper market|the station yard|the tannery|the ferry landing"
_NAMES = "Ada Brandt|Tomas Reyes|Ilse Moor|Jonah Pike|Mara Lind|Piet Okafor|Rosa Quill"
_REMARKS = (
    "the lid was loose|one corner was wet|the seal was whole|the weight was short by a little|the label had been written twice"
    "|it had come a day early|the carter asked for a receipt"
)

# Greedy answers to these are compared token by token.
TALKS = (
    "Name the seasons and say one sentence about each.",
    "Why does bread rise?",
    "Write a Python function that tells whether a word is a palindrome.",
    "Give directions for boiling an egg, in numbered steps.",
    "Summarise in two sentences: The river froze early that year. The mill stood still, and the miller mended nets instead.",
    "Translate into French: The cat sleeps on the warm stove.",
    "What is the difference between weather and climate?",
    "Write a limerick about a postman in the rain.",
)

# After each of these the probabilities of the next token are compared: both sides have read the same text.
OPENINGS = (
    "The capital of Italy is",
    "Water boils at a temperature of one hundred degrees",
    "Once upon a time there was a little",
    "To be honest, I did not expect the",
    "The three primary colours are red, blue and",
    "She opened the door, looked around and",
    "for i in range(10):\n    print(",
    "import numpy as",
    "SELECT name FROM users WHERE",
    'def add(a, b):\n    """Add two numbers."""\n    return',
    "The meeting has been moved from Monday to",
    "Ladies and",
    "The chemical symbol of gold is",
    "In the middle of the night he heard a",
    "The results of the experiment show that the",
    "Thank you very much for your",
)


def prompt(kind: str, side: str, *, seed: int, parallel: int, repetition: int, stream: int, long_tokens: int) -> str:
    """A prompt of a kind ("chat", "code", "long" of about `long_tokens` tokens) that no server has read before.

    Servers keep what they have computed for a prompt and skip it when the next begins alike, so each one begins with a ticket
    of its own, the side's letter first: the same server on both sides must not profit either. Both sides' are equally long.
    """
    dice = random.Random(f"{seed} {kind} {parallel} {repetition} {stream}")
    ticket = f"{side.upper()}{dice.randrange(10**6):06d}"
    if kind == "long":
        return f"Ticket {ticket}. {_long(dice, long_tokens)}"
    texts = _CHAT if kind == "chat" else _CODE
    return f"Ticket {ticket}. {texts[(repetition + stream) % len(texts)]}"


def _long(dice: random.Random, tokens: int) -> str:
    """A made-up ledger, and what is to be done with it."""
    things, places, names, remarks = (words.split("|") for words in (_THINGS, _PLACES, _NAMES, _REMARKS))
    lines: list[str] = []
    room = tokens * _CHARACTERS_PER_TOKEN
    while room > 0:
        start, goal = dice.sample(places, 2)
        lines.append(
            f"A crate of {dice.choice(things)} left {start} for {goal}; {dice.choice(names)} signed for it and noted that "
            f"{dice.choice(remarks)}."
        )
        room -= len(lines[-1]) + 1
    return "Here is a ledger.\n\n" + "\n".join(lines) + "\n\nWrite a long report on who signed for what, and what they noted."
