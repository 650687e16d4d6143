"""Objects up and down beside plain boto3, on moto's server in its own process; and the local store beside npy files.

The server is a single Python process and bounds both sides: what is left of the ratio is the client's own work, and
whether the requests keep it busy. So the processors' seconds of this process are compared, too.

``python benchmarks/object_stores.py --gigabytes 5`` only passes one file of that size through a server that keeps its
objects on disk, and shows the peak of memory. ``make bench`` does the same with 2 GB. Store and server have copies in
the temporary folder, which needs three times the size.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from measure import PEAK, Bench, Row, alternate, process, row, working_in

sys.path.append(str(Path(__file__).parents[1] / "tests" / "stores"))

__all__ = ["rows"]

_CONCURRENCY = 16
_SMALL = 1000
_LARGE = 150_000_000

_THROUGH = (
    PEAK
    + """
import sys
from pathlib import Path
from tailrace import S3ArtifactStore
url, bucket, size, folder = sys.argv[1].split("|")
store = S3ArtifactStore(bucket_name=bucket, endpoint_url=url, timeout=600)
file = Path(folder, "small")
file.write_bytes(b"x" * 6_000_000)
store.put(file, "warm")
store.get("warm", Path(folder, "back"))
base = peak()
file = Path(folder, "large")
with file.open("wb") as sparse:
    sparse.truncate(int(size))
    sparse.write(b"not only zeros")
