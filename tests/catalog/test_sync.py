"""The index follows the stores."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tailrace.catalog.index import Catalog
from tailrace.catalog.journal import find_run, find_runs
from tailrace.catalog.rows import SyncReport
from tailrace.core.errors import IntegrityError, RunNotFound
from tailrace.core.names import MANIFEST, RUNS
from tailrace.stores.local import LocalArtifactStore
from tailrace.stores.memory import MemoryArtifactStore

if TYPE_CHECKING:
    from .conftest import Lab


class CountingStore(LocalArtifactStore):
    """Remembers what was read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[str] = []

    def read(self, key: str) -> bytes:
        self.seen.append(key)
        return super().read(key)


class FarStore(MemoryArtifactStore):
    """A store whose listing is to be avoided."""

    scheme = "far"

    def __init__(self, bucket: str) -> None:
        super().__init__(bucket)
        self.walks = 0

    def walk(self, prefix: str = "", *, contents: bool = False) -> Any:
        self.walks += 1
        return super().walk(prefix, contents=contents)


def test_a_catalog_makes_no_file_before_it_is_asked(lab: Lab) -> None:
    catalog = lab.catalog()
    assert not lab.database.exists()
    assert catalog.runs() == []
    assert lab.database.exists()


def test_a_new_index_is_filled_by_the_first_question(lab: Lab) -> None:
    lab.training()
    assert len(lab.catalog().artifacts()) == 8


def test_a_finished_run_is_listed_with_what_it_did(lab: Lab) -> None:
    lab.training("a1")
    (run,) = lab.synced().runs()
    assert (run.run_id, run.state, run.pipeline, run.project) == ("a1", "completed", "training", "shop")
    assert (run.steps, run.artifacts, run.failed_step, run.seconds) == (5, 8, "", 16.0)
    assert run.started == "2026-03-01T12:00:01.000000+00:00"


def test_a_runs_tasks_come_in_the_order_of_the_pipeline(lab: Lab) -> None:
    lab.training("a1")
    detail = lab.synced().run("a1")
    assert [(task.step, task.map_index) for task in detail.tasks] == [
        ("load", None),
        ("split", None),
        ("train", 0),
        ("train", 1),
        ("train", 2),
        ("select", None),
        ("report", None),
    ]
    assert detail.params == {"lr": 0.1, "path": "wine.csv"}


def test_a_run_without_an_end_is_running_and_followed_until_it_ends(lab: Lab) -> None:
    run = lab.run("a1")
    run.task("load", {"data": 1})
    catalog = lab.synced()
    (shown,) = catalog.runs(state="running")
    assert (shown.ended, shown.seconds, shown.artifacts) == (None, None, 1)
    run.task("split", {"part": 2})
    catalog.sync()
    assert catalog.runs()[0].artifacts == 2
    run.end("failed", error="ValueError: no", failed_step="split")
    catalog.sync()
    assert [(row.state, row.failed_step, row.error) for row in catalog.runs()] == [
        ("failed", "split", "ValueError: no")
    ]


def test_a_finished_run_is_not_read_again(lab: Lab) -> None:
    store = CountingStore(lab.folder / "store", durable=False)
    lab.stores["default"] = store
    lab.training("a1")
    catalog = lab.synced()
    store.seen.clear()
    report = catalog.sync()
    assert (report.runs, report.artifacts) == (0, 0)
    assert [key for key in store.seen if "/steps/" in key or key.endswith(MANIFEST)] == []


def test_of_a_run_that_is_read_again_only_new_manifests_are_opened(lab: Lab) -> None:
    store = CountingStore(lab.folder / "store", durable=False)
    lab.stores["default"] = store
    run = lab.run("a1")
    run.task("load", {"data": 1})
    catalog = lab.synced()
    store.seen.clear()
    made = run.task("train", {"model": 2})["model"]
    catalog.sync()
    assert [store.uri(key) for key in store.seen if key.endswith(MANIFEST)] == [f"{made.uri}/{MANIFEST}"]


