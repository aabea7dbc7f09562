"""What a call costs the Router as its backends and conversations become more: its own part alone, nobody is asked.

python benchmarks/scale.py [--write]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import page

import hydra_infer as hydra
from hydra_infer.routing.call import Ended, Started
from hydra_infer.routing.flow import failover
from hydra_infer.wire.question import read_question

BACKENDS = (1, 2, 10, 100)
CONVERSATIONS = (1, 100, 10_000)
STRATEGIES = ("ordered", "shuffle", "least-busy", "fastest", "sticky", "cheapest", "difficulty")
ROUNDS, CALLS = 15, 200
ANSWERED = Ended(seconds=1.0, ttft=0.1)


def questions(conversations: int) -> Iterator[bytes]:
    """So many conversations in turn."""
    while True:
        for number in range(conversations):
            yield json.dumps({"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}).encode()


def microseconds(strategy: str, backends: int, conversations: int) -> float:
    """CPU of one call, from the request's bytes to the entry in the books; the least of some rounds."""
    rows = [hydra.Backend.openai(f"http://h{number}:1", models=["m"], name=f"h{number}") for number in range(backends)]
    board = hydra.Router(rows, strategy=strategy)._board  # noqa: SLF001 - the Router's own part is what is measured
    asked = questions(conversations)

    def call() -> None:
        made = board.call(read_question("/chat/completions", next(asked), {}), mode="plain")
        flow = failover(made, board.pool, board.policy, board._strategy, time.monotonic, board._tell)  # noqa: SLF001
        flow.send(None)
        flow.send(Started())
        try:
            flow.send(ANSWERED)
        except StopIteration:
            return

    for _ in range(2 * backends):
        call()
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        spent.append((time.process_time() - began) / CALLS * 1e6)
    return min(spent)


def main() -> None:
    rows, told = [], []
    for strategy in STRATEGIES:
        figures = [microseconds(strategy, backends, 1) for backends in BACKENDS]
        rows.append([strategy, *(f"{figure:.0f}" for figure in figures)])
        told.append((f"{strategy}: 100 backends, against 2", figures[-1] / figures[1], "most", 1.5))
    talks = [microseconds("sticky", 10, conversations) for conversations in CONVERSATIONS]
    told.append(("sticky over 10 backends: 10,000 conversations, against 1", talks[-1] / talks[0], "most", 1.5))
    text = "\n\n".join(
        [
            page.table(["strategy", *(f"{n} backend{'s' * (n > 1)}" for n in BACKENDS)], rows),
            f"CPU µs of the Router's own part of a call, the least of {ROUNDS} rounds ({page.machine()}). Conversations over 10\n"
            "backends with `sticky`: "
            + ", ".join(f"{figure:.0f} for {n:,}" for n, figure in zip(CONVERSATIONS, talks, strict=True))
            + ".",
            page.claims(told),
        ]
    )
    print(text)
    if "--write" in sys.argv[1:]:
        page.renew("scale", text)


if __name__ == "__main__":
    main()
