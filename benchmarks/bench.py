"""Whether bench tells the truth: paced servers with a known factor, and equal ones, many runs of each.

python benchmarks/bench.py [RUNS]
"""

from __future__ import annotations

import sys

import hydra_infer as hydra
from hydra_infer.engines.echo import echo

PACE, WORDS = 0.01, 12
REPETITIONS = 20  # on a busy machine one wild measurement must not hide a factor


def run(factor: float) -> hydra.bench.Report:
    """One comparison, b's words `factor` times as fast."""
    with echo(delay=PACE, ttft=PACE) as a, echo(delay=PACE / factor, ttft=PACE) as b:
        return hydra.bench.compare(
            a, b, kinds="chat", parallel=1, repetitions=REPETITIONS, max_tokens=WORDS, quality=False, progress=False
        )


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    verdicts = [run(1.0).verdict for _ in range(runs)]
    print(f"equal servers: {verdicts.count('no difference')} of {runs} runs found no difference")
    for factor in (0.5, 0.8, 1.25):
        report = run(factor)
        assert report.decode_ratio is not None
        off = report.decode_ratio / factor - 1
        print(f"factor {factor}: measured {report.decode_ratio:.3f}, off by {off:+.1%}; {report.verdict}")


if __name__ == "__main__":
    main()
