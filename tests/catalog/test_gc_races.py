"""A collection among writers, and one that is killed: whatever is committed stays whole, the rest is collected."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tailrace import ArtifactStore, LocalArtifactStore, MemoryArtifactStore
from tailrace.catalog.gc import Collector
from tailrace.catalog.rows import GcReport
from tailrace.stores.listing import store_time

FORK = multiprocessing.get_context("fork")
"""A process started anew could not import this module: where pytest is a program of its own, `tests` is no package."""


def collect(store: ArtifactStore, grace: float) -> GcReport:
    collector = Collector({"default": store}, grace=grace)
    return collector.remove(collector.find())


def settled(store: ArtifactStore) -> GcReport:
    """A collection of all that is garbage now, when nobody writes."""
    newest = max((item.modified for item in store.stored()), default=0.0)
    deadline = time.monotonic() + 10
    while store_time(store) <= newest:
        assert time.monotonic() < deadline
    return collect(store, 0)


# --- against a dictionary ---------------------------------------------------------------------------------------------

_PATHS = st.sampled_from(["a", "a/b", "c", "d"])
_VALUES = st.sampled_from(["one" * 50, "two" * 50, "three" * 50]) | st.lists(st.binary(max_size=3), max_size=3)


def _machine(kind: str, folder: Path) -> Any:
    class Collections(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            place = tempfile.mkdtemp(dir=folder)
            self.stores: list[ArtifactStore] = [
                LocalArtifactStore(place, durable=False, deduplicate=sharing)
                if kind == "local"
                else MemoryArtifactStore(place, deduplicate=sharing)
                for sharing in (False, True)
            ]
            self.model: dict[str, Any] = {}

        @rule(path=_PATHS, value=_VALUES, sharing=st.integers(0, 1))
        def save(self, path: str, value: Any, sharing: int) -> None:
            self.stores[sharing].save(value, path)
            self.model[path] = value

        @rule(value=_VALUES, path=_PATHS, sharing=st.integers(0, 1))
        def leave_content_behind(self, value: Any, path: str, sharing: int) -> None:
            store = self.stores[sharing]
            staged = store.stage(value)
            store.put_tree(staged.directory, f"{path}/content-{staged.digest[-16:]}", staged.files)

        @rule(value=_VALUES)
        def leave_work_behind(self, value: Any) -> None:
            self.stores[0].stage(value)

        @rule(path=_PATHS)
        def delete(self, path: str) -> None:
            self.stores[0].delete(path)
            for found in [key for key in self.model if key == path or key.startswith(f"{path}/")]:
                del self.model[found]

        @rule()
        def collect_what_is_old(self) -> None:
            before = {item.key for item in self.stores[0].stored()}
            assert collect(self.stores[0], 3600).items == ()
            assert {item.key for item in self.stores[0].stored()} == before

        @rule(sharing=st.integers(0, 1))
        def collect_all(self, sharing: int) -> None:
            settled(self.stores[sharing])
            found = list(self.stores[0].stored())
            named = [self.stores[0].manifest(path) for path in self.model]
            contents = [item for item in found if "/content-" in item.key]
            assert len(contents) <= sum(max(len(manifest.files), 1) for manifest in named)
            assert not [item for item in found if ".tmp-" in item.key]
            objects = {item.key.rpartition("/")[2] for item in found if item.key.startswith("_objects/")}
            assert objects <= {entry.digest.rpartition(":")[2] for manifest in named for entry in manifest.files}

        @invariant()
        def all_is_as_it_was_saved(self) -> None:
            for store in self.stores:
                assert store.list_artifacts() == sorted(self.model)
                for path, value in self.model.items():
                    assert store.load(path) == value

    return Collections


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_store_that_is_collected_does_what_a_dictionary_does(kind: str, tmp_path: Path) -> None:
    options = settings(
        max_examples=15, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(_machine(kind, tmp_path), settings=options)


# --- among writers ----------------------------------------------------------------------------------------------------


def _write(folder: str, writer: int, seconds: float, sharing: bool) -> dict[str, str]:
    """Save the same and other content, at paths of one's own and of all, until the time is over."""
    store = LocalArtifactStore(folder, durable=False, deduplicate=sharing)
    chance = random.Random(writer)
    mine = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = f"value {chance.randrange(4)}" * 2000
        store.save(value, f"all/{chance.randrange(5)}")
        path = f"own/{writer}/{chance.randrange(5)}"
        value = f"value {chance.randrange(40)}" * 2000  # so many that some are old before they are saved again
        store.save(value, path)
        mine[path] = value
        if chance.random() < 0.2:
            path = f"own/{writer}/{chance.randrange(5)}"
            store.delete(path)
            mine.pop(path, None)
    return mine


