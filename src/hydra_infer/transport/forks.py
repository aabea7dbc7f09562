"""A forked child has its parent's memory, but neither its threads nor its calls; what it can use, it makes anew."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renew_in_children"]


class _Renewable(Protocol):
    def renew(self) -> None: ...


_known: WeakSet[_Renewable] = WeakSet()


def renew_in_children(thing: _Renewable) -> None:
    """Have `thing.renew()` called in every forked child, before anything else runs there."""
    _known.add(thing)


def _renew_all() -> None:
    for thing in list(_known):
        thing.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_renew_all)
