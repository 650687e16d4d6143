"""Processes that are killed while they write: what was committed is whole, and the rest is garbage in known places.

A program forks ten writers to one local store, kills one of them with SIGKILL after a random time, forks another, and
so on; at the end it kills them all. ``-m slow`` kills two hundred.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tailrace import ArtifactRef, LocalArtifactStore
from tailrace.core.names import MANIFEST, is_content_segment
from tailrace.stores.verify import verify

WRITERS = """
import itertools, os, random, signal, sys, time
from pathlib import Path
from tailrace import LocalArtifactStore

root, logs, kills, options = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[5])
chance = random.Random(sys.argv[4])

def value(key, number):
    return {"key": key, "number": number, "fill": [number % 7] * (number % 900), "more": bytes([number % 256]) * 5000}

def write(name, log):
    store = LocalArtifactStore(root, **options)
    tree = root.parent / f"tree-{name}"
    tree.mkdir()
    for number in itertools.count():
        kind = number % 4
        if kind == 0:    # its own, once
            key = f"own/{name}/{number}"
            store.save(value(key, number), key, {"n": number})
        elif kind == 1:  # one that all write over
            key = f"shared/{number % 5}"
            store.save(value(key, number), key)
        elif kind == 2:  # the same by all
            key = f"same/{number % 3}"
            store.save(value(key, number % 3), key)
        else:            # a folder
            key = f"tree/{name}"
            for file in ("a", "b/c"):
                (tree / file).parent.mkdir(exist_ok=True)
                (tree / file).write_text(f"{number}")
            store.put(tree, key)
        os.write(log, f"{key} {number} {store.ref(key).digest if kind == 0 else ''}\\n".encode())

def start(name):
    log = os.open(logs / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    child = os.fork()
    if not child:
        try:
            write(name, log)
        except BaseException:
            import traceback
            (logs / f"{name}.error").write_text(traceback.format_exc())
        finally:
            os._exit(1)
    os.close(log)
    return child

names = (f"w{number}" for number in itertools.count())
alive = [start(next(names)) for _ in range(10)]
time.sleep(0.5)
for _ in range(kills):
    time.sleep(chance.uniform(0, 0.03))
    place = chance.randrange(10)
    os.kill(alive[place], signal.SIGKILL)
    os.waitpid(alive[place], 0)
    alive[place] = start(next(names))
time.sleep(0.1)
for child in alive:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("kills", "options"),
    [
        (10, {}),
        (10, {"deduplicate": True}),
        pytest.param(200, {}, marks=pytest.mark.slow),
        pytest.param(200, {"deduplicate": True}, marks=pytest.mark.slow),
        pytest.param(200, {"durable": False}, marks=pytest.mark.slow),
    ],
)
def test_what_killed_processes_had_committed_is_whole_and_the_rest_is_garbage(
    kills: int, options: dict[str, Any], tmp_path: Path
) -> None:
    root, logs = tmp_path / "store", tmp_path / "logs"
    logs.mkdir()
    arguments = [str(root), str(logs), str(kills), os.environ.get("CRASH_SEED", "1"), repr(options)]
    subprocess.run([sys.executable, "-c", WRITERS, *arguments], check=True, timeout=300)
    assert [error.read_text() for error in logs.glob("*.error")] == [], "no writer failed by itself"

    store = LocalArtifactStore(root, **options)
    paths = store.list_artifacts()
    for path in paths:
        assert verify(store, path).damage == (), path
        check(store.load(path), path)
    told = [line.split(" ") for log in logs.iterdir() for line in log.read_text().splitlines()]
    assert len(told) > kills
    for key, _, digest in told:
        assert key in paths, "what a writer was told is committed, is"
        assert not digest or store.manifest(key).digest == digest
    assert stray(store, paths) == []
    for path in paths:
        store.save({"key": path, "new": 1}, path)
        assert store.load(path) == {"key": path, "new": 1}, "what was left behind is in nobody's way"


def check(value: Any, path: str) -> None:
    """It is one of the values that were written there, and of one writing."""
    if path.startswith("tree/"):
        assert (value / "a").read_text() == (value / "b" / "c").read_text()
        return
    number = value["number"]
    assert value["key"] == path
    assert value["fill"] == [number % 7] * (number % 900)
    assert value["more"] == bytes([number % 256]) * 5000


def stray(store: LocalArtifactStore, paths: list[str]) -> list[str]:
    """The files that are neither an artifact's nor in a place where work in progress is."""
    found = []
    for file in store.base_path.rglob("*"):
        parts = file.relative_to(store.base_path).as_posix().split("/")
        known = any(
            is_content_segment(part) or re.match(r"\.tmp-[0-9a-f]+-[0-9a-f]{8}-[0-9a-f]+", part) or part == "_objects"
            for part in parts
        )
        if file.is_file() and not known and (parts[-1] != MANIFEST or "/".join(parts[:-1]) not in paths):
            found.append(str(file))
    return found


def test_references_that_killed_writers_handed_over_stay_loadable(tmp_path: Path) -> None:
    """A writer that saves something else over an artifact, and is killed at any moment, leaves the old or the new."""
    store = LocalArtifactStore(tmp_path / "store")
    store.save({"old": 1}, "a")
    old: ArtifactRef = store.ref("a")
    program = (
        "import sys, os, time\nfrom tailrace import LocalArtifactStore\n"
        "store = LocalArtifactStore(sys.argv[1])\n"
        "if not os.fork():\n"
        "    for n in range(10**6): store.save({'new': n}, 'a')\n"
        "time.sleep(float(sys.argv[2]))\nos.kill(0, 9)\n"
    )
    for turn in range(3):
        arguments = [str(store.base_path), str(0.02 * turn)]
        subprocess.run([sys.executable, "-c", program, *arguments], check=False, start_new_session=True, timeout=60)
        assert verify(store, "a").damage == ()
        assert set(store.load("a")) in ({"new"}, {"old"})
    store.save({"old": 1}, "a")
    assert store.ref("a").digest == old.digest
