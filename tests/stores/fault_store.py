"""A small S3 server that is as bad as real ones are: it ignores or refuses conditions, and its lists are late.

    with bad_store(conditions="ignored") as server:
        store = S3ArtifactStore(bucket_name=server.bucket(), endpoint_url=server.url)

``conditions``: ``honoured``, ``ignored`` (what is there is written over, as rclone and s3rver do) or ``refused`` (501,
as Swift does). ``late``: so many listings of a bucket are as it was before. Objects are in memory. What it knows of the
protocol is what the store asks for: whole and multipart uploads, ranges, HEAD, DELETE, listings in pages.
"""

from __future__ import annotations

import hashlib
import http.server
import itertools
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from .servers import Server

__all__ = ["Conditions", "bad_store"]

Conditions = Literal["honoured", "ignored", "refused"]

_PAGE = 1000


@dataclass(frozen=True)
class _Object:
    data: bytes
    metadata: Mapping[str, str]
    modified: str = field(default_factory=lambda: formatdate(usegmt=True))

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


@dataclass
class _Objects:
    """What the server holds, and how it behaves."""

    conditions: Conditions
    late: int
    buckets: dict[str, dict[str, _Object]] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    seen: dict[str, list[dict[str, _Object]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def listed(self, bucket: str) -> dict[str, _Object]:
        """The bucket as it was so many listings ago."""
        history = self.seen.setdefault(bucket, [{}] * self.late)
        history.append(dict(self.buckets[bucket]))
        return history[-1 - self.late]


class _Refused(Exception):
    """An error's status and code."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: _Objects

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path[1:]).partition("/")
        asked = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            with self.objects.lock:
                self._answer(*self._done(bucket, key, asked, body))
        except _Refused as error:
            status, code = error.args
            self._answer(status, {}, f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode())

    def _done(self, bucket: str, key: str, asked: dict[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if self.command == "PUT" and not key:
            self.objects.buckets[bucket] = {}
            return 200, {}, b""
        if bucket not in self.objects.buckets:
            raise _Refused(404, "NoSuchBucket")
        held = self.objects.buckets[bucket]
        if "uploadId" in asked or "uploads" in asked:
            return self._multipart(held, key, asked, body)
        if self.command == "PUT":
            return self._put(held, key, body)
        if self.command == "DELETE":
            held.pop(key, None)
            return 204, {}, b""
        if not key:
            return self._list(bucket, asked)
        return self._get(held, key)

    def _put(self, held: dict[str, _Object], key: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if self.headers.get("If-None-Match"):
            if self.objects.conditions == "refused":
                raise _Refused(501, "NotImplemented")
            if self.objects.conditions == "honoured" and key in held:
                raise _Refused(412, "PreconditionFailed")
        metadata = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
        held[key] = _Object(body, metadata)
        return 200, {"ETag": held[key].etag}, b""

    def _get(self, held: dict[str, _Object], key: str) -> tuple[int, Mapping[str, str], bytes]:
        if key not in held:
            raise _Refused(404, "NoSuchKey")
        found = held[key]
        headers = {**found.metadata, "ETag": found.etag, "Last-Modified": found.modified}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return 200, headers, found.data
        start, stop = int(wanted[1]), int(wanted[2]) + 1
        if start >= len(found.data):
            raise _Refused(416, "InvalidRange")
        data = found.data[start:stop]
        return 206, {**headers, "Content-Range": f"bytes {start}-{start + len(data) - 1}/{len(found.data)}"}, data

    def _multipart(
        self, held: dict[str, _Object], key: str, asked: dict[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        uploads = self.objects.uploads
        if "uploads" in asked:
            name = f"upload-{next(self.objects.numbers)}"
            uploads[name] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            return 200, {}, text.encode()
        if asked["uploadId"] not in uploads:
            raise _Refused(404, "NoSuchUpload")
        if self.command == "PUT":
            uploads[asked["uploadId"]][int(asked["partNumber"])] = body
            return 200, {"ETag": _Object(body, {}).etag}, b""
        parts = uploads.pop(asked["uploadId"])
        if self.command == "DELETE":
            return 204, {}, b""
        held[key] = _Object(b"".join(parts[number] for number in sorted(parts)), {})
        return 200, {}, b"<CompleteMultipartUploadResult/>"

    def _list(self, bucket: str, asked: dict[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        token = asked.get("continuation-token", "")
        held = self.objects.listed(bucket) if not token else self.objects.seen[bucket][-1 - self.objects.late]
        keys = sorted(key for key in held if key.startswith(asked.get("prefix", "")) and key > token)
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(held[key].data)}</Size><ETag>{held[key].etag}</ETag>"
            "<LastModified>2026-03-01T12:00:00.000Z</LastModified></Contents>"
            for key in keys[:_PAGE]
        )
        more = len(keys) > _PAGE
        rest = f"<NextContinuationToken>{escape(keys[_PAGE - 1])}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{rest}{items}</ListBucketResult>"
        return 200, {"Content-Type": "application/xml"}, text.encode()

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        pass  # a client that has gone away


@contextmanager
def bad_store(conditions: Conditions = "honoured", *, late: int = 0) -> Iterator[Server]:
    """A server for the block, on a free loopback port."""
    objects = _Objects(conditions, late)
    handler = type("Handler", (_Handler,), {"objects": objects})
    names = (f"bucket-{number}" for number in itertools.count())

    def bucket() -> str:
        name = next(names)
        objects.buckets[name] = {}
        return name

    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_address[1]}", bucket)
        finally:
            server.shutdown()
            thread.join()
