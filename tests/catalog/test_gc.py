"""What is garbage and what is not: by manifests, by the records of runs, by age, by a rule."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace import LocalArtifactStore, RunConflict
from tailrace.catalog.gc import LOST, Collector
from tailrace.catalog.index import Catalog
from tailrace.catalog.retention import Retention
from tailrace.catalog.rows import Garbage
from tailrace.core.names import MANIFEST, RUNS, content_segment
from tailrace.core.refs import ArtifactRef

from .conftest import Lab

DAY = 86400.0
HOUR = 3600.0


def age(folder: Path, seconds: float) -> None:
    """Make everything in a folder older."""
    for top, folders, files in os.walk(folder, topdown=False):
        for name in [*folders, *files, ""]:
            then = os.stat(f"{top}/{name}").st_mtime - seconds
            os.utime(f"{top}/{name}", (then, then))


def kinds(items: tuple[Garbage, ...] | list[Garbage]) -> list[str]:
    return sorted(item.kind for item in items)


@pytest.fixture
def place(lab: Lab) -> Path:
    """The folder of the default store."""
    return lab.folder / "store"


def names(catalog: Catalog) -> list[str]:
    return sorted({f"{made.run_id}.{made.name}" for made in catalog.artifacts()})


# --- orphans ----------------------------------------------------------------------------------------------------------


def test_a_store_without_garbage_is_left_as_it_is(lab: Lab, place: Path) -> None:
    lab.training()
    lab.store.save([1], "by/hand")
    age(place, DAY)
    before = sorted(place.rglob("*"))
    with lab.catalog() as catalog:
        assert catalog.find_orphaned_artifacts() == []
        assert catalog.delete_orphaned_artifacts(dry_run=False).items == ()
    assert sorted(place.rglob("*")) == before


def test_what_is_left_behind_is_found_and_only_a_call_that_says_so_removes_it(lab: Lab, place: Path) -> None:
    lab.store.save("old", "a")
    lab.store.save("new", "a")
    staged = lab.store.stage("never published")
    lab.store.put_tree(lab.store.stage("no manifest").directory, "b/content-0123456789abcdef", staged.files)
    lab.store.create(f"{RUNS}/shop/nothing.json", b"{}")
    (place / ".tmp-1-aabbccdd-0").write_text("half of a file")
    with lab.catalog() as catalog:
        assert catalog.find_orphaned_artifacts() == []  # too young
        age(place, 2 * HOUR)
        assert kinds(catalog.find_orphaned_artifacts()) == ["content", "content", "record", "staging", "staging"]
        would = catalog.delete_orphaned_artifacts()
        assert (would.deleted, kinds(would.items)) == (False, kinds(catalog.find_orphaned_artifacts()))
        report = catalog.delete_orphaned_artifacts(dry_run=False)
        assert (report.deleted, report.items, report.left) == (True, would.items, 0)
        assert report.bytes > 0
        assert catalog.find_orphaned_artifacts() == []
    assert lab.store.load("a") == "new"
    assert sorted(path.name for path in place.iterdir()) == ["a"]


@pytest.mark.parametrize("name", [".tmp-backup/a.csv", "notes/.tmp-draft.txt", "_probe-results/1.json", "_probe-a"])
def test_files_of_somebody_who_names_them_alike_are_left(name: str, lab: Lab, place: Path) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("mine")
    age(place, 2 * HOUR)
    with lab.catalog() as catalog:
        assert catalog.find_orphaned_artifacts() == []


def test_the_grace_period_is_by_the_time_of_what_was_written_last(lab: Lab, place: Path) -> None:
    lab.store.save("old", "a")
    lab.store.save("new", "a")
    age(place, 100)
    with lab.catalog() as catalog:
        assert catalog.find_orphaned_artifacts(grace=200) == []
        assert len(catalog.find_orphaned_artifacts(grace=50)) == 1


def test_content_below_the_folder_of_a_running_run_is_left_until_it_must_be_lost(lab: Lab, place: Path) -> None:
    run = lab.run("r", steps=["s"])
    key = f"{run.journal.folder}/data/s/out"
    staged = lab.store.stage("on its way")
    lab.store.put_tree(staged.directory, f"{key}/{content_segment(staged.digest)}", staged.files)
    age(place, 5 * HOUR)
    with lab.catalog() as catalog:
        assert catalog.find_orphaned_artifacts() == []
        age(place, LOST)
        assert kinds(catalog.find_orphaned_artifacts()) == ["content"]


def test_a_run_that_is_started_again_is_running_from_then_on(lab: Lab, place: Path) -> None:
    lab.training("r")
    age(place, 10 * LOST)
    journal = lab.run("r", params={"lr": 0.1, "path": "wine.csv"}).journal
    assert journal.end() is None
    with lab.catalog() as catalog:
        assert catalog.collect_garbage(Retention(older_than=0)).items == ()


def test_what_a_registry_points_at_is_kept_though_no_manifest_names_it(lab: Lab, place: Path) -> None:
    old = lab.store.save("old", "model")
    digest = lab.store.manifest("model").digest
    lab.store.save("new", "model")
    age(place, DAY)
    with Catalog(lab.url, lab.stores, lambda: [(old, digest)]) as catalog:
        assert catalog.find_orphaned_artifacts() == []
    with Catalog(lab.url, lab.stores) as catalog:
        assert kinds(catalog.find_orphaned_artifacts()) == ["content"]


def test_a_manifest_that_cannot_be_read_keeps_all_that_is_beside_it(lab: Lab, place: Path) -> None:
    shared = LocalArtifactStore(place, deduplicate=True)
    shared.save("x" * 100, "a")
    lab.store.replace(f"a/{MANIFEST}", b"damaged")
    age(place, DAY)
    with lab.catalog() as catalog:
        report = catalog.delete_orphaned_artifacts(dry_run=False)
    assert report.items == ()
    assert len(report.problems) == 1
    assert "cannot be read" in report.problems[0]


def test_only_manifests_that_have_several_contents_beside_them_are_read(tmp_path: Path) -> None:
    asked: list[str] = []

    class Store(LocalArtifactStore):
        def read(self, key: str) -> bytes:
            asked.append(key)
            return super().read(key)

    store = Store(tmp_path)
    for path, value in (("one", 1), ("other", 2), ("other", 3)):
        store.save(value, path)
    age(tmp_path, DAY)
    asked.clear()
    assert kinds(Collector({"default": store}).find()) == ["content"]
    assert asked == [f"other/{MANIFEST}"]
    Collector({"default": store}, rule=Retention(keep_last=1)).find()
    assert asked.count(f"one/{MANIFEST}") == 1


def test_a_store_inside_another_is_looked_at_once(lab: Lab, place: Path) -> None:
    lab.stores["inner"] = LocalArtifactStore(place / "inner", durable=False)
    lab.stores["inner"].save("old", "a")
    lab.stores["inner"].save("new", "a")
    age(place, DAY)
    with lab.catalog() as catalog:
        (found,) = catalog.find_orphaned_artifacts()
        assert (found.store, found.kind) == ("inner", "content")
        assert catalog.get_stats().artifacts == 1


def test_bytes_that_another_stacks_store_shares_inside_this_one_are_left(lab: Lab, place: Path) -> None:
    other = LocalArtifactStore(place / "team", durable=False, deduplicate=True)
    other.save("shared", "a")
    age(place, DAY)
    before = sorted(place.rglob("*"))
    with lab.catalog() as catalog:
        assert catalog.delete_orphaned_artifacts(dry_run=False).items == ()
    assert sorted(place.rglob("*")) == before


# --- retention --------------------------------------------------------------------------------------------------------


@pytest.fixture
def nights(lab: Lab, place: Path) -> list[dict[str, ArtifactRef]]:
    """Four nightly runs, the first four days old; the artifacts of each are of that time."""
    made = []
    for number in range(4):
        made.append(lab.training(f"n{number}", lr=0.1 * number))
        age(place, DAY)
    return made


def test_older_than_lets_go_what_is_older_and_the_index_follows(lab: Lab, nights: list[dict[str, ArtifactRef]]) -> None:
    catalog = lab.synced()
    everything = len(catalog.artifacts())
    would = catalog.collect_garbage(Retention(older_than=2.5 * DAY))
    assert len(catalog.artifacts()) == everything
    report = catalog.collect_garbage(Retention(older_than=2.5 * DAY), dry_run=False)
    assert report.items == would.items
    assert {made.run_id for made in catalog.artifacts()} == {"n2", "n3"}
    after = names(catalog)
    catalog.rebuild()
    assert names(catalog) == after
    assert not lab.store.exists(nights[0]["page"].uri)
    assert lab.store.exists(nights[3]["best"].uri)
    assert {run.run_id for run in catalog.runs()} == {"n0", "n1", "n2", "n3"}  # their records stay


def test_keep_last_counts_each_name_of_a_pipeline(lab: Lab, nights: list[dict[str, ArtifactRef]]) -> None:
    catalog = lab.synced()
    catalog.collect_garbage(Retention(keep_last=1), dry_run=False)
    assert {made.run_id for made in catalog.artifacts()} == {"n3"}
    assert len(catalog.artifacts()) == len(nights[3])


def test_an_artifact_that_was_brought_back_is_not_the_last_for_that(
    lab: Lab, place: Path, nights: list[dict[str, ArtifactRef]]
) -> None:
    for manifest in place.rglob("n0/**/manifest.json"):
        manifest.touch()
    age(place, 2 * HOUR)
    catalog = lab.synced()
    catalog.collect_garbage(Retention(keep_last=1), dry_run=False)
    assert {made.run_id for made in catalog.artifacts()} == {"n3"}


def test_both_rules_must_let_it_go(lab: Lab, nights: list[dict[str, ArtifactRef]]) -> None:
    catalog = lab.synced()
    catalog.collect_garbage(Retention(older_than=3.5 * DAY, keep_last=1), dry_run=False)
    assert {made.run_id for made in catalog.artifacts()} == {"n1", "n2", "n3"}


def test_without_a_rule_no_artifact_goes(lab: Lab, nights: list[dict[str, ArtifactRef]]) -> None:
    with lab.catalog() as catalog:
        assert catalog.collect_garbage(Retention(keep_tags=("x",))).items == ()


def test_a_tag_protects(lab: Lab, place: Path) -> None:
    run = lab.run("r", steps=["s"])
    run.task("s", {"one": 1}, tags={"stage": "prod"})
    run.task("s", {"two": 2}, tags={"stage": "test"})
    run.end()
    age(place, DAY)
    with lab.catalog() as catalog:
        for tag, kept in {"stage=prod": ["r.one"], "stage": ["r.one", "r.two"], "stage=pro": []}.items():
            going = catalog.collect_garbage(Retention(older_than=HOUR, keep_tags=(tag,))).items
            assert sorted({"r.one", "r.two"} - {f"r.{item.key.rpartition('/')[2]}" for item in going}) == kept


def test_a_parent_of_what_is_kept_is_kept(lab: Lab, place: Path) -> None:
    first = lab.run("first", steps=["s"])
    data = first.task("s", {"data": 1, "other": 2})
    first.end()
    age(place, 10 * DAY)
    second = lab.run("second", pipeline="other", steps=["t"])
    second.task("t", {"model": 3}, {"data": data["data"]})
    second.end()
    age(place, DAY)
    with lab.catalog() as catalog:
        catalog.collect_garbage(Retention(older_than=5 * DAY), dry_run=False)
        assert names(catalog) == ["first.data", "second.model"]


def test_nothing_of_a_running_run_goes_nor_what_it_was_given(lab: Lab, place: Path) -> None:
    first = lab.run("first", steps=["s"])
    data = first.task("s", {"data": 1, "given": 2, "other": 3})
    first.end()
    running = lab.run("running", steps=["t"], params={"source": data["given"].uri})
    running.task("t", {"made": 4}, {"x": data["data"]})
    age(place, 2 * DAY)
    with lab.catalog() as catalog:
        catalog.collect_garbage(Retention(older_than=DAY), dry_run=False)
        assert names(catalog) == ["first.data", "first.given", "running.made"]


def test_what_was_saved_by_hand_is_never_let_go(lab: Lab, place: Path) -> None:
    lab.store.save(1, "by/hand")
    lab.store.materialize(2, "x", "no-run", "step")
    age(place, 100 * DAY)
    with lab.catalog() as catalog:
        assert catalog.collect_garbage(Retention(older_than=0, keep_last=0)).items == ()


def test_a_run_that_begins_again_gets_back_what_was_just_taken(
    lab: Lab, nights: list[dict[str, ArtifactRef]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened again between the last look and the removal of its manifest."""
    collector = Collector(lab.stores, rule=Retention(keep_last=0))
    found = [item for item in collector.find() if "/n0/" in item.key]
    collect = lab.store.collect

    def racing(key: str, before: float) -> bool:
        lab.run("n0", params={"lr": 0.0, "path": "wine.csv"}, steps=())
        return collect(key, before)

    monkeypatch.setattr(lab.store, "collect", racing)
    report = collector.remove(found)
    assert (report.items, report.left) == ((), len(found))
    for ref in nights[0].values():
        assert lab.store.manifest(ref).id == ref.id


