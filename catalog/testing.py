"""A battery that proves an artifact store as the keeper of run records and as the source of a catalog.

import pytest
from tailrace.catalog.testing import check_records, record_cases
from tailrace.stores.testing import Place

@pytest.mark.parametrize("case", record_cases())
def test_my_store_keeps_records(case, tmp_path):
    check_records(case, Place(lambda: MyStore(tmp_path / "store")))
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from ..core.errors import RunConflict
from ..core.names import MANIFEST
from ..core.refs import Producer, Run, artifact_id
from ..core.results import TaskRecord
from ..stores.base import ArtifactStore, Labels
from ..stores.layout import default_path
from ..stores.testing import Case, Place
from ..stores.testing.place import hold, refused, same
from .index import Catalog
from .journal import Journal, RunEnd, RunRecord, find_run, find_runs

__all__ = ["RECORD_CASES", "check_records", "record_cases"]

_START = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
_RUN = "manual__2026-01-31T23:59:59+00:00"


def _asked(run_id: str = _RUN, *, seconds: int = 0, **params: int) -> RunRecord:
    started = _START + timedelta(seconds=seconds)
    run = Run(run_id, "train", "shop", started, "default", "inline", root="", params=params)
    return RunRecord(run, "p1an", ({"step": "fit", "upstream": [], "outputs": ["model"]},))


def _write_run(store: ArtifactStore, run_id: str = _RUN) -> Journal:
    """A whole run of one task with one artifact."""
    journal, record = Journal.open(store, _asked(run_id))
    run = record.run
    labels = Labels(
        artifact_id(run.project, run.run_id, "fit", "model"),
        "model",
        producer=Producer(run.project, run.pipeline, "fit", "model", run.run_id),
    )
    key = default_path(run.project, run.started, run.run_id, "fit", "model")
    ref = store.publish(store.stage({"run": run_id}), key, labels)
    task = TaskRecord("fit", None, "completed", run.started.isoformat(), 0.5, outputs={"model": ref})
    journal.write_task(task)
    journal.close(RunEnd("completed", run.started.isoformat(), 1.0), [task])
    return journal


def _a_run(place: Place) -> None:
    store = place.store
    journal, record = Journal.open(store, _asked(n=1))
    again, same_record = Journal.open(place.other, _asked(seconds=7200, n=1))
    same(same_record.run.started, record.run.started, "The start of the run, for one that opens it after midnight")
    same(again.folder, journal.folder, "The folder of the run")
    refused(RunConflict, "Opening with another parameter", lambda: Journal.open(place.other, _asked(n=2)), "n")
    same(again.end(), None, "The end of a run that has not ended")
    tasks = [TaskRecord("fit", index, "completed", _START.isoformat(), 0.5, attempt=1) for index in (None, 1, 0)]
    for task in tasks:
        journal.write_task(task)
    journal.write_task(TaskRecord("fit", 1, "failed", _START.isoformat(), 0.5, attempt=2, error="ошибка"))
    found = {task.map_index: (task.state, task.attempt, task.error) for task in again.tasks()}
    expected = {0: ("completed", 1, ""), 1: ("failed", 2, "ошибка"), None: ("completed", 1, "")}
    same(found, expected, "The tasks")
    end = RunEnd("failed", _START.isoformat(), 2.5, error="ошибка", failed_step="fit")
    journal.close(end, tasks)
    same(again.end(), end, "How it ended")
    again.reopen()
    again.reopen()
    same(journal.end(), None, "The end of a run that was opened again")
    same(place.other.list_artifacts(), [], "The listing, when there are records and no artifact")


def _found(place: Place) -> None:
    store = place.store
    same(find_run(store, "shop", _RUN), None, "A run that is not there")
    ids = [_RUN, "r", "r:1", "../r", "ünï"]
    for run_id in ids:
        _write_run(store, run_id)
    same(sorted(journal.run_id for journal in find_runs(place.other)), sorted(ids), "The runs")
    same([journal.run_id for journal in find_runs(place.other, "shop", "r:1")], ["r:1"], "The runs of one id")
    same(list(find_runs(place.other, "sho")), [], "The runs of another project")
    journal = find_run(place.other, "shop", "../r")
    hold(journal is not None and journal.end() is not None, "A run with a hostile id is not found.")


def _claims(place: Place) -> None:
    journals = [Journal.open(store, _asked())[0] for store in (place.store, place.other) for _ in range(8)]
    same(journals[0].peek("version"), None, "What nobody has claimed")
    with ThreadPoolExecutor(len(journals)) as pool:
        said = list(pool.map(lambda pair: pair[1].claim("version", str(pair[0])), enumerate(journals)))
    held = journals[0].peek("version")
    hold(held in said, f"{held!r} is held, and nobody was told so: {said}")
    if place.one_winner:
        same(set(said), {held}, "What the claimants were told")
    same(journals[1].claim("version", "late"), held, "What a late claimant is told")


def _rebuilt(place: Place) -> None:
    store = place.store
    for run_id in ("one", "two"):
        _write_run(store, run_id)
    store.save({"by": "hand"}, "by/hand", {"m": 1})
    with (
        tempfile.TemporaryDirectory() as folder,
        Catalog(f"sqlite:///{folder}/catalog.db", {"default": store}) as index,
    ):
        index.rebuild()
        for _ in range(2):
            same(sorted(run.run_id for run in index.runs()), ["one", "two"], "The runs in the catalog")
            uris = sorted(row.uri for row in index.artifacts())
            same(uris, sorted(store.uri(path) for path in store.list_artifacts()), "The artifacts in the catalog")
            same(min(str(store.load(uri)) for uri in uris), "{'by': 'hand'}", "What the catalog leads to")
            index.sync()
        store.remove(f"by/hand/{MANIFEST}")
        index.rebuild()
        same(len(index.artifacts()), 2, "The artifacts in a catalog that was made again after one was deleted")


RECORD_CASES: Mapping[str, Case] = {
    "a run is opened, written, closed and opened again": _a_run,
    "runs are found by project and id": _found,
    "of many claims of one name one is heard by all": _claims,
    "a catalog is rebuilt from the store": _rebuilt,
}
"""Every case by name."""


def record_cases() -> list[str]:
    """The names of the cases, for ``pytest.mark.parametrize``."""
    return list(RECORD_CASES)


def check_records(name: str, place: Place) -> None:
    """Run a named case in an empty place. Raises AssertionError saying what does not hold."""
    RECORD_CASES[name](place)
