"""What is special in a bucket: conditions, lost answers, faults, secrets, and how many requests an artifact costs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tailrace import (
    AzureArtifactStore,
    ConfigError,
    IntegrityError,
    InvalidKey,
    MissingExtra,
    StoreError,
    build_artifact_store,
)

from .buckets import CLASSES, server_of
from .faults import Faults, faulty

WRITES = {"s3": "PUT", "gcs": "POST", "azure": "PUT"}
LOOKS = {"s3": "HEAD", "gcs": "GET", "azure": "HEAD"}  # how the writer of an object is asked for


class Bucket:
    """A new bucket of a real server behind the proxy."""

    def __init__(self, kind: str, faults: Faults, name: str) -> None:
        self.kind, self.faults, self.name = kind, faults, name
        self.write = WRITES[kind]

    def open(self, **options: Any) -> Any:
        options = {"bucket_name": self.name, "endpoint_url": self.faults.url, **options}
        return CLASSES[self.kind](**options)

    def asked(self, act: Callable[[], object]) -> list[str]:
        """The methods of the requests that something makes."""
        before = len(self.faults.seen)
        act()
        return [line.partition(" ")[0] for line in self.faults.seen[before:]]


@pytest.fixture(params=CLASSES)
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    server = server_of(request, request.param)
    with faulty(server.url) as faults:
        yield Bucket(request.param, faults, server.bucket())


# --- how many requests ------------------------------------------------------------------------------------------------


def test_a_small_artifact_is_saved_in_two_requests_and_loaded_in_two(bucket: Bucket) -> None:
    store = bucket.open()
    first = bucket.asked(lambda: store.save([1], "first"))
    asks_whether_conditions_hold = [bucket.write, LOOKS[bucket.kind]]
    assert first == [bucket.write, "GET", bucket.write, *asks_whether_conditions_hold]
    assert bucket.asked(lambda: store.save([2], "second")) == [bucket.write] * 2
    assert bucket.asked(lambda: store.load("second")) == ["GET"] * 2
    assert bucket.asked(lambda: store.exists("second")) == ["GET"]
    assert bucket.asked(lambda: store.save([2], "second")) == [bucket.write, bucket.write, LOOKS[bucket.kind], "GET"]


# --- creating ---------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_lost_does_not_make_ones_own_object_somebody_elses(bucket: Bucket) -> None:
    store = bucket.open()
    assert store.create("known", b"")
    bucket.faults.plan[bucket.write] = ["lost"]
    assert store.create("mine", b"mine")
    assert store.read("mine") == b"mine"
    bucket.faults.plan[bucket.write] = ["reset"]
    assert not store.create("mine", b"another's")
    assert not store.create("mine", b"mine")
    assert store.read("mine") == b"mine"


def test_where_conditions_are_refused_what_is_there_still_wins(bucket: Bucket) -> None:
    store = bucket.open()
    bucket.faults.plan[bucket.write] = [501]
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.read("a") == b"1"
    assert bucket.asked(lambda: store.create("b", b"1")) == ["GET", bucket.write, "GET"]
    assert store.load(store.save([1], "saved")) == [1]
    assert store.load(store.save([2], "saved")) == [2]


@pytest.mark.parametrize("bucket", ["s3", "gcs"], indirect=True)  # Azure's requests are signed with their conditions
def test_where_conditions_are_ignored_what_is_there_still_wins(bucket: Bucket) -> None:
    bucket.faults.always[bucket.write] = "ignore"
    for store in (bucket.open(), bucket.open()):
        store.create("a", b"%d" % id(store))
        assert store.read("a") != b"2"
        assert not store.create("a", b"2")
    first = store.read("a")
    assert not bucket.open().create("a", b"3")
    assert store.read("a") == first
    assert store.load(store.save([1], "saved")) == [1]
    assert store.load(store.save([2], "saved")) == [2]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [503, 500, 429, "reset", "lost"])
def test_a_fault_that_passes_is_not_noticed(bucket: Bucket, fault: int | str) -> None:
    store = bucket.open()
    for method in (bucket.write, "GET"):
        bucket.faults.plan[method] = [fault, fault]
    assert store.load(store.save([1, "x"], "a")) == [1, "x"]
    assert not any(bucket.faults.plan.values())
    bucket.faults.plan = {"GET": [fault], "DELETE": [fault]}
    assert store.list_artifacts() == ["a"]
    store.delete("a")
    assert store.list_artifacts() == []


def test_an_answer_that_ends_too_early_is_asked_for_again(bucket: Bucket) -> None:
    store = bucket.open()
    store.save(os.urandom(100_000), "a")
    bucket.faults.plan["GET"] = ["ok", "cut", "cut"]
    assert len(store.load("a")) == 100_000
    assert bucket.faults.plan["GET"] == []


def test_a_large_file_goes_in_parts_and_only_the_failed_ones_again(bucket: Bucket) -> None:
    store, data = bucket.open(), os.urandom(20 << 20)
    faults: dict[str, dict[str, list[int | str]]] = {
        "s3": {"PUT": ["reset"], "POST": ["ok", "lost"]},
        "azure": {"PUT": ["reset", "ok", "ok", "ok", "ok", "lost"]},
    }
    bucket.faults.plan = faults.get(bucket.kind, {})
    asked = bucket.asked(lambda: store.save(data, "a"))
    if bucket.kind in faults:  # GCS takes the parts of a file one after the other, here past the proxy
        lists = {"s3": 0, "azure": 2}[bucket.kind]  # of the parts; that of S3 is no PUT
        assert asked.count("PUT") == 4 + 1 + lists + 2  # the parts, one again, and the manifest, twice at first
    bucket.faults.plan["GET"] = ["ok", "cut"]
    loading = bucket.asked(lambda: store.load("a") == data or pytest.fail("other bytes"))
    assert loading == ["GET"] * (1 + 4 + 1)


def test_writers_of_one_large_content_all_succeed(bucket: Bucket) -> None:
    data = os.urandom(11 << 20)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.save(data, "a"), [bucket.open() for _ in range(4)]))
    assert bucket.open().load("a") == data


def test_the_number_of_tries_is_bounded_by_the_user(bucket: Bucket) -> None:
    bucket.faults.always["GET"] = 503
    store = bucket.open(retries=2)
    with pytest.raises(StoreError, match="tried 3 times"):
        store.read("a")
    assert bucket.faults.count("GET") == 3


@pytest.mark.parametrize("kind", CLASSES)
def test_a_server_that_is_not_there_is_told_by_its_store(kind: str, credentials: None) -> None:
    store = CLASSES[kind](bucket_name="rivers", endpoint_url="http://127.0.0.1:9", retries=1)
    where = f"'{kind}' at {store.root_uri}"
    with pytest.raises(StoreError, match=rf"'a/manifest\.json'.*{where}.*tried 2 times.*endpoint"):
        store.load("a")


def test_a_refusal_fails_at_once_and_says_what_to_check(bucket: Bucket) -> None:
    bucket.faults.always = {"GET": 403, "PUT": 403, "POST": 403}
    store = bucket.open()
    for act in (lambda: store.load("a"), lambda: store.save(1, "a"), store.list_artifacts, store.validate):
        before = len(bucket.faults.seen)
        with pytest.raises(StoreError, match=r"Check the credentials.*read, write, list and delete"):
            act()
        assert len(bucket.faults.seen) == before + 1


def test_a_bucket_that_is_not_there_is_no_absent_artifact(bucket: Bucket) -> None:
    store = bucket.open(bucket_name="no-such-bucket")
    acts: list[Callable[[], object]] = [
        lambda: store.load("a"),
        lambda: store.exists("a"),
        lambda: store.save(1, "a"),
        lambda: store.create("a", b""),
        lambda: store.delete("a"),
        store.list_artifacts,
        store.validate,
    ]
    for act in acts:
        with pytest.raises(StoreError, match="there is no bucket 'no-such-bucket'"):
            act()


# --- what is left on this machine -------------------------------------------------------------------------------------


def test_no_copy_is_left_on_this_machine(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    store = bucket.open(retries=0)
    store.save({"a": [1], "b": b"2"}, "a")
    store.load("a")
    bucket.faults.plan[bucket.write] = [403]
    with pytest.raises(StoreError):
        store.save([2], "b")
    store.replace(next(key for key in store.walk("a/", contents=True) if "content-" in key), b"damaged")
    with pytest.raises(IntegrityError):
        store.load("a")
    assert list(temporary.iterdir()) == []


def test_a_path_that_was_loaded_stays_readable(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "levels.csv").write_text("day,level\n")
    store = bucket.open()
    store.save(tmp_path / "levels.csv", "a")
    assert store.load("a").read_text() == "day,level\n"


def test_a_forged_manifest_takes_no_file_out_of_the_temporary_folder(bucket: Bucket) -> None:
    from tailrace.core.refs import FileEntry

    store = bucket.open()
    for path in ("../out", "/out", "a/../../out", "a\0b", ""):
        with pytest.raises(IntegrityError, match="no path inside an artifact"):
            store.local_tree("a/content-0123456789abcdef", (FileEntry(path, 1, "blake3:0"),))


# --- settings and secrets ---------------------------------------------------------------------------------------------


def test_nothing_is_imported_before_a_bucket_is_used() -> None:
    code = (
        "import sys, tailrace\n"
        "tailrace.S3ArtifactStore(bucket_name='abc'), tailrace.GCSArtifactStore(bucket_name='abc')\n"
        "tailrace.AzureArtifactStore(bucket_name='abc'), tailrace.build_artifact_store('gs://abc/x')\n"
        "print([name for name in ('fsspec', 's3fs', 'gcsfs', 'adlfs', 'aiohttp', 'botocore') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_uri_is_the_store_s_root() -> None:
    roots = {"s3://rivers", "s3://rivers/a/b", "gs://lakes/a%20b", "az://seas/x"}
    assert {build_artifact_store(root).root_uri for root in roots} == roots
    assert build_artifact_store("s3://rivers/a/", region="eu-west-1").to_dict()["region"] == "eu-west-1"


def test_the_rest_of_a_bucket_is_another_place() -> None:
    store = build_artifact_store("s3://rivers/a")
    for elsewhere in ("s3://rivers/ab/x", "s3://river/a/x", "gs://rivers/a/x", "s3://rivers/x"):
        with pytest.raises(InvalidKey, match=elsewhere):
            store.load(elsewhere)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bucket_name": ""}, "bucket name ''"),
        ({"bucket_name": "ab"}, "bucket name 'ab'"),
        ({"bucket_name": "me:hush@rivers"}, "with a user or password"),
        ({"prefix": "a/../b"}, "no plain path"),
        ({"endpoint_url": "rivers.example:9000"}, "no http or https URL"),
        ({"endpoint_url": "https://me:hush@host"}, "holds a secret; credentials come from"),
        ({"endpoint_url": "https://host/?sig=hush"}, "holds a secret"),
        ({"retries": -1}, "retries is -1"),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
@pytest.mark.parametrize("kind", CLASSES)
def test_settings_that_cannot_work_are_refused_without_repeating_a_secret(
    kind: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        CLASSES[kind](**{"bucket_name": "rivers", **options})
    assert "hush" not in str(caught.value)


def test_credentials_are_nowhere(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    secrets = ["hush-hush-key"] if bucket.kind == "s3" else [os.environ["AZURE_STORAGE_ACCOUNT_KEY"]]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-key")
    store = bucket.open(retries=0)
    ref = store.ref(store.save([1], "a", {"k": 1}))
    told = [repr(ref), str(store.to_dict()), repr(store), store.read("a/manifest.json").decode()]
    for fault in (403, 503, "reset"):
        bucket.faults.always["GET"] = fault
        with pytest.raises(StoreError) as caught:
            store.load("a")
        chain: BaseException | None = caught.value
        while chain is not None:
            told.append(repr(chain))
            chain = chain.__cause__
    told.append(caplog.text)
    assert not [text for text in told for secret in secrets if secret in text]


def test_a_missing_driver_says_which_extra_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tailrace\[azure\]'"):
        AzureArtifactStore(bucket_name="seas").load("a")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_key_that_is_too_long_for_a_bucket_is_refused(kind: str, credentials: None) -> None:
    store = CLASSES[kind](bucket_name="rivers", endpoint_url="http://127.0.0.1:9", retries=0)
    with pytest.raises(InvalidKey, match="1024"):
        store.exists("/".join(["x" * 150] * 8))