# --- what somebody names ----------------------------------------------------------------------------------------------


def test_the_artifacts_of_a_pipeline_go_with_or_without_their_files(lab: Lab, place: Path) -> None:
    lab.training("a", pipeline="one")
    kept = lab.training("b", pipeline="two")
    catalog = lab.synced()
    assert catalog.delete_pipeline_artifacts("one") == 8
    assert {made.pipeline for made in catalog.artifacts()} == {"two"}
    assert catalog.delete_pipeline_artifacts("one") == 0
    assert catalog.delete_pipeline_artifacts("two", delete_files=True) == len(kept)
    catalog.rebuild()
    assert catalog.artifacts() == []


def test_while_a_run_goes_on_nothing_of_its_pipeline_is_deleted(lab: Lab) -> None:
    lab.run("r", pipeline="one").task("s", {"x": 1})
    catalog = lab.synced()
    with pytest.raises(RunConflict, match="may be running"):
        catalog.delete_pipeline_artifacts("one", delete_files=True)
    assert len(catalog.artifacts()) == 1


def test_datasets_are_purged_only_when_that_is_confirmed(lab: Lab) -> None:
    lab.training("a")
    catalog = lab.synced()
    with pytest.raises(ValueError, match="confirm=True"):
        catalog.purge_dataset_artifacts()
    datasets = [made.uri for made in catalog.artifacts(type="Dataset")]
    assert catalog.purge_dataset_artifacts(confirm=True) == len(datasets) > 0
    assert catalog.artifacts(type="Dataset") == []
    assert len(catalog.artifacts()) == 8 - len(datasets)
    assert not any(lab.store.exists(uri) for uri in datasets)


