"""httpcore's network seam with our deadlines in it: every read, write and connect takes what its attempt has left."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from .watch import CURRENT, Watch

__all__ = ["AsyncNetwork", "SyncNetwork", "socket_options"]

# A host switched off answers nothing, not even a reset. Linux then waits for 15 minutes of retransmissions on a kept-alive
# connection; with these a dead peer is noticed within about 2 s of the first unanswered byte.
_USER_TIMEOUT_MS = 2000

# httpcore writes a request's head and body one by one. What is no longer than this is sent together, before the first read:
# a system call and a packet less for each call.
_TOGETHER = 64 * 1024


def socket_options() -> list[tuple[int, int, int]]:
    """Keepalive and quick failure, as far as this system has them."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class SyncNetwork(httpcore.NetworkBackend):
    """Connections whose reads end when their attempt's time is over, however slowly bytes drip in."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        watch = CURRENT.get()
        ends_at = time.monotonic() + watch.connect_left()
        options, error = list(socket_options or ()), None
        for address in _resolve(host, port, ends_at):
            left = ends_at - time.monotonic()
            if left <= 0:
                break
            try:
                stream = self._inner.connect_tcp(address, port, timeout=left, local_address=local_address, socket_options=options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
            else:
                watch.fresh = True
                return _SyncStream(stream)
        raise error or httpcore.ConnectTimeout(f"no connection to {host} within connect_timeout")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _SyncStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._watch: Watch | None = None
        self._unsent = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        watch = self._watch or CURRENT.get()
        if self._unsent:
            # As httpcore does: a server that takes no more may have said why, and reading tells.
            with contextlib.suppress(httpcore.WriteError):
                self._send(watch)
        while True:
            try:
                data = self._inner.read(max_bytes, timeout=_left(watch))
            except httpcore.ReadTimeout:
                if not watch.is_held():
                    raise
            else:
                watch.received += len(data)
                return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # A request begins with a write, always inside the call that makes it; its response may be read from elsewhere.
        watch = self._watch = CURRENT.get()
        self._unsent += buffer
        if len(self._unsent) > _TOGETHER:
            self._send(watch)

    def _send(self, watch: Watch) -> None:
        data, self._unsent = self._unsent, b""
        self._inner.write(data, timeout=_left(watch))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _SyncStream(self._inner.start_tls(ssl_context, server_hostname, timeout=CURRENT.get().connect_left()))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class AsyncNetwork(httpcore.AsyncNetworkBackend):
    """The same for event loops: the attempt's timer shuts the socket, so that a pending read ends."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        watch = CURRENT.get()
        # anyio resolves once and tries all addresses within this one budget.
        stream = await self._inner.connect_tcp(
            host,
            port,
            timeout=watch.connect_left(),
            local_address=local_address,
            socket_options=list(socket_options or ()),
        )
        watch.fresh = True
        return _AsyncStream(stream)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._watch: Watch | None = None
        self._unsent = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        watch = self._watch or CURRENT.get()
        if self._unsent:
            with contextlib.suppress(httpcore.WriteError):
                await self._send(watch)
        if not watch.may_ask():  # else the attempt's timer asks, even when it is a moment late
            _left(watch)
        data = await self._inner.read(max_bytes)
        if watch.expired:
            raise httpcore.ReadTimeout(watch.verdict)
        watch.received += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        watch = self._watch = CURRENT.get()
        watch.abort = self.abort
        self._unsent += buffer
        if len(self._unsent) > _TOGETHER:
            await self._send(watch)

    async def _send(self, watch: Watch) -> None:
        data, self._unsent = self._unsent, b""
        await self._inner.write(data, timeout=_left(watch))

    def abort(self) -> None:
        """End a pending read now."""
        with contextlib.suppress(OSError):  # closed already is what was wanted
            self._inner.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _AsyncStream(await self._inner.start_tls(ssl_context, server_hostname, timeout=CURRENT.get().connect_left()))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(watch: Watch) -> float:
    left = watch.left()
    if left <= 0:
        raise httpcore.ReadTimeout(watch.verdict)
    return left


def said(error: BaseException, host: str) -> str:
    """What went wrong with `host`, in the system's own words where it is its error: what libraries wrap around that says less."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return f"the name {host} cannot be resolved: {str(cause.strerror).lower()}"
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):  # whose numbers are OpenSSL's
            return os.strerror(cause.errno).lower()
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
    return str(error) or type(error).__name__


def _resolve(host: str, port: int, ends_at: float) -> list[str]:
    """The host's addresses. getaddrinfo knows no timeout, so a name is looked up in a thread that is not waited for past it."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append([entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except OSError as error:
            found.append(error)

    if _is_address(host):
        return [host]
    thread = threading.Thread(target=look_up, name=f"hydra-resolve-{host}", daemon=True)
    thread.start()
    thread.join(max(0.001, ends_at - time.monotonic()))
    if not found:
        raise httpcore.ConnectTimeout(f"the name {host} was not resolved within connect_timeout")
    if isinstance(found[0], OSError):
        raise httpcore.ConnectError(str(found[0])) from found[0]
    return list(dict.fromkeys(found[0]))


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.strip("[]"))
        except OSError:
            continue
        return True
    return False