ref = store.put(file, "large")
store.get("large", Path(folder, "back"))
assert Path(folder, "back").stat().st_size == ref.size_bytes == int(size)
print((peak() - base) / 1000)
"""
)


def rows(bench: Bench) -> Iterator[Row]:
    """S3 on a local server, then the local disk."""
    missing = [name for name in ("boto3", "moto", "flask", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        yield Row("object stores", note=f"not installed: {', '.join(missing)}")
        return
    with working_in(bench.folder / "object_stores"):
        yield from _s3(bench, 2)
        yield from _local()


# --- S3 ---------------------------------------------------------------------------------------------------------------


def _s3(bench: Bench, gigabytes: float) -> Iterator[Row]:
    from servers import ENVIRONMENT, moto

    os.environ.update(ENVIRONMENT)
    with moto() as server:
        store, plain = _Ours(server.url, server.bucket()), _Plain(server.url, server.bucket())
        for name, subject, floor in (
            ("1,000 files of 1 KB up", store.put_tree, plain.put_many),
            ("1,000 files of 1 KB down", store.get_tree, plain.get_many),
            ("1,000 artifacts of 1 KB saved", store.save_many, partial(plain.put_many, 2)),
            ("1,000 artifacts of 1 KB loaded", store.load_many, partial(plain.get_many, 2)),
        ):
            values, floors = alternate(2, subject, floor, warm_up=0)  # the server takes 5 ms a request
            yield from _compared(f"S3: {name}", values, floors, "boto3, as many requests")
        for name, subject, floor in (
            ("150 MB up", store.put_large, plain.put_large),
            ("150 MB down", store.get_large, plain.get_large),
        ):
            values, floors = alternate(3, subject, floor)
            yield from _compared(f"S3: {name}", values, floors, "boto3, as large parts")
    yield from _requests()
    yield from _through(bench, gigabytes)


def _compared(name: str, values: list[Any], floors: list[Any], floor: str) -> Iterator[Row]:
    yield row(name, values, "s", floors, floor, most_ratio=1.2)
    yield row(f"{name}, processors", [value.cpu for value in values], "s", [value.cpu for value in floors], floor)


def _requests() -> Iterator[Row]:
    """Counted at a proxy, after the store has been used once."""
    from fault_proxy import FaultProxy
    from servers import moto

    from tailrace import S3ArtifactStore

    with moto() as server, FaultProxy(server.url) as proxy:
        store = S3ArtifactStore(bucket_name=server.bucket(), endpoint_url=proxy.url)
        store.save(0, "first")
        for name, act in (
            ("save", lambda: store.save({"a": 1}, "a")),
            ("save the same again", lambda: store.save({"a": 1}, "a")),
            ("load", lambda: store.load("a")),
        ):
            proxy.clear()
            act()
            yield row(f"S3: {name} a small artifact", [len(proxy.requests)], "requests")


def _through(bench: Bench, gigabytes: float) -> Iterator[Row]:
    from disk_server import disk_server

    from tailrace.stores.object_store import PART

    size = int(gigabytes * 1e9)
    with (
        tempfile.TemporaryDirectory(dir=bench.folder) as served,
        tempfile.TemporaryDirectory(dir=bench.folder) as own,
        disk_server(Path(served), PART) as url,
    ):
        seconds, out = process(bench.python, _THROUGH, bench.folder, given=f"{url}|bucket|{size}|{own}")
    print(f"{gigabytes:g} GB up and down in {seconds:.0f} s", file=sys.stderr)
    yield row(f"S3: {gigabytes:g} GB file up and down, peak over base", [float(out)], "MB", most=200)


class _Seconds(float):
    """Seconds that something took, and those of the processors in this process."""

    cpu: float


def _timed(work: Callable[[], Any]) -> _Seconds:
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    seconds = _Seconds(time.perf_counter() - begin)
    seconds.cpu = time.process_time() - cpu
    return seconds


class _Ours:
    """A store, with what goes into it."""

    def __init__(self, url: str, bucket: str) -> None:
        from tailrace import S3ArtifactStore

        self.store = S3ArtifactStore(bucket_name=bucket, endpoint_url=url, concurrency=_CONCURRENCY)
        self.turns = itertools.count()
        self.last = ""
        self.pool = ThreadPoolExecutor(_CONCURRENCY)
        Path("tree").mkdir()
        for number in range(_SMALL):
            Path("tree", f"{number:04d}").write_bytes(os.urandom(1000))
        Path("large").write_bytes(os.urandom(_LARGE))

    def _new(self) -> str:
        self.last = f"turn-{next(self.turns)}"
        return self.last

    def put_tree(self) -> float:
        return _timed(lambda: self.store.put("tree", self._new()))

    def get_tree(self) -> float:
        shutil.rmtree("back", ignore_errors=True)
        return _timed(lambda: self.store.get(self.last, "back"))

    def save_many(self) -> float:
        key, value = self._new(), "x" * 1000
        return _timed(lambda: list(self.pool.map(lambda n: self.store.save(value, f"{key}/{n}"), range(_SMALL))))

    def load_many(self) -> float:
        return _timed(lambda: list(self.pool.map(lambda n: self.store.load(f"{self.last}/{n}"), range(_SMALL))))

    def put_large(self) -> float:
        return _timed(lambda: self.store.put("large", self._new()))

    def get_large(self) -> float:
        return _timed(lambda: self.store.get(self.last, "back-large"))


class _Plain:
    """The same by boto3: a client, threads, and no digests, names, manifests or verification."""

    def __init__(self, url: str, bucket: str) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        from tailrace.stores.object_store import PART

        self.client = boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=_CONCURRENCY))
        self.bucket = bucket
        self.pool = ThreadPoolExecutor(_CONCURRENCY)
        self.config = TransferConfig(
            multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=_CONCURRENCY, use_threads=True
        )

    def put_many(self, each: int = 1) -> float:
        data = os.urandom(1000)

        def put(number: int) -> None:
            for part in range(each):
                self.client.put_object(Bucket=self.bucket, Key=f"many/{number}/{part}", Body=data)

        return _timed(lambda: list(self.pool.map(put, range(_SMALL))))

    def get_many(self, each: int = 1) -> float:
        folder = Path(tempfile.mkdtemp(dir="."))

        def get(number: int) -> None:
            for part in range(each):
                found = self.client.get_object(Bucket=self.bucket, Key=f"many/{number}/{part}")
                (folder / f"{number}-{part}").write_bytes(found["Body"].read())

        seconds = _timed(lambda: list(self.pool.map(get, range(_SMALL))))
        shutil.rmtree(folder)
        return seconds

    def put_large(self) -> float:
        return _timed(lambda: self.client.upload_file("large", self.bucket, "large", Config=self.config))

    def get_large(self) -> float:
        return _timed(lambda: self.client.download_file(self.bucket, "large", "plain-large", Config=self.config))


# --- the local disk ---------------------------------------------------------------------------------------------------


def _local() -> Iterator[Row]:
    """An array saved with its digest, and loaded verified."""
    import numpy as np

    from tailrace import LocalArtifactStore

    for size, rounds in ((200, 5), (1000, 3)):
        value = np.random.default_rng(0).standard_normal(size * 125_000)
        for durable, floor in ((False, "np.save"), (True, "np.save, flushed")):
            store = LocalArtifactStore("local", durable=durable)
            values, floors = alternate(rounds, partial(_saved, store, value), partial(_npy, value, durable))
            what = f"local: {size} MB array saved" + (", durable" if durable else "")
            yield row(what, values, "s", floors, floor, most_ratio=1.2)
        values, floors = alternate(rounds, partial(_loaded, store, value), partial(_npy_loaded, value))
        yield row(f"local: {size} MB array loaded, verified", values, "s", floors, "np.load")
        shutil.rmtree("local")
        Path("bare.npy").unlink()


def _saved(store: Any, value: Any) -> float:
    shutil.rmtree("local", ignore_errors=True)
    return _timed(lambda: store.save(value, "a"))


def _npy(value: Any, durable: bool) -> float:
    import numpy as np

    Path("bare.npy").unlink(missing_ok=True)

    def work() -> None:
        with Path("bare.npy").open("wb") as file:
            np.save(file, value)
            if durable:
                file.flush()
                os.fsync(file.fileno())

    return _timed(work)


def _loaded(store: Any, value: Any) -> float:
    return _timed(lambda: store.load("a"))


def _npy_loaded(value: Any) -> float:
    import numpy as np

    return _timed(lambda: np.load("bare.npy"))


def main() -> None:
    """Only the file that passes through, of any size."""
    parser = argparse.ArgumentParser(description="One large file up to S3 and down again: the peak of memory.")
    parser.add_argument("--gigabytes", type=float, default=5.0)
    asked = parser.parse_args()
    from servers import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as folder:
        for found in _through(Bench(Path(folder), sys.executable), asked.gigabytes):
            print(f"{found.name}: {found.value:.0f} MB, budget {found.budget}")


if __name__ == "__main__":
    main()