def test_a_run_that_is_started_again_under_its_id_is_read_again(lab: Lab) -> None:
    first = lab.run("a1")
    data = first.task("load", {"data": 1})["data"]
    first.end("failed", failed_step="train", error="ValueError: no")
    catalog = lab.synced()
    again = lab.run("a1")
    catalog.sync()
    assert catalog.runs()[0].state == "running"
    changed = again.task("load", {"data": 2})["data"]
    again.task("train", {"model": 3}, {"data": changed})
    again.end()
    catalog.sync()
    assert [(row.state, row.artifacts, row.error) for row in catalog.runs()] == [("completed", 2, "")]
    assert catalog.artifact(data.id).digest == changed.digest != data.digest


def test_an_artifact_that_was_saved_by_hand_is_seen_by_the_next_sync(lab: Lab) -> None:
    catalog = lab.synced()
    lab.commit("models/churn", "weights", type="Model")
    report = catalog.sync()
    assert (report.runs, report.artifacts, report.removed) == (0, 1, 0)
    (row,) = catalog.artifacts()
    assert (row.name, row.type, row.run_id, row.step, row.version) == ("churn", "Model", "", "", "v1")
    assert row.uri == lab.store.uri("models/churn")


def test_what_a_store_saves_is_what_the_catalog_shows(lab: Lab) -> None:
    uri = lab.store.save({"a": [1, 2, 3]}, "notes/first")
    (row,) = lab.synced().artifacts()
    assert (row.uri, row.type, row.size_bytes) == (uri, "dict", lab.store.size("notes/first"))
    assert (row.id, row.digest) == (lab.store.ref(uri).id, lab.store.ref(uri).digest)


def test_an_artifact_that_was_saved_again_by_hand_shows_its_new_content(lab: Lab) -> None:
    before = lab.commit("models/churn", "weights")
    catalog = lab.synced()
    after = lab.commit("models/churn", "better weights")
    catalog.sync()
    assert [(row.id, row.digest) for row in catalog.artifacts()] == [(before.id, after.digest)]


def test_an_artifact_that_was_deleted_disappears(lab: Lab) -> None:
    refs = lab.training()
    lab.commit("models/churn", "weights")
    catalog = lab.synced()
    lab.store.delete("models/churn")
    lab.store.delete(refs["page"].uri)
    assert catalog.sync().removed == 2
    assert {row.name for row in catalog.artifacts()} == {"data", "train_set", "test_set", "candidate", "best"}
    assert catalog.runs()[0].artifacts == 7


