"""What the Router costs beside plain httpx: CPU per call and per streamed chunk, both in one run, the ratio printed.

python benchmarks/router.py [CALLS]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import httpx
from stub import CHUNKS, stub

import hydra_infer as hydra

ROUNDS = 7
MESSAGES = [{"role": "user", "content": "hi"}]


def cpu(work: Callable[[], object], calls: int) -> float:
    """Microseconds of this process's CPU per call."""
    began = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - began) / calls * 1e6


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with stub() as url, httpx.Client() as raw, hydra.Router([hydra.Backend.openai(url, models=["m"])]) as router:
        routed = router.client()
        body = {"model": "m", "messages": MESSAGES}
        streamed = {**body, "stream": True}

        def stream_raw() -> None:
            with raw.stream("POST", f"{url}/v1/chat/completions", json=streamed) as response:
                for _ in response.iter_lines():
                    pass

        def stream_routed() -> None:
            with routed.stream("POST", "/chat/completions", json=streamed) as response:
                for _ in response.iter_raw():
                    pass

        pairs: list[tuple[str, Callable[[], object], Callable[[], object], int]] = [
            (
                "plain call",
                lambda: raw.post(f"{url}/v1/chat/completions", json=body).json(),
                lambda: routed.post("/chat/completions", json=body).json(),
                1,
            ),
            ("streamed chunk, client()", stream_raw, stream_routed, CHUNKS),
            ("streamed chunk, chat()", stream_raw, lambda: router.chat("m", MESSAGES), CHUNKS),
        ]
        print(f"{'':26} {'httpx':>9} {'Router':>9} {'added':>9} {'ratio':>6}   median of {ROUNDS} rounds in turn, µs of CPU")
        for name, plain, through, parts in pairs:
            plain(), through()
            rounds = [(cpu(plain, calls // parts + 5) / parts, cpu(through, calls // parts + 5) / parts) for _ in range(ROUNDS)]
            ratio = statistics.median(b / a for a, b in rounds)
            a, b = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{name:26} {a:9.1f} {b:9.1f} {b - a:+9.1f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
