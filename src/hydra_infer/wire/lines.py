"""Bytes in, whole lines out: what NDJSON is made of, and server-sent events too."""

from __future__ import annotations

from .bounds import MAX_LINE_BYTES

__all__ = ["LineTooLong", "Lines"]


class LineTooLong(ValueError):
    """A line, or an event of several lines, grew beyond the limit without an end."""


class Lines:
    """Splits at line feeds only, and takes a carriage return before one off.

    str.splitlines and both httpx's iter_lines also split at U+2028, U+0085 and others, which may stand raw inside a JSON
    string; and UTF-8 cut in the middle of a character must not matter. So nothing is decoded here.
    """

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_bytes
        self._rest = bytearray()  # the line that has not ended yet
        self._scanned = 0  # how much of it holds no line feed for certain: a long line is not searched twice

    def feed(self, data: bytes) -> list[bytes]:
        """Every line that `data` completes. Raises LineTooLong."""
        if not self._rest and data.endswith(b"\n"):  # whole lines, as most pieces of a stream are
            whole = data.split(b"\n")
            whole.pop()
            return [line.removesuffix(b"\r") for line in whole] if b"\r" in data else whole
        self._rest += data
        lines: list[bytes] = []
        start = 0
        while (end := self._rest.find(b"\n", max(start, self._scanned))) >= 0:
            lines.append(bytes(self._rest[start : end - 1 if end > start and self._rest[end - 1] == 0x0D else end]))
            start = end + 1
        del self._rest[:start]
        self._scanned = len(self._rest)
        if self._scanned > self._max:
            raise LineTooLong(f"one line is larger than {self._max} bytes")
        return lines

    def end(self) -> list[bytes]:
        """The last line, when the stream ended without a line feed."""
        return self.feed(b"\n") if self._rest else []