def test_a_run_whose_records_were_deleted_disappears(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2")
    catalog = lab.synced()
    lab.store.remove("shop/2026-03-01/a1")
    assert catalog.sync().removed == 8
    assert [row.run_id for row in catalog.runs()] == ["a2"]
    with pytest.raises(RunNotFound):
        catalog.run("a1")


def test_an_id_under_which_things_were_only_saved_by_hand_is_no_run(lab: Lab) -> None:
    lab.store.materialize([1], "numbers", "r1", "by-hand")
    catalog = lab.synced()
    assert catalog.runs() == []
    assert [row.name for row in catalog.artifacts()] == ["numbers"]


def test_without_a_walk_runs_are_followed_and_what_was_saved_by_hand_is_not(lab: Lab) -> None:
    catalog = lab.synced()
    lab.commit("models/churn", "weights")
    lab.training()
    assert catalog.sync(walk=False).artifacts == 8
    assert "churn" not in {row.name for row in catalog.artifacts()}


def test_artifacts_in_another_store_are_found_through_the_run(lab: Lab) -> None:
    lab.stores["models"] = MemoryArtifactStore(f"models-{lab.folder}")
    run = lab.run("a1")
    data = run.task("load", {"data": 1})["data"]
    run.task("train", {"model": 2}, {"data": data}, store="models", type="Model")
    run.end()
    catalog = lab.synced()
    assert {(row.name, row.store) for row in catalog.artifacts()} == {("data", "default"), ("model", "models")}
    assert [row.name for row in catalog.parents("a1/train/model")] == ["data"]


def test_a_store_that_is_far_away_is_listed_by_the_first_sync_and_by_a_rebuild_only(lab: Lab) -> None:
    far = FarStore(f"far-{lab.folder}")
    lab.stores["far"] = far
    catalog = lab.synced()
    far.walks = 0
    lab.commit("models/churn", "weights", store="far")
    run = lab.run("a1")
    made = run.task("train", {"model": 2}, store="far")["model"]
    run.end()
    catalog.sync()
    assert far.walks == 0
    assert [row.id for row in catalog.artifacts()] == [made.id]
    catalog.rebuild()
    assert {row.name for row in catalog.artifacts()} == {"model", "churn"}


@pytest.mark.parametrize("records", ["kept", "lost"])
def test_a_runs_manifest_that_was_replaced_by_hand_is_noticed_by_a_rebuild(lab: Lab, records: str) -> None:
    refs = lab.training("a1")
    if records == "lost":
        lab.store.remove(f"{RUNS}/shop/a1.json")
    catalog = lab.synced()
    best = lab.store.manifest(refs["best"].uri)
    key = lab.store.key(refs["best"].uri)
    replaced = lab.commit(key, "others", id=best.id, name=best.name, type=best.type, producer=best.producer)
    catalog.rebuild()
    assert catalog.artifact(best.id).digest == replaced.digest != refs["best"].digest


def test_a_deleted_artifact_of_a_far_store_disappears_with_the_next_end_of_its_run(lab: Lab) -> None:
    lab.stores["far"] = FarStore(f"far-{lab.folder}")
    run = lab.run("a1")
    made = run.task("train", {"model": 1, "log": 2}, store="far")
    run.end()
    catalog = lab.synced()
    lab.stores["far"].delete(made["log"].uri)
    again = lab.run("a1")
    again.task("train", {"model": 1}, store="far")
    again.end()
    assert catalog.sync().removed == 1
    assert [row.name for row in catalog.artifacts()] == ["model"]


def test_a_reference_into_a_store_that_is_not_there_is_reported(lab: Lab) -> None:
    lab.stores["models"] = MemoryArtifactStore(f"models-{lab.folder}")
    run = lab.run("a1")
    made = run.task("train", {"model": 1}, store="models")
    run.end()
    del lab.stores["models"]
    (problem,) = lab.catalog().sync().problems
    assert made["model"].uri in problem


def test_other_stores_in_the_same_database_are_not_mixed(lab: Lab) -> None:
    lab.training()
    here = lab.synced()
    with Catalog(lab.url, {"default": LocalArtifactStore(lab.folder / "elsewhere")}) as there:
        assert there.artifacts() == []
        there.rebuild()
    assert len(here.artifacts()) == 8


def test_one_place_under_two_names_is_one_store(lab: Lab) -> None:
    lab.training()
    lab.stores["same"] = LocalArtifactStore(lab.folder / "store", name="same")
    catalog = lab.synced()
    assert {row.store for row in catalog.artifacts()} == {"default"}
    assert (catalog.sync().artifacts, len(catalog.artifacts())) == (0, 8)


def test_a_store_inside_another_has_its_own_artifacts(lab: Lab) -> None:
    lab.stores["inner"] = LocalArtifactStore(lab.folder / "store" / "inner", name="inner", durable=False)
    lab.commit("outside", 1)
    lab.commit("inside", 2, store="inner")
    catalog = lab.synced()
    assert {(row.name, row.store) for row in catalog.artifacts()} == {("outside", "default"), ("inside", "inner")}
    assert catalog.sync().artifacts == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"id": "1"}'])
def test_a_damaged_manifest_is_reported_and_the_rest_is_shown(lab: Lab, damage: bytes) -> None:
    lab.training()
    lab.commit("broken", 1)
    lab.store.replace(f"broken/{MANIFEST}", damage)
    catalog = lab.catalog()
    (problem,) = catalog.sync().problems
    assert "broken" in problem
    assert len(catalog.artifacts()) == 8
    assert len(catalog.sync().problems) == 1


