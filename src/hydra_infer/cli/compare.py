"""The command bench, which is `migrate compare` as well."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .progress import Telling
from .words import command, key_in, show, tokens

__all__ = ["add_bench"]


def add_bench(commands: Any, name: str = "bench", a: str = "A", b: str = "B") -> None:
    bench = command(commands, name, _bench, "two servers side by side: speed, and whether they answer alike")
    bench.add_argument("a", metavar=a, help="a server's address: what there is")
    bench.add_argument("b", metavar=b, help="another one's, or the same: what is compared with it")
    bench.add_argument("--model", action="append", help=f"what to ask both for; given twice: what to ask {a} for, and {b}")
    bench.add_argument("--kinds", nargs="+", default=["chat", "code", "long"], metavar="KIND", help="chat code long")
    bench.add_argument("--parallel", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="so many requests at once")
    bench.add_argument("--repetitions", type=int, default=10, metavar="N", help="of each; fewer than 10 show no difference")
    bench.add_argument("--max-tokens", type=int, default=128, metavar="N", help="of each answer")
    bench.add_argument("--long-tokens", type=tokens, default=4096, metavar="TOKENS", help="about how long a long prompt is")
    bench.add_argument("--no-quality", action="store_true", help="speed only")
    bench.add_argument("--minimum", type=float, default=3.0, metavar="PERCENT", help="the effect from which a difference counts")
    bench.add_argument("--seed", type=int, metavar="N", help="draws order and prompts; default: anew for each run")
    bench.add_argument("--file", help="keep every result here as JSON lines; the same command continues a run that was stopped")
    bench.add_argument("--html", metavar="FILE", help="also write the picture")
    bench.add_argument(
        "--api-key-env", action="append", metavar="VARIABLE", help=f"holds the key of both; given twice: {a}'s, {b}'s"
    )
    bench.add_argument("--json", action="store_true")


def _bench(arguments: argparse.Namespace) -> int:
    from ..ops import bench

    models, keys = arguments.model or [None], [key_in(variable) for variable in arguments.api_key_env or ()]
    report = bench.compare(
        arguments.a,
        arguments.b,
        model=(models[0], models[-1]),
        kinds=arguments.kinds,
        parallel=arguments.parallel,
        repetitions=arguments.repetitions,
        max_tokens=arguments.max_tokens,
        long_tokens=arguments.long_tokens,
        quality=not arguments.no_quality,
        minimum=arguments.minimum / 100,
        seed=arguments.seed,
        file=arguments.file,
        api_keys={arguments.a: keys[0], arguments.b: keys[-1]} if keys else None,
        progress=Telling(seconds=10),
    )
    if arguments.html:
        Path(arguments.html).write_text(report.to_html(), encoding="utf-8")
    show(report, arguments)
    return 0
