"""Collecting garbage at size: 100,000 artifacts of 2,000 runs in a folder; a tenth have an old content beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from measure import PEAK, Bench, Row, process, row

from tailrace import LocalArtifactStore
from tailrace.catalog.journal import Journal, RunEnd, RunRecord
from tailrace.core.names import MANIFEST
from tailrace.core.refs import FileEntry, Manifest, Producer, Run, artifact_id
from tailrace.stores.layout import default_path
from tailrace.stores.manifests import dumped

__all__ = ["rows"]

_ARTIFACTS = 100_000
_RUNS = 2_000
_KEPT = str(_RUNS // 2)
_ROUNDS = 3
_LISTED, _READ = "scandir and stat of everything", "scandir, stat, every manifest read and parsed"
_NEW, _OLD = "content-00000000000000aa", "content-00000000000000bb"

_FLOOR = """
import os, sys, time
import orjson

begin = time.perf_counter()
folders, manifests = [sys.argv[1]], []
while folders:
    for item in list(os.scandir(folders.pop())):
        if item.is_dir(follow_symlinks=False):
            folders.append(item.path)
        else:
            item.stat(follow_symlinks=False)
            if item.name == "manifest.json":
                manifests.append(item.path)
listed = time.perf_counter()
for path in manifests:
    fd = os.open(path, os.O_RDONLY)
    orjson.loads(os.read(fd, 1 << 16))
    os.close(fd)
print([listed - begin, time.perf_counter() - begin])
"""

_COLLECT = (
    PEAK
    + """
import json, sys, time
from tailrace import LocalArtifactStore
from tailrace.catalog.gc import Collector
from tailrace.catalog.retention import Retention

folder, keep, remove = sys.argv[1].split("|")
base = peak()
begin = time.perf_counter()
rule = Retention(keep_last=int(keep)) if keep else None
collector = Collector({"default": LocalArtifactStore(folder)}, grace=0, rule=rule)
found = collector.find()
middle = time.perf_counter()
removed = len(collector.remove(found).items) if remove else 0
most = peak()
print(json.dumps([middle - begin, time.perf_counter() - middle, removed, most / 1024, (most - base) / 1024]))
"""
)


def rows(bench: Bench) -> Iterator[Row]:
    """Finding and removing the orphans, then with a rule that lets half of the artifacts go."""
    store = bench.folder / "gc" / "store"
    store.mkdir(parents=True)
    _make(store)
    floors, finding = [], []
    for _ in range(_ROUNDS):
        floors.append(json.loads(process(bench.python, _FLOOR, store.parent, given=str(store))[1]))
        rules = ("", _KEPT)
        found = [process(bench.python, _COLLECT, store.parent, given=f"{store}|{keep}|")[1] for keep in rules]
        finding.append([json.loads(said)[0] for said in found])
    for at, (what, keep, floor) in enumerate((("orphans", "", _LISTED), ("keep-last", _KEPT, _READ))):
        least = [of[at] for of in floors]
        seconds = [of[at] for of in finding]
        yield row(f"gc of {_ARTIFACTS:,}, {what}: finding", seconds, "s", least, floor, most_ratio=2.5)
        _, said = process(bench.python, _COLLECT, store.parent, given=f"{store}|{keep}|remove")
        _, removed, count, peak, more = json.loads(said)
        yield row(f"gc of {_ARTIFACTS:,}, {what}: removing {count:,}", [removed], "s")
        yield row(f"gc of {_ARTIFACTS:,}, {what}: peak memory ({more:.0f} MB above the start)", [peak], "MB")


def _make(folder: Path) -> None:
    """Manifests and contents as a store writes them, without a store, which would take minutes."""
    store = LocalArtifactStore(folder, durable=False)
    started = datetime.now(UTC)
    for number in range(_RUNS):
        run = Run(f"run{number}", "pipeline", "project", started, "local", "inline", root="")
        journal, _ = Journal.open(store, RunRecord(run, "plan"))
        journal.close(RunEnd("completed", started.isoformat(), 1.0), [])
        for index in range(_ARTIFACTS // _RUNS):
            key = default_path("project", started, run.run_id, f"step{index}", "out")
            for content in (_NEW, _OLD) if index % 10 == 0 else (_NEW,):
                place = folder / key / content
                place.mkdir(parents=True)
                (place / "data.json").write_bytes(b"{}")
            (folder / key / MANIFEST).write_bytes(dumped(_manifest(run, index)))


def _manifest(run: Run, index: int) -> Manifest:
    by = Producer(run.project, run.pipeline, f"step{index}", "out", run.run_id)
    digest = f"blake3:{index:064x}"
    return Manifest(
        artifact_id(run.project, run.run_id, by.step, "out"),
        f"out{index}",
        "dict",
        "json",
        1,
        digest,
        _NEW,
        (FileEntry("data.json", 2, digest),),
        run.started.isoformat(),
        producer=by,
    )
