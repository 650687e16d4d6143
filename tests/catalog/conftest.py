"""A small world for the catalog: stores whose run records are written by the very classes that runs use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailrace.catalog.index import Catalog
from tailrace.catalog.journal import Journal, RunEnd, RunRecord
from tailrace.core.names import MANIFEST, content_segment
from tailrace.core.refs import ArtifactRef, FileEntry, Manifest, Parent, Producer, Run
from tailrace.core.results import TaskRecord
from tailrace.materializers.files import digest_bytes
from tailrace.stores.base import ArtifactStore
from tailrace.stores.layout import default_path
from tailrace.stores.local import LocalArtifactStore
from tailrace.stores.manifests import dumped

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclass
class RunWriter:
    """Writes one run as the runtime does: a record, tasks with their artifacts, and an end."""

    lab: Lab
    journal: Journal
    record: RunRecord
    tasks: list[TaskRecord] = field(default_factory=list)

    def task(
        self,
        step: str,
        outputs: dict[str, Any],
        inputs: Mapping[str, ArtifactRef | list[ArtifactRef]] | None = None,
        *,
        map_index: int | None = None,
        state: str = "completed",
        type: str = "int",
        store: str = "default",
        code: str = "c0de",
        **labels: Any,
    ) -> dict[str, ArtifactRef]:
        """One task: its outputs' contents by name. Returns their references."""
        run = self.record.run
        taken = {name: ref if isinstance(ref, list) else [ref] for name, ref in (inputs or {}).items()}
        parents = tuple(Parent(ref.id, ref.uri, ref.digest, name) for name, refs in taken.items() for ref in refs)
        refs = {}
        for output, content in outputs.items():
            producer = Producer(run.project, run.pipeline, step, output, run.run_id, map_index, code_version=code)
            key = default_path(run.project, run.started, run.run_id, step, output)
            key = key if map_index is None else f"{key}/{map_index:06d}"
            identity = "\0".join([run.project, run.run_id, step, output, "" if map_index is None else str(map_index)])
            labels |= {"id": hashlib.sha256(identity.encode()).hexdigest()[:16], "producer": producer}
            refs[output] = self.lab.commit(key, content, name=output, type=type, parents=parents, store=store, **labels)
        ids = {name: [ref.id for ref in refs_] for name, refs_ in taken.items()}
        done = TaskRecord(step, map_index, state, self.lab.tick().isoformat(), 0.5, outputs=refs, inputs=ids)
        self.journal.write_task(done)
        self.tasks.append(done)
        return refs

    def end(self, state: str = "completed", **values: Any) -> None:
        """Record how the run ended."""
        ended = self.lab.tick()
        seconds = (ended - self.record.run.started).total_seconds()
        self.journal.close(RunEnd(state, ended.isoformat(), seconds, **values), self.tasks)


class Lab:
    """Stores below a folder, and an index beside them. Its clock moves a second with every record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/index/catalog.db"
        self.database = folder / "index" / "catalog.db"
        self.stores: dict[str, ArtifactStore] = {"default": LocalArtifactStore(folder / "store", durable=False)}
        self.now = START
        self._open: list[Catalog] = []

    @property
    def store(self) -> ArtifactStore:
        return self.stores["default"]

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def catalog(self) -> Catalog:
        """A catalog as a new process has it."""
        self._open.append(Catalog(self.url, self.stores))
        return self._open[-1]

    def synced(self) -> Catalog:
        catalog = self.catalog()
        assert catalog.sync().problems == ()
        return catalog

    def close(self) -> None:
        for catalog in self._open:
            catalog.close()

    def forget(self) -> None:
        """Delete the index."""
        self.close()
        self.database.unlink()

    def commit(self, key: str, content: Any, *, id: str = "", store: str = "default", **labels: Any) -> ArtifactRef:
        """Write an artifact's manifest, as a store's publish does."""
        place = self.stores[store]
        data = repr(content).encode()
        digest = digest_bytes(data)
        manifest = Manifest(
            **{
                "id": id or digest_bytes(f"{place.root_uri}\0{key}".encode()).rpartition(":")[2][:16],
                "name": key.rpartition("/")[2],
                "type": "int",
                "materializer": "python",
                "materializer_version": 1,
                "digest": digest,
                "content": content_segment(digest),
                "files": (FileEntry("data.json", len(data), digest),),
                "created": self.tick().isoformat(),
                **labels,
            }
        )
        written = dumped(manifest)
        place.replace(f"{key}/{MANIFEST}", written)
        named = (digest_bytes(written), manifest.type, manifest.name, None, manifest.created)
        return ArtifactRef(manifest.id, place.uri(key), digest, *named)

    def run(
        self,
        run_id: str,
        *,
        pipeline: str = "training",
        project: str = "shop",
        params: dict[str, Any] | None = None,
        steps: Sequence[str] = (),
        orchestrator: str = "inline",
    ) -> RunWriter:
        """Open a run, or the run of this id again."""
        place = ("local", orchestrator, str(self.folder))
        asked = Run(run_id, pipeline, project, self.tick(), *place, params=params or {})
        journal, record = Journal.open(self.store, RunRecord(asked, "p1an", tuple({"step": step} for step in steps)))
        journal.reopen()
        return RunWriter(self, journal, record)

    def training(self, run_id: str = "a1", *, lr: float = 0.1, **options: Any) -> dict[str, ArtifactRef]:
        """A whole run: load -> split (two outputs) -> three candidates by map -> best -> report."""
        steps = ("load", "split", "train", "select", "report")
        run = self.run(run_id, params={"lr": lr, "path": "wine.csv"}, steps=steps, **options)
        data = run.task("load", {"data": "wine"}, type="Dataset")
        parts = run.task("split", {"train_set": "w", "test_set": "ine"}, {"data": data["data"]}, type="Dataset")
        rows = {"rows": parts["train_set"]}
        trained = [
            run.task("train", {"candidate": f"{lr}/{index}"}, rows, map_index=index, type="Model") for index in range(3)
        ]
        candidates = [made["candidate"] for made in trained]
        best = run.task("select", {"best": f"{lr}/2"}, {"candidates": candidates}, type="Model")
        taken: dict[str, Any] = {"model": best["best"], "rows": parts["test_set"]}
        report = run.task("report", {"page": f"<html>{lr}"}, taken, type="Report")
        run.end()
        return {**data, **parts, **best, **report, **{f"candidate{i}": ref for i, ref in enumerate(candidates)}}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def new_lab(tmp_path: Path) -> Iterator[Callable[[], Lab]]:
    """As many worlds as a test wants, one after the other."""
    made: list[Lab] = []

    def make() -> Lab:
        made.append(Lab(tmp_path / f"lab{len(made)}"))
        return made[-1]

    yield make
    for lab in made:
        lab.close()