def test_a_damaged_task_record_is_reported_and_the_other_runs_are_shown(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2")
    lab.store.replace("shop/2026-03-01/a1/steps/load@all.json", b"{")
    catalog = lab.catalog()
    (problem,) = catalog.sync().problems
    assert "'a1'" in problem
    assert [row.run_id for row in catalog.runs()] == ["a2"]


DAMAGE = [b"", b"{", b"null", b"[1]", b"{}", bytes(73)]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["run.json", "result.json", "steps/train@000001.json"])
def test_a_damaged_record_is_named_and_hides_no_other_run(lab: Lab, name: str, damage: bytes) -> None:
    lab.training("a1")
    lab.training("a2")
    catalog = lab.synced()
    key = f"shop/2026-03-01/a1/{name}"
    lab.store.replace(key, damage)
    lab.training("a3")
    (problem,) = catalog.rebuild().problems
    assert lab.store.uri(key) in problem
    assert "'a1'" in problem
    assert [row.run_id for row in catalog.runs()] == ["a3", "a2", "a1"]  # as it was when it could be read
    lab.forget()
    assert [row.run_id for row in lab.catalog().runs()] == ["a3", "a2"]
    journal = find_run(lab.store, "shop", "a1")
    assert journal is not None
    with pytest.raises(IntegrityError, match=re.escape(lab.store.uri(key))):
        journal.record(), journal.end(), list(journal.tasks())


CLAIMS = [*DAMAGE, b'{"project": "shop", "run_id": "a2", "started": "2026-03-01T12:00:00+00:00"}']
CLAIMS += [b'{"project": "shop", "run_id": "a1", "started": "yesterday"}']
CLAIMS += [b'{"project": "shop", "run_id": "a1", "started": "0001-01-01T00:00:00+14:00"}']


@pytest.mark.parametrize("damage", CLAIMS)
def test_a_damaged_start_of_a_run_is_named_and_hides_no_other_run(lab: Lab, damage: bytes) -> None:
    lab.training("a1")
    lab.training("a2")
    catalog = lab.synced()
    lab.store.replace(f"{RUNS}/shop/a1.json", damage)
    lab.training("a3")
    (problem,) = catalog.sync().problems
    assert lab.store.uri(f"{RUNS}/shop/a1.json") in problem
    assert [row.run_id for row in catalog.runs()] == ["a3", "a2", "a1"]  # as it was when it could be read
    lab.forget()
    assert [row.run_id for row in lab.catalog().runs()] == ["a3", "a2"]
    for ask in (
        lambda: find_run(lab.store, "shop", "a1"),
        lambda: list(find_runs(lab.store, run_id="a1")),
        lambda: lab.training("a1"),
    ):
        with pytest.raises(IntegrityError, match=r"_runs/shop/a1\.json.*Write it anew as .*/shop/\*/a1/run\.json"):
            ask()
    assert [journal.run_id for journal in find_runs(lab.store, run_id="a2")] == ["a2"]


def test_a_start_that_is_written_anew_as_the_message_says_brings_the_run_back(lab: Lab) -> None:
    lab.training("a1")
    key = f"{RUNS}/shop/a1.json"
    claim = lab.store.read(key)
    lab.store.replace(key, b"")
    run = orjson.loads(lab.store.read("shop/2026-03-01/a1/run.json"))["run"]
    lab.store.replace(key, orjson.dumps({name: run[name] for name in ("project", "run_id", "started")}))
    assert lab.store.read(key) == claim
    assert [row.run_id for row in lab.synced().runs()] == ["a1"]


def test_nothing_to_do_is_reported_as_nothing(lab: Lab) -> None:
    lab.training()
    report = lab.synced().sync()
    assert report == SyncReport(seconds=report.seconds)


def test_no_sql_library_is_imported_on_the_way_of_a_running_step(tmp_path: Path) -> None:
    program = """
import sys
from tailrace import Pipeline, step

@step
def one() -> int:
    return 1

Pipeline("p").add_step(one).run(orchestrator="inline")
print(sorted({"sqlalchemy", "sqlite3", "tailrace.catalog.index"} & set(sys.modules)))
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
