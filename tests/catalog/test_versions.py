"""A version number, once seen, means one artifact: after it is deleted, replaced, collected or indexed anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.catalog.index import Catalog
from tailrace.catalog.journal import Journal
from tailrace.catalog.retention import Retention
from tailrace.core.refs import ArtifactRef
from tailrace.core.results import TaskRecord
from tailrace.stores.memory import MemoryArtifactStore

if TYPE_CHECKING:
    from .conftest import Lab


def prompts(lab: Lab, *run_ids: str) -> list[ArtifactRef]:
    """Runs that each make one prompt: the first of them is v1."""
    made = []
    for run_id in run_ids:
        run = lab.run(run_id)
        made.append(run.task("write", {"greeting": f"Hello {run_id}"}, type="Prompt")["greeting"])
        run.end()
    return made


def numbers(catalog: Catalog) -> dict[str, str]:
    """The versions by run."""
    return {row.run_id: row.version for row in reversed(catalog.artifacts(name="greeting"))}


def everywhere(lab: Lab) -> dict[str, str]:
    """The versions, which are the same in the index that follows, after a rebuild, and in a new index."""
    catalog = lab.synced()
    followed = numbers(catalog)
    catalog.rebuild()
    assert numbers(catalog) == followed
    lab.forget()
    assert numbers(lab.synced()) == followed
    return followed


@pytest.mark.parametrize("indexed", [True, False])
def test_an_artifact_keeps_its_number_when_an_older_one_is_deleted(lab: Lab, indexed: bool) -> None:
    made = prompts(lab, "r0", "r1", "r2")
    if indexed:
        assert numbers(lab.synced()) == {"r0": "v1", "r1": "v2", "r2": "v3"}
    lab.store.delete(made[0].uri)
    lab.store.delete(made[1].uri)
    assert everywhere(lab) == {"r2": "v3"}
    prompts(lab, "r3")
    assert everywhere(lab) == {"r2": "v3", "r3": "v4"}


def test_the_number_of_the_newest_is_not_given_again_when_it_is_deleted(lab: Lab) -> None:
    made = prompts(lab, "r0", "r1")
    catalog = lab.synced()
    lab.store.delete(made[1].uri)
    catalog.sync()
    prompts(lab, "r2")
    assert everywhere(lab) == {"r0": "v1", "r2": "v3"}


def test_numbers_stay_after_a_collection(lab: Lab) -> None:
    prompts(lab, "r0", "r1", "r2", "r3")
    catalog = lab.synced()
    report = catalog.collect_garbage(Retention(keep_last=2), dry_run=False, grace=0.0)
    assert {item.kind for item in report.items} >= {"artifact"}
    assert numbers(catalog) == {"r2": "v3", "r3": "v4"}  # also before the next sync
    assert everywhere(lab) == {"r2": "v3", "r3": "v4"}


def test_numbers_stay_when_the_artifacts_of_a_pipeline_are_deleted(lab: Lab) -> None:
    prompts(lab, "r0")
    lab.training("other", pipeline="other")
    run = lab.run("r1", pipeline="second")
    run.task("write", {"greeting": "Good morning"}, type="Prompt")
    run.end()
    assert lab.synced().delete_pipeline_artifacts("training", delete_files=True) == 1
    assert everywhere(lab) == {"r1": "v2"}


def test_what_a_run_under_the_same_id_made_anew_takes_a_new_number(lab: Lab) -> None:
    prompts(lab, "r0", "r1")
    lab.synced()
    prompts(lab, "r0")
    assert everywhere(lab) == {"r1": "v2", "r0": "v3"}


def test_what_a_run_under_the_same_id_did_not_make_again_keeps_its_number(lab: Lab) -> None:
    made = prompts(lab, "r0", "r1")
    again = lab.run("r0")
    list(again.journal.tasks(stale=lambda task: True))
    again.end("failed")
    assert again.journal.task("write", None) is None
    catalog = lab.synced()
    assert [task.step for task in catalog.run("r0").tasks] == []
    assert everywhere(lab) == {"r0": "v1", "r1": "v2"}
    lab.store.delete(made[0].uri)
    assert everywhere(lab) == {"r1": "v2"}


def test_what_a_failed_try_recorded_keeps_its_number_when_the_next_try_replaces_it(lab: Lab) -> None:
    run = lab.run("r0")
    key = "shop/2026-03-01/r0/data/write/greeting"
    labels = {"id": "00", "name": "greeting"}
    producer = lab.store.manifest(prompts(lab, "x")[0].uri).producer
    assert producer is not None
    for attempt, text in enumerate(["Hello", "Hello again"], 1):
        ref = lab.commit(key, text, producer=replace(producer, run_id="r0"), **labels)
        run.journal.write_task(TaskRecord("write", None, "failed", "", 0.1, attempt, extra=(ref,)))
        prompts(lab, f"after{attempt}")
    assert everywhere(lab) == {"x": "v1", "after1": "v3", "r0": "v4", "after2": "v5"}


def test_a_damaged_record_of_the_task_does_not_keep_it_from_being_recorded_again(lab: Lab) -> None:
    prompts(lab, "r0")
    lab.store.replace("shop/2026-03-01/r0/steps/write@all.json", b"{")
    prompts(lab, "r0")
    assert everywhere(lab) == {"r0": "v1"}


def test_an_output_that_is_stored_unchanged_leaves_no_trace_in_the_record(lab: Lab) -> None:
    (made,) = prompts(lab, "r0")
    first = Journal(lab.store, "shop", "r0", lab.run("r0").record.run.started)
    first.again = True
    before = first.task("write", None)
    assert before is not None
    first.write_task(before)
    after = first.task("write", None)
    assert after == before
    assert after.earlier == ()
    assert after.stored == (made,)


def test_records_that_do_not_know_when_their_artifacts_were_made_count_by_the_tasks_time(lab: Lab) -> None:
    made = prompts(lab, "r0", "r1", "r2")
    for run_id, ref in zip(["r0", "r1", "r2"], made, strict=True):
        key = f"shop/2026-03-01/{run_id}/steps/write@all.json"
        data = lab.store.read(key)
        lab.store.replace(key, data.replace(f',"created":"{ref.created}"'.encode(), b""))
        assert lab.store.read(key) != data
    assert everywhere(lab) == {"r0": "v1", "r1": "v2", "r2": "v3"}
    lab.store.delete(made[0].uri)
    assert everywhere(lab) == {"r1": "v2", "r2": "v3"}
    prompts(lab, "r1")
    assert everywhere(lab) == {"r2": "v3", "r1": "v4"}


def test_copies_of_an_artifact_have_one_number(lab: Lab) -> None:
    made = prompts(lab, "r0", "r1")
    lab.stores["other"] = MemoryArtifactStore(f"other-{lab.folder}")
    key = lab.store.key(made[0].uri)
    lab.stores["other"].replace(f"{key}/manifest.json", lab.store.read(f"{key}/manifest.json"))
    catalog = lab.synced()
    assert [row.version for row in catalog.artifacts(name="greeting")] == ["v2", "v1", "v1"]
    lab.store.delete(made[0].uri)
    catalog.sync()
    assert [row.version for row in catalog.artifacts(name="greeting")] == ["v2", "v1"]


def test_the_number_of_what_was_saved_by_hand_is_free_when_that_is_deleted(lab: Lab) -> None:
    lab.commit("a/notes", 1)
    lab.commit("b/notes", 2)
    catalog = lab.synced()
    lab.store.delete("a/notes")
    catalog.sync()
    assert [row.version for row in catalog.artifacts()] == ["v1"]


moves = st.lists(
    st.tuples(
        st.sampled_from(["run", "task", "map", "end", "delete", "sync", "rebuild", "forget"]),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    max_size=30,
)


def is_of(step: str) -> Callable[[TaskRecord], bool]:
    return lambda task: task.step == step


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves, seed=st.integers(0, 2**16))
def test_no_number_is_ever_given_to_another_artifact(
    new_lab: Callable[[], Lab], moves: list[tuple[str, int, int]], seed: int
) -> None:
    lab, chance = new_lab(), random.Random(seed)
    run = lab.run("r0")
    made: list[ArtifactRef] = []
    given_to: dict[tuple[str, int | None, str], tuple[str, str]] = {}
    for move, which, what in [*moves, ("sync", 0, 0), ("forget", 0, 0)]:
        if move == "run":
            run = lab.run(f"r{which}")  # or this id again
        elif move == "task":
            made += run.task(f"step{which}", {"out": what, "log": which}).values()
        elif move == "map":
            made += run.task("mapped", {"out": what}, map_index=which).values()
        elif move == "end":
            list(run.journal.tasks(stale=is_of(f"step{which}")))
            run.end("failed")
        elif move == "delete" and made:
            lab.store.delete(chance.choice(made).uri)
        elif move in ("sync", "rebuild", "forget"):
            catalog = lab.catalog()
            if move == "forget" and lab.database.exists():
                lab.forget()
            (catalog.rebuild if move == "rebuild" else catalog.sync)()
            for row in catalog.artifacts():
                seen = (row.name, row.map_index, row.version)
                assert given_to.setdefault(seen, (row.id, row.created)) == (row.id, row.created)
    lab.close()