def test_a_failed_run_is_cleaned_up_with_its_records(lab: Lab, place: Path) -> None:
    kept = lab.training("kept")
    run = lab.run("failed")
    run.task("s", {"x": 1})
    run.end("failed")
    catalog = lab.synced()
    with pytest.raises(RunConflict, match="completed"):
        catalog.cleanup_failed_run("kept")
    assert catalog.cleanup_failed_run("failed") == 1
    assert [row.run_id for row in catalog.runs()] == ["kept"]
    assert {made.run_id for made in catalog.artifacts()} == {"kept"}
    assert [path for path in place.rglob("*") if "failed" in str(path.relative_to(place))] == []
    assert lab.store.manifest(kept["best"]).id == kept["best"].id


def test_a_run_that_was_killed_is_cleaned_up_by_whoever_knows(lab: Lab) -> None:
    lab.run("killed").task("s", {"x": 1})
    catalog = lab.synced()
    with pytest.raises(RunConflict, match="running"):
        catalog.cleanup_failed_run("killed")
    assert catalog.cleanup_failed_run("killed", lost=True) == 1
    assert catalog.runs() == []


def test_a_rule_refuses_what_makes_no_sense(lab: Lab) -> None:
    make: list[Callable[[], object]] = [
        lambda: Retention(older_than=-1),
        lambda: Retention(keep_last=-1),
        lambda: Collector(lab.stores, grace=-1),
    ]
    for call in make:
        with pytest.raises(ValueError, match="negative"):
            call()
    with pytest.raises(ValueError, match="would protect nothing"):
        Retention(keep_tags="stage=prod")  # type: ignore[arg-type]
