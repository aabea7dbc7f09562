"""The time one attempt has left, enforced where the bytes are read."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from ..routing.call import Limits
from .alarm import Alarm

__all__ = ["CURRENT", "Holds", "Watch", "quick"]

# Asks, within so many seconds, whether the server still holds the attempt's model; awaitable for event loops.
Holds = Callable[[float], bool | Awaitable[bool]]

# How long that question may take.
_ASKING = 3.0

# After the last event the end of the body usually lies in the same packet; reading it keeps the connection usable. A server
# that holds the line open instead must not hold up the caller.
_DRAIN = 0.25


class Watch:
    """One attempt's timers folded into one instant, `due`, moved forward by each token; and what was counted on the way.

    The sync network reads with what is left until `due`. In event loops an Alarm looks when it is time, and then `abort` is
    called: 15 µs a chunk for wait_for, none for this.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float], holds: Holds | None = None) -> None:
        self._limits, self._clock = limits, clock
        self._holds = holds
        self._asking: asyncio.Task[None] | None = None
        self._given_up = False  # the server was asked, and no longer holds the model
        self.began = self.last_token = clock()
        self.first_token: float | None = None
        whole = math.inf if limits.whole is None else self.began + limits.whole
        deadline = math.inf if limits.ends_at is None else limits.ends_at
        self._end = (deadline, "deadline") if deadline <= whole else (whole, "timeout")
        self.due, self.blame = self._earliest(self.began + limits.first, limits.first_name)
        self.expired = False
        self.aborted = False  # an alarm has ended it
        self.received = 0  # bytes of this attempt's response
        self.fresh = False  # a new connection was made for it
        self.socket: socket.socket | None = None  # that connection's, for a library that closes it only when all is written
        self.abort: Callable[[], object] | None = None  # set by an async connection: makes its pending read end
        self._alarm: Alarm | None = None

    def token(self) -> None:
        """A token has arrived: from here on the gap between tokens counts."""
        now = self._clock()
        self.first_token = self.first_token or now
        self.last_token = now
        self._set(now + self._limits.idle, self._limits.idle_name)

    def since(self) -> float:
        """Seconds since the asking."""
        return self._clock() - self.began

    def drain(self) -> None:
        """The answer is complete; only the end of the body is still to be read."""
        self._set(self._clock() + _DRAIN, "drain")

    def left(self) -> float:
        """Seconds until `due`; marks the attempt as expired when there are none."""
        left = self.due - self._clock()
        self.expired = self.expired or left <= 0
        return left

    def connect_left(self) -> float:
        """Seconds for making a connection: its own limit, inside what is left at all."""
        return max(0.001, min(self._limits.connect, self.left()))

    @property
    def verdict(self) -> str:
        """What the expiry means, for people."""
        seconds = self.due - self.began
        where = f"no {self._limits.sign} for that long" if self.first_token else f"no {self._limits.sign}"
        gone = ", and the model is not loaded there now" if self._given_up else ""
        return f"{where} within {self.blame} ({seconds:.1f} s after asking){gone}"

    def start(self, alarm: Alarm) -> None:
        """Watch from the running event loop: when the time is over, `abort` is called."""
        self._alarm = alarm
        alarm.add(self)

    def stop(self) -> None:
        """The attempt is over."""
        self.abort = None  # a connection and its attempt hold each other
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._alarm is not None:
            self._alarm.discard(self)
            self._alarm = None

    def look(self) -> None:
        """The alarm rang, perhaps for another attempt: if the time of this one is over, ask whether it may go on, or end it."""
        if self.due > self._clock():
            return
        if self.may_ask():
            self._ask_later()
            return
        self.expired = self.aborted = True
        if self._alarm is not None:
            self._alarm.discard(self)
        if self.abort is not None:
            self.abort()

    def _set(self, instant: float, name: str) -> None:
        self.due, self.blame = self._earliest(instant, name)
        if self._alarm is not None:
            self._alarm.expect(self)

    # ---- a gap that may be a tool call, held back until it is whole ----------------------------------------------

    def is_held(self) -> bool:
        """The gap between tokens is over, for threads: whether it may go on, because the server still holds the model."""
        if not self.may_ask():
            return False
        assert self._holds is not None
        self._judge(held=bool(self._holds(self._grace())))
        return not self._given_up

    def may_ask(self) -> bool:
        """Whether what runs out next is the gap's first limit, which may be moved, and not its last one or another timer."""
        return (
            self._holds is not None
            and self._asking is None
            and self.first_token is not None
            and self.blame == self._limits.idle_name
            and not self._given_up
        )

    def _grace(self) -> float:
        """Move `due` so that the server can be asked meanwhile, within the deadline; gives the seconds for it."""
        self.due, _ = self._earliest(self._clock() + _ASKING, self.blame)
        return self.due - self._clock()

    def _ask_later(self) -> None:
        """The same for event loops: the question is a task of its own, and the read goes on."""
        self._asking = asyncio.get_running_loop().create_task(self._find_out(self._grace(), self.last_token))

    async def _find_out(self, seconds: float, last_token: float) -> None:
        assert self._holds is not None
        held = self._holds(seconds)
        held = held if isinstance(held, bool) else await held
        self._asking = None
        if self.last_token == last_token:  # else a token came while it was asked, and answered better
            self._judge(held=held)

    def _judge(self, *, held: bool) -> None:
        """The gap may go on for another `idle`, `silence` at most; or it is over now."""
        self._given_up, self.expired = not held, False
        now, end = self._clock(), self.last_token + (self._limits.silence or 0.0)
        again = (now + self._limits.idle, self._limits.idle_name)
        self._set(*min(again, (end, "timeout")) if held else (now, self._limits.idle_name))

    def _earliest(self, instant: float, name: str) -> tuple[float, str]:
        """The first of the running timer, the whole-answer timer and the deadline: when it expires, and its name."""
        return (instant, name) if instant < self._end[0] else self._end


def quick(seconds: float) -> Limits:
    """Limits for a question that must be answered within `seconds`, whatever happens."""
    name = "the probe's limit"
    return Limits(connect=seconds, first=seconds, first_name=name, idle=seconds, idle_name=name, whole=seconds, ends_at=None)


# The attempt that the current thread or task is making: how a connection deep inside the HTTP library finds its timers.
CURRENT: ContextVar[Watch] = ContextVar("hydra_infer_watch")
