"""hydra-infer: words to calls, calls to print. No logic lives here.

Exit status: 0 good, 1 the answer is no (does not fit, unhealthy, failed), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import ConfigError, HydraError, MissingExtra, UnknownGpu, UnknownModel
from .ask import add_ask
from .compare import add_bench
from .fleet import add_fleet
from .migrate import add_migrate
from .operate import add_operate
from .plan import add_plan
from .servers import add_servers

__all__ = ["main"]

_USAGE_ERRORS = (ConfigError, UnknownGpu, UnknownModel, MissingExtra)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    arguments = _parser().parse_args(argv)
    if not hasattr(arguments, "run"):
        _parser().print_help()
        return 2
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return int(status)
    except HydraError as error:
        print(f"hydra-infer: {error}", file=sys.stderr)
        return 2 if isinstance(error, _USAGE_ERRORS) else 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hydra-infer", description="Plan, run and route language models on your own graphics cards."
    )
    parser.add_argument("--version", action="version", version=f"hydra-infer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (add_plan, add_ask, add_servers, add_fleet, add_operate, add_bench, add_migrate):
        add(commands)
    return parser
