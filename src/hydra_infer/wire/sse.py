"""Server-sent events: bytes in, the data of whole events out."""

from __future__ import annotations

__all__ = ["MAX_EVENT_BYTES", "EventTooLarge", "SSEParser", "encode_event"]

# A tool call or a picture may come as one line of several MB; an endless line must still end somewhere.
MAX_EVENT_BYTES = 64 * 2**20


class EventTooLarge(ValueError):
    """One event grew beyond MAX_EVENT_BYTES without an end."""


class SSEParser:
    """Splits a byte stream into events, at line feeds only.

    str.splitlines and both httpx's iter_lines also split at U+2028, U+0085 and others, which may stand raw inside a JSON
    string; and UTF-8 cut in the middle of a character must not matter. So nothing is decoded here.
    Comments (": ping") and field names other than `data` are dropped.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_bytes
        self._rest = bytearray()  # the line that has not ended yet
        self._scanned = 0  # how much of it holds no line feed for certain: a long line is not searched twice
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that `data` completes, in order. Raises EventTooLarge."""
        self._rest += data
        events: list[bytes] = []
        start = 0
        while (end := self._rest.find(b"\n", max(start, self._scanned))) >= 0:
            line = bytes(self._rest[start : end - 1 if end > start and self._rest[end - 1] == 0x0D else end])
            start = end + 1
            if event := self._line(line):
                events.append(event)
        del self._rest[:start]
        self._scanned = len(self._rest)
        if self._size + len(self._rest) > self._max:
            raise EventTooLarge(f"one event is larger than {self._max} bytes")
        return events

    def end(self) -> list[bytes]:
        """The event that the end of the stream completes, if any: several servers leave the last blank line out."""
        events = self.feed(b"\n") if self._rest else []
        if event := self._line(b""):
            events.append(event)
        return events

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event, self._data, self._size = b"\n".join(self._data), [], 0
            return event or None
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._data.append(value)
            self._size += len(value)
        return None


def encode_event(data: bytes) -> bytes:
    """One event carrying `data` (JSON on one line, or [DONE])."""
    return b"data: " + data + b"\n\n"
