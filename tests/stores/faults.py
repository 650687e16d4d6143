"""A proxy between a client and a server that does, to the requests it is told of, what networks and servers do."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Faults", "faulty"]

_CODES = {403: "AccessDenied", 429: "SlowDown", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown"}


@dataclass
class Faults:
    """``plan`` maps a method to what happens to its next requests, in turn; ``seen`` is what was asked.

    A number is a status that the server never gave; ``reset`` breaks the connection before the server is asked,
    ``lost`` after it has done what was asked, ``cut`` in the middle of its answer; ``ignore`` takes the conditions
    off; ``ok`` does nothing.
    """

    url: str = ""
    plan: dict[str, list[int | str]] = field(default_factory=dict)
    always: dict[str, int | str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, path: str) -> int | str:
        with self.lock:
            self.seen.append(f"{method} {path}")
            planned = self.plan.get(method)
            return planned.pop(0) if planned else self.always.get(method, "ok")

    def count(self, method: str) -> int:
        return sum(line.startswith(f"{method} ") for line in self.seen)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults
    target: str

    def log_message(self, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _relay(self) -> None:
        body, act = self._body(), self.faults.next(self.command, self.path)
        if act == "reset":
            return self._reset()
        if isinstance(act, int):
            return self._answer(act, [], f"<Error><Code>{_CODES[act]}</Code><Message>No.</Message></Error>".encode())
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        path = self.path
        if act == "ignore":
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
            path = path.replace("&ifGenerationMatch=0", "")
        connection = http.client.HTTPConnection(self.target, timeout=60)
        connection.request(self.command, path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if act == "lost":
            return self._reset()
        ours = _OURS - {"content-length"} if self.command == "HEAD" else _OURS  # it is that of what a GET would give
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in ours]
        return self._answer(answer.status, kept, data, cut=act == "cut")

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._reset()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _relay


_OURS = {"content-length", "transfer-encoding", "connection", "date", "server"}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        pass  # a client that has gone away


@contextmanager
def faulty(url: str) -> Iterator[Faults]:
    """A proxy to the server at ``url``; its own address is ``.url``."""
    faults, parts = Faults(), urlsplit(url)
    handler = type("Handler", (_Handler,), {"faults": faults, "target": parts.netloc})
    with _Server(("127.0.0.1", 0), handler) as server:
        faults.url = f"http://127.0.0.1:{server.server_address[1]}{parts.path}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield faults
        finally:
            server.shutdown()
            thread.join()
