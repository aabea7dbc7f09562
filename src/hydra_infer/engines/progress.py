"""Progress: where long work says how far it is. A callable, a bar on a terminal or in a notebook, or nowhere."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ConfigError

__all__ = ["Progress", "Report", "quiet", "reporting"]

Report = Callable[[float, str], None]  # (fraction from 0 to 1, what is being done)
Progress = Report | bool | None  # what callers may pass


def quiet(_fraction: float, _message: str) -> None:
    """Report to nobody."""


@contextmanager
def reporting(progress: Progress) -> Iterator[Report]:
    """The function to report to. None shows a bar where somebody is looking and tqdm is installed; False shows none.

    Raises ConfigError for anything that is neither of these nor callable.
    """
    if callable(progress):
        yield progress
        return
    if progress is not None and not isinstance(progress, bool):
        raise ConfigError(f"progress={progress!r} is not a function", hint="progress=False, or a function (fraction, message)")
    bar = None if progress is False else _bar(always=progress is True)
    if bar is None:
        yield quiet
        return

    def show(fraction: float, message: str) -> None:
        bar.set_description(message, refresh=False)
        bar.update(fraction - bar.n)

    with bar:
        yield show


def _bar(*, always: bool) -> Any | None:
    # sys.stderr is None in a Windows program without a console.
    watched = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
    if not (watched or always):
        return None
    with warnings.catch_warnings():
        # In a notebook without ipywidgets it warns, and takes a bar of text; that is all we ask.
        warnings.simplefilter("ignore")
        try:
            import tqdm.auto  # type: ignore[import-untyped]
        except ImportError:
            return None
    return tqdm.auto.tqdm(total=1.0, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}", leave=False)
