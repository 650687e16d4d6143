"""What networks do to a bucket, some times each: transient faults pass unseen, others fail at once and say why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tailrace import StoreError

from .buckets import CLASSES, server_of
from .fault_proxy import FaultProxy, Kind

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
SMALL = {"number": 1, "text": "t" * 1000}
LARGE = bytes(range(256)) * 16_000  # four megabytes
IN_PARTS = bytes(range(256)) * 45_000  # eleven, more than goes in one request

pytestmark = pytest.mark.parametrize("turn", range(ROUNDS))

Opened = Callable[..., Any]


@dataclass(frozen=True)
class Wire:
    """What is in the heads of requests that write, create, send the second part of a file, and read one.

    And what is said of where the credentials come from.
    """

    write: str
    create: str
    second: str
    content: str
    credentials: str


WIRES = {
    "s3": Wire("PUT ", "If-None-Match: *", "partNumber=2", "/content-", "AWS_PROFILE"),
    "gcs": Wire("POST ", "ifGenerationMatch=0", "Content-Range: bytes 5242880-", "%2Fcontent-", "gcloud"),
    "azure": Wire("PUT ", "If-None-Match: *", "comp=block&", "/content-", "AZURE_STORAGE"),
}


@pytest.fixture(params=WIRES)
def kind_of_bucket(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wire(kind_of_bucket: str) -> Wire:
    return WIRES[kind_of_bucket]


@pytest.fixture
def proxy(request: pytest.FixtureRequest, kind_of_bucket: str) -> Iterator[FaultProxy]:
    with FaultProxy(server_of(request, kind_of_bucket).url) as proxy:
        yield proxy


@pytest.fixture
def opened(request: pytest.FixtureRequest, kind_of_bucket: str, proxy: FaultProxy) -> Opened:
    """Opens a store behind the proxy, at one place, which has answered before anything happens to it."""
    bucket = server_of(request, kind_of_bucket).bucket()

    def opened(**options: Any) -> Any:
        store = CLASSES[kind_of_bucket](bucket_name=bucket, endpoint_url=proxy.url, **options)
        store.create("first", b"")
        return store

    return opened


@pytest.mark.parametrize("kind", ["busy", "broken", "reset", "lost answer"])
@pytest.mark.parametrize("asked", ["write", "read", "anything"])
def test_what_fails_twice_is_tried_again(
    kind: Kind, asked: str, turn: int, wire: Wire, proxy: FaultProxy, opened: Opened
) -> None:
    store = opened()
    proxy.fault(kind, times=2, matching={"write": wire.write, "read": "GET ", "anything": ""}[asked])
    store.save(SMALL, "a", {"m": 1})
    assert (store.load("a"), store.get_metadata("a")) == (SMALL, {"m": 1})
    assert store.list_artifacts() == ["a"]
    assert proxy.hits == 2


def test_what_fails_for_ever_ends_within_the_bound_and_leaves_the_old_version(
    turn: int, proxy: FaultProxy, opened: Opened
) -> None:
    store = opened(retries=2)
    store.save("old", "a")
    proxy.fault("busy")
    with pytest.raises(StoreError, match=r"(?s)503|SlowDown.*3 times"):
        store.save("new", "a")
    assert proxy.hits % 3 == 0, "each request was tried three times"
    proxy.clear()
    assert store.load("a") == "old"
    store.save("new", "a")
    assert opened().load("a") == "new"


def test_what_is_denied_fails_at_once_and_says_what_to_check(
    turn: int, wire: Wire, proxy: FaultProxy, opened: Opened
) -> None:
    store = opened()
    store.save("old", "a")
    for act in (lambda: store.read("first"), lambda: store.create("b", b""), lambda: list(store.walk())):
        proxy.fault("denied")
        with pytest.raises(StoreError, match=f"(?s)Check the credentials.*{wire.credentials}"):
            act()
        assert proxy.hits == 1
    proxy.clear()
    assert store.load("a") == "old"


@pytest.mark.parametrize("value", [LARGE, IN_PARTS], ids=["whole", "in parts"])
def test_an_upload_that_is_cut_is_made_again(
    value: bytes, turn: int, wire: Wire, proxy: FaultProxy, opened: Opened
) -> None:
    store = opened()
    matching = wire.second if value is IN_PARTS else wire.write
    proxy.fault("cut upload", times=2, matching=matching, bytes=1_000_000)
    store.save(value, "a")
    assert proxy.hits == 2
    proxy.clear()
    assert opened().load("a") == value


@pytest.mark.parametrize("value", [LARGE, IN_PARTS], ids=["whole", "in parts"])
def test_a_download_that_is_cut_is_made_again(
    value: bytes, turn: int, wire: Wire, proxy: FaultProxy, opened: Opened
) -> None:
    store = opened()
    store.save(value, "a")
    proxy.fault("cut download", times=2, matching=wire.content, bytes=100_000)
    assert store.load("a") == value
    assert proxy.hits == 2


def test_an_answer_that_never_comes_is_asked_for_again(turn: int, proxy: FaultProxy, opened: Opened) -> None:
    store = opened(timeout=1)
    proxy.fault("black hole", times=1)
    begin = time.monotonic()
    store.save(SMALL, "a")
    assert store.load("a") == SMALL
    assert proxy.hits == 1
    assert time.monotonic() - begin >= 1


def test_slow_answers_are_waited_for_and_nothing_is_asked_twice(turn: int, proxy: FaultProxy, opened: Opened) -> None:
    store = opened()
    proxy.clear()
    store.save(SMALL, "a")
    usual = len(proxy.requests)
    proxy.fault("slow", seconds=0.2)
    store.save(SMALL, "b")
    assert proxy.hits == len(proxy.requests) == usual >= 2
    assert store.load("b") == SMALL


def test_one_s_own_object_is_known_after_the_answer_to_its_creation_was_lost(
    turn: int, wire: Wire, proxy: FaultProxy, opened: Opened
) -> None:
    store = opened()
    proxy.fault("lost answer", times=1, matching=wire.create)
    assert store.create("claim", b"mine") is True
    assert proxy.hits == 1
    assert opened().create("claim", b"another's") is False
    assert store.read("claim") == b"mine"


def test_an_object_of_another_is_not_taken_for_one_s_own_after_a_lost_answer(
    turn: int, wire: Wire, proxy: FaultProxy, opened: Opened
) -> None:
    store, other = opened(), opened()
    assert other.create("claim", b"another's") is True
    proxy.fault("lost answer", times=1, matching=wire.create)
    assert store.create("claim", b"mine") is False
    assert proxy.hits == 1
    assert store.read("claim") == b"another's"
