"""A little S3 server that keeps each object in a file: what passes through may be large. Only what a store asks for.

moto reads the whole object for each part of it that is asked for: of 5 GB that is a terabyte for every gigabyte.
"""

from __future__ import annotations

import http.server
import itertools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

__all__ = ["disk_server"]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    part: int
    uploads = itertools.count()

    def _answer(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"none"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _asked(self) -> tuple[Path, dict[str, str]]:
        """The file of the object, or of an upload that is under way, and the query."""
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return self.folder / asked.get("uploadId", quote(unquote(parts.path), safe="")), asked

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        file, asked = self._asked()
        if self.headers.get("If-None-Match") and file.exists():
            self._answer(412)
            return
        fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, body, (int(asked.get("partNumber", 1)) - 1) * self.part)
        os.close(fd)
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        file, asked = self._asked()
        if "uploads" in asked:
            name = f"upload-{next(self.uploads)}"
            text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, text.encode())
            return
        file.rename(self.folder / quote(unquote(urlsplit(self.path).path), safe=""))
        self._answer(200, b"<CompleteMultipartUploadResult/>")

    def do_GET(self) -> None:
        file, _ = self._asked()
        if not file.exists():
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        size = file.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
        with file.open("rb") as data:
            data.seek(start)
            self._answer(206 if wanted else 200, data.read(stop - start))

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def disk_server(folder: Path, part: int) -> Iterator[str]:
    """The URL of a server for the block; its files are in the folder. Parts of uploads have this size in bytes."""
    handler = type("Handler", (_Handler,), {"folder": folder, "part": part})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
