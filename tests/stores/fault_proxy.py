"""A proxy between a client of HTTP and its server, which does to chosen requests what networks do.

    with FaultProxy(server.url) as proxy:
        store = S3ArtifactStore(bucket_name=bucket, endpoint_url=proxy.url)
        proxy.fault("busy", times=2, matching="PUT ")
        store.save(value, "a")
        assert proxy.hits == 2

Each connection carries one request, so that a fault is met by requests and not by connections that were kept.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

__all__ = ["Fault", "FaultProxy", "Kind"]

T = TypeVar("T")

Kind = Literal["busy", "broken", "denied", "reset", "cut upload", "cut download", "lost answer", "black hole", "slow"]
"""What happens to a request.

    busy, broken,   answered with 503 SlowDown, 500 or 403, without asking the server
    denied
    reset           the connection is reset before the request is read
    cut upload      reset after so many bytes of the request's body, of which the server gets as many
    cut download    the server does it; reset after so many bytes of the answer's body
    lost answer     the server does it; reset before the answer
    black hole      read, and never answered
    slow            answered by the server, so many seconds later
"""

_ERRORS = {
    "busy": ("503 Slow Down", "SlowDown"),
    "broken": ("500 Internal Server Error", "InternalError"),
    "denied": ("403 Forbidden", "AccessDenied"),
}
_HEAD_END = b"\r\n\r\n"


@dataclass
class Fault:
    """What is done to the requests whose head has ``matching`` in it, in any case: ``times`` of them, or all (None)."""

    kind: Kind
    times: int | None = None
    matching: str = ""
    bytes: int = 0
    seconds: float = 0.0


class FaultProxy:
    """Listens on a free loopback port from the beginning of the block to its end, in a thread of its own."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._fault: Fault | None = None
        self.hits = 0
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self._address = self._listener.sockets[0].getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}{self._path}"
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def fault(
        self, kind: Kind, *, times: int | None = None, matching: str = "", bytes: int = 0, seconds: float = 0.0
    ) -> None:
        """From now on do this, in the place of what was done before; ``hits`` and ``requests`` begin anew."""
        self._fault = Fault(kind, times, matching, bytes, seconds)
        self.hits = 0
        self.requests.clear()

    def clear(self) -> None:
        """From now on do nothing to any request."""
        self._fault = None
        self.requests.clear()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _stop(self) -> None:
        self._listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _take(self, head: str) -> Fault | None:
        fault = self._fault
        if fault is None or fault.matching.lower() not in head.lower() or self.hits == fault.times:
            return None
        self.hits += 1
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._handle(reader, writer)
        finally:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = await reader.readuntil(_HEAD_END)
        head = raw.decode("latin-1")
        self.requests.append(head.partition("\r\n")[0])
        fault = self._take(head)
        kind = fault.kind if fault else None
        if kind == "reset":
            return _reset(writer)
        headers = _headers(head)
        if "100-continue" in headers.get("expect", "").lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault and kind == "cut upload":
            part = await _body(reader, headers, most=fault.bytes)
            return await self._cut_upload(_forwarded(head) + part, writer)
        body = await _body(reader, headers)
        if kind in _ERRORS:
            return await _answer(writer, _error(*_ERRORS[kind]))
        if kind == "black hole":
            await reader.read()  # until the client has had enough
            return None
        if fault and kind == "slow":
            await asyncio.sleep(fault.seconds)
        answer = self._named(await self._ask(_forwarded(head) + body))
        if kind == "lost answer":
            return _reset(writer)
        if fault and kind == "cut download":
            await _answer(writer, answer[: answer.index(_HEAD_END) + len(_HEAD_END) + fault.bytes])
            return _reset(writer)
        return await _answer(writer, answer)

    def _named(self, answer: bytes) -> bytes:
        """The answer with this proxy's name for the server's: where an upload goes on is said by the server."""
        head, end, body = answer.partition(_HEAD_END)
        theirs, ours = (f"http://{host}:{port}".encode() for host, port in (self._server, self._address))
        return head.replace(theirs, ours) + end + body

    async def _cut_upload(self, sent: bytes, writer: asyncio.StreamWriter) -> None:
        _, upstream = await asyncio.open_connection(*self._server)
        await _answer(upstream, sent)
        _reset(upstream)
        _reset(writer)

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            await _answer(writer, request)
            return await reader.read()
        finally:
            writer.close()


def _headers(head: str) -> Mapping[str, str]:
    lines = (line.partition(":") for line in head.split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _forwarded(head: str) -> bytes:
    """The head with which the server is asked: it closes the connection, and so says where its answer ends."""
    lines = [line for line in head.split("\r\n") if not line.lower().startswith(("connection:", "expect:"))]
    return "\r\n".join([lines[0], "Connection: close", *lines[1:]]).encode("latin-1")


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str], most: int | None = None) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader, most)
    size = int(headers.get("content-length", 0))
    return await reader.readexactly(size if most is None else min(most, size))


async def _chunks(reader: asyncio.StreamReader, most: int | None) -> bytes:
    """A chunked body as it was sent, with what says how long the chunks are."""
    body = b""
    while most is None or len(body) < most:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        body += line + (await reader.readexactly(size) if size else b"")
        body += await reader.readuntil(b"\r\n")
        if not size:
            return body
    return body[:most]


def _error(status: str, code: str) -> bytes:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\nConnection: close"
    return f"{head}\r\n\r\n{text}".encode()


async def _answer(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, not with FIN, which is what a crash or a firewall does."""
    plain = writer.get_extra_info("socket")
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
