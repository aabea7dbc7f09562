"""A thousand streams are a thousand open sockets on each side."""

from __future__ import annotations

import resource

WANTED = 8192


def open_many_files() -> None:
    """Allow this process as many open files as are wanted here, or as many as it may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = WANTED if most == resource.RLIM_INFINITY else min(WANTED, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
