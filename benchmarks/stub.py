"""A server that costs as little as can be: it answers chats with fixed bytes, streamed (CHUNKS pieces) or whole.

python stub.py [hold] [CORE]     (hold: streams stop after their first token and stay open; CORE: where it runs, alone)
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CHUNKS = 64
HOLD = "hold" in sys.argv[1:2]


def chunk(text: str, finish: str | None = None) -> bytes:
    event = {
        "id": "c",
        "created": 1,
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
    }
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = [chunk(f"token {number} ") for number in range(CHUNKS - 1)] + [chunk("", "stop"), b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = json.dumps(
    {
        "id": "c",
        "created": 1,
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 400}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 99, "total_tokens": 108},
    }
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Answers(asyncio.Protocol):
    """One connection; a protocol and not streams, so that the fast clients wait for themselves and not for this."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport, self._data, self._tasks = transport, b"", set[asyncio.Task[None]]()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) < length:
            return
        self._data = body[length:]
        if b'"stream":true' in body.replace(b" ", b""):
            task = asyncio.get_running_loop().create_task(self._stream())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._transport.write(WHOLE)

    async def _stream(self) -> None:
        self._transport.write(STREAM_HEAD)
        for piece in STREAM[:1] if HOLD else STREAM:
            self._transport.write(piece)
            await asyncio.sleep(0)


@contextmanager
def stub(*how: str) -> Iterator[str]:
    """The server in a process of its own; gives its URL."""
    process = subprocess.Popen([sys.executable, __file__, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.stdin.close()
        process.wait(5)


def open_many_files() -> None:
    """Hundreds of streams are as many sockets on each side."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192 if most == resource.RLIM_INFINITY else min(8192, most), most))


async def main() -> None:
    open_many_files()
    if sys.argv[1:] and sys.argv[-1].isdigit():
        os.sched_setaffinity(0, {int(sys.argv[-1])})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answers, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # It ends with its parent: the end of stdin is the sign.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
