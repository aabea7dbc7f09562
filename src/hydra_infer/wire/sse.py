"""Server-sent events: bytes in, the data of whole events out."""

from __future__ import annotations

from .bounds import MAX_EVENT_LINES, MAX_LINE_BYTES
from .lines import Lines, LineTooLong

__all__ = ["SSEParser", "encode_event"]


class SSEParser:
    """Comments (": ping") and field names other than `data` are dropped."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_bytes
        self._lines = Lines(max_bytes)
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that `data` completes, in order. Raises LineTooLong."""
        return self._events(self._lines.feed(data))

    def end(self) -> list[bytes]:
        """The event that the end of the stream completes, if any: several servers leave the last blank line out."""
        return self._events([*self._lines.end(), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line.startswith(b" ", 5) else line[5:]
                self._data.append(value)
                self._size += len(value)
                if self._size > self._max or len(self._data) > MAX_EVENT_LINES:
                    raise LineTooLong(f"one event is larger than {self._max} bytes or {MAX_EVENT_LINES} lines")
            elif not line and self._data:
                if event := b"\n".join(self._data):
                    events.append(event)
                self._data, self._size = [], 0
        return events


def encode_event(data: bytes, name: str = "") -> bytes:
    """One event carrying `data` (JSON on one line, or [DONE]), with its name where events have names."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"
