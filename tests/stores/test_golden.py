"""What an earlier version wrote is read by this one. The files are added to, per version, and never edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import Dataset, LocalArtifactStore, Metrics
from tailrace.catalog.journal import find_runs

VERSIONS = sorted((Path(__file__).parent / "golden").iterdir())


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_artifacts_of_earlier_versions_load(folder: Path) -> None:
    store = LocalArtifactStore(folder)
    assert store.load("by-hand/plain") == {"a": [1, (2, 3)]}
    assert store.get_metadata("by-hand/plain") == {"source": "a test"}
    data, score = (store.load(path) for path in store.list_artifacts("default/"))
    assert isinstance(data, Dataset)
    assert (data.data, data.name, data.version) == ([{"x": 0}, {"x": 1}], "rows", "7")
    assert isinstance(score, Metrics)
    assert (dict(score), score.step) == ({"rows": 2}, 2)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_records_of_earlier_versions_are_read(folder: Path) -> None:
    journal = next(find_runs(LocalArtifactStore(folder)))
    record, end = journal.record(), journal.end()
    assert record is not None
    assert end is not None
    assert (record.run.run_id, record.run.pipeline, record.run.params) == ("run-1", "golden", {"size": 2})
    assert (end.state, end.error) == ("completed", "")
    tasks = {task.step: task for task in journal.tasks()}
    assert set(tasks) == {"load", "score"}
    assert tasks["score"].inputs == {"data": [tasks["load"].outputs["data"].id]}
