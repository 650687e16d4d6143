"""Writers to a bucket that are killed: what they were told is committed is whole, and the rest is collected."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from tailrace import ArtifactStore
from tailrace.catalog.gc import Collector
from tailrace.core.names import MANIFEST
from tailrace.stores.listing import store_time
from tailrace.stores.verify import verify

from .buckets import CLASSES, new_bucket

WRITER = """
import itertools, sys
from tailrace import build_artifact_store

root, url, name = sys.argv[1:]
store = build_artifact_store(root, endpoint_url=url)
for number in itertools.count():
    in_parts = 6_000_000 * (number % 3 == 1)
    value = {"number": number, "fill": [number] * 2000, "more": bytes([number % 256]) * (1000 + in_parts)}
    store.save(value, "shared")
    store.save(value, f"own/{name}/{number}")
    print(number, flush=True)
"""


def killed(store: ArtifactStore, url: str, turn: int, chance: random.Random) -> list[str]:
    """Three writers at once, each killed some time after its first artifact; the paths that they had committed."""
    command = [sys.executable, "-c", WRITER, store.root_uri, url]
    writers = [
        subprocess.Popen([*command, f"{turn}-{number}"], stdout=subprocess.PIPE, text=True) for number in range(3)
    ]
    told = []
    for number, writer in enumerate(writers):
        assert writer.stdout is not None
        with writer.stdout as said:
            lines = [said.readline()]
            time.sleep(chance.uniform(0, 0.3))
            writer.kill()
            lines += said.readlines()
        assert writer.wait() == -9, "it was killed, and had not failed"
        told += [f"own/{turn}-{number}/{line.strip()}" for line in lines]
    return told


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("turns", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_what_killed_processes_had_committed_is_whole_and_the_rest_is_collected(
    kind: str, turns: int, request: pytest.FixtureRequest
) -> None:
    store = new_bucket(request, kind)()
    chance = random.Random(turns)
    told = [path for turn in range(turns) for path in killed(store, store.endpoint_url, turn, chance)]
    paths = store.list_artifacts()
    assert {"shared", *told} <= set(paths)
    newest = max(item.modified for item in store.stored())
    deadline = time.monotonic() + 10
    while store_time(store) <= newest:
        assert time.monotonic() < deadline
    collector = Collector({"default": store}, grace=0)
    collector.remove(collector.find())
    assert store.list_artifacts() == paths, "no artifact is garbage"
    named = set()
    for path in paths:
        assert verify(store, path).damage == ()
        value, manifest = store.load(path), store.manifest(path)
        assert value["fill"] == [value["number"]] * 2000
        named |= {f"{path}/{MANIFEST}", *(f"{path}/{manifest.content}/{entry.path}" for entry in manifest.files)}
    assert set(store.walk(contents=True)) == named
