"""A server of bad character for long runs: it counts to each caller, and stalls, cuts off, resets or refuses at random.

python server.py PORT SEED FAULTS     (FAULTS: the share of answers that go wrong, 0 to 1; it ends with its stdin)
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys

from rlimit import open_many_files

TOKENS = 40  # of one answer
GAP = 0.25  # seconds between two of them, on average
STALL = 6.0  # longer than the callers' idle_timeout
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}"


def event(text: str, finish: str | None = None) -> bytes:
    body = {"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    data = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(name: str, number: int) -> str:
    """The numberth token for the caller of that name: it tells whose it is and which."""
    return f"{name}/{number} "


async def answer(name: str, mood: str, dice: random.Random, writer: asyncio.StreamWriter) -> bool:
    """One answer; whether the connection is still of use."""
    if mood == "busy":
        writer.write(BUSY)
        return True
    if mood == "refused":
        return False
    writer.write(HEAD)
    turn = dice.randrange(TOKENS)
    for number in range(TOKENS):
        if number == turn and mood == "stalled":
            await asyncio.sleep(STALL)
        if number == turn and mood in ("cut", "reset"):
            return False
        writer.write(event(token(name, number)))
        await writer.drain()
        await asyncio.sleep(dice.uniform(0, 2 * GAP))
    writer.write(event("", "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    return True


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random, faults: float) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            name = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
            mood = dice.choice(["busy", "refused", "stalled", "cut", "reset"]) if dice.random() < faults else "well"
            if not await answer(name, mood, dice, writer):
                if mood == "reset":
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
    except (OSError, asyncio.IncompleteReadError):
        return  # the caller left
    finally:
        writer.close()


async def main(port: int, seed: int, faults: float) -> None:
    open_many_files()
    dice = random.Random(seed)
    server = await asyncio.start_server(lambda r, w: serve(r, w, dice, faults), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