@pytest.mark.parametrize(
    "sharing", [pytest.param(False, id="plain", marks=pytest.mark.slow), pytest.param(True, id="deduplicated")]
)
def test_ten_processes_write_while_it_is_collected_over_and_over(sharing: bool, tmp_path: Path) -> None:
    """The grace period is a second: much more than a save of these takes, and little enough that all the time something
    is removed that is just being saved again."""
    store = LocalArtifactStore(tmp_path, durable=False, deduplicate=sharing)
    removed = 0
    with FORK.Pool(10) as pool:
        pending = [pool.apply_async(_write, (str(tmp_path), writer, 4.0, sharing)) for writer in range(10)]
        while not all(done.ready() for done in pending):
            removed += len(collect(store, 1.0).items)
        saved = [done.get() for done in pending]
    assert removed > 10
    for path in store.list_artifacts():
        store.load(path)
    for mine in saved:
        for path, value in mine.items():
            assert store.load(path) == value
    settled(store)
    assert settled(store).items == ()
    for path in store.list_artifacts():
        store.load(path)


def test_content_that_is_taken_into_use_while_it_is_removed_is_there_afterwards(tmp_path: Path) -> None:
    """One path changes between two contents, so that each is garbage, and is saved again, all the time.

    The grace period is longer than a save takes, on a machine that is busy too.
    """
    folder, store = str(tmp_path), LocalArtifactStore(tmp_path, durable=False)
    with FORK.Pool(2) as pool:
        pending = [pool.apply_async(_flip, (folder, path)) for path in ("a", "b")]
        removed = 0
        while not all(done.ready() for done in pending):
            removed += len(collect(store, 0.25).items)
        for done in pending:
            done.get()
    assert removed > 10


def _flip(folder: str, path: str) -> None:
    """Save and load, now and then after a pause in which the other content becomes old enough."""
    store, chance = LocalArtifactStore(folder, durable=False), random.Random(path)
    deadline = time.monotonic() + 4
    number = 0
    while time.monotonic() < deadline:
        number += 1
        value = f"value {number % 2}" * 100
        store.save(value, path)
        assert store.load(path) == value
        pause = time.monotonic() + chance.uniform(0, 0.4)
        while time.monotonic() < pause:
            os.sched_yield()


# --- killed -----------------------------------------------------------------------------------------------------------

_PROGRAM = """
import sys
from tailrace import LocalArtifactStore
from tailrace.catalog.gc import Collector
from tailrace.catalog.retention import Retention
collector = Collector({"default": LocalArtifactStore(sys.argv[1], durable=False)}, grace=0, rule=Retention(keep_last=1))
found = collector.find()
print("found", len(found), flush=True)
collector.remove(found)
"""


@pytest.mark.parametrize("kill", [*range(3), *(pytest.param(more, marks=pytest.mark.slow) for more in range(3, 60))])
def test_killed_at_any_moment_it_leaves_a_consistent_store_and_the_next_one_finishes(kill: int, tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path, durable=False, deduplicate=True)
    for number in range(300):
        store.save([f"old {number}"] * 20, f"a/{number}")
        store.save([f"new {number % 7}"] * 20, f"a/{number}")
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "found 600\n"
    moment = time.perf_counter() + random.Random(kill).uniform(0, 0.03)
    while time.perf_counter() < moment:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for number in range(300):
        assert store.load(f"a/{number}") == [f"new {number % 7}"] * 20
    settled(store)
    assert settled(store).items == ()
    assert len([item for item in store.stored() if not item.key.endswith("/")]) == 600 + 7
