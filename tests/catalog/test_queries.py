"""What can be asked, and by which keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tailrace.core.errors import AmbiguousName, ArtifactNotFound, RunNotFound

if TYPE_CHECKING:
    from .conftest import Lab


def test_an_artifact_has_everything_that_its_manifest_says(lab: Lab) -> None:
    refs = lab.training("a1")
    row = lab.synced().artifact(refs["best"].id).to_dict()
    assert {
        key: row[key] for key in ("name", "type", "version", "step", "output", "run_id", "pipeline", "project")
    } == {
        "name": "best",
        "type": "Model",
        "version": "v1",
        "step": "select",
        "output": "best",
        "run_id": "a1",
        "pipeline": "training",
        "project": "shop",
    }
    assert (row["uri"], row["digest"], row["store"]) == (refs["best"].uri, refs["best"].digest, "default")
    assert (row["size_bytes"], row["materializer"], row["map_index"]) == (len(repr("0.1/2")), "python", None)
    assert row["manifest_digest"] == refs["best"].manifest_digest


def test_every_listing_is_flat_json(lab: Lab) -> None:
    refs = lab.training("a1")
    lab.commit("hand", 1, tags={"stage": "raw", "kind": "result"})
    catalog = lab.synced()
    rows: list[Any] = [*catalog.artifacts(), *catalog.runs(), *catalog.consumers(refs["train_set"].id)]
    rows += [*catalog.lineage(refs["best"].id).nodes, *catalog.lineage(refs["best"].id).edges]
    for row in rows:
        values = json.loads(json.dumps(row.to_dict())).values()
        assert not any(isinstance(value, list | dict) for value in values)
    hand = catalog.artifacts(name="hand")[0]
    assert (hand.kind, hand.to_dict()["tags"]) == ("result", "kind=result, stage=raw")
    json.dumps([catalog.run("a1").to_dict(), catalog.stats().to_dict(), catalog.compare("a1", "a1").to_dict()])


@pytest.mark.parametrize(
    "key",
    [
        lambda ref: ref.id,
        lambda ref: ref.id[:10],
        lambda ref: ref.uri,
        lambda ref: ref.digest,
        lambda ref: "a1/report/page",
    ],
    ids=["id", "beginning of the id", "uri", "digest", "place"],
)
def test_an_artifact_is_found_by_any_of_its_keys(lab: Lab, key: Any) -> None:
    refs = lab.training("a1")
    assert lab.synced().artifact(key(refs["page"])).id == refs["page"].id


def test_an_item_of_a_mapped_step_is_found_by_its_index(lab: Lab) -> None:
    refs = lab.training("a1")
    assert lab.synced().artifact("a1/train/candidate/1").id == refs["candidate1"].id


def test_names_with_slashes_are_found_by_their_place(lab: Lab) -> None:
    run = lab.run("team/2026")
    made = run.task("load", {"data": 1, "7": 2})
    run.end()
    catalog = lab.synced()
    assert catalog.artifact("team/2026/load/data").id == made["data"].id
    assert catalog.artifact("team/2026/load/7").id == made["7"].id


def test_a_digest_means_the_newest_of_equal_content(lab: Lab) -> None:
    lab.training("a1")
    again = lab.training("a2")
    catalog = lab.synced()
    assert catalog.artifact(again["data"].digest).id == again["data"].id
    assert len(catalog.artifacts(digest=again["data"].digest)) == 2


def test_a_key_of_several_artifacts_lists_them(lab: Lab) -> None:
    refs = lab.training("a1")
    with pytest.raises(AmbiguousName) as caught:
        lab.synced().artifact("a1/train/candidate")
    assert set(caught.value.candidates) == {refs[f"candidate{index}"].id for index in range(3)}
    assert "a1/train/candidate/2" in str(caught.value)


def test_a_beginning_of_several_ids_lists_them(lab: Lab) -> None:
    for last in "09af":
        lab.commit(f"made/{last}", last, id=f"abcdef{last}")
    lab.commit("made/other", 1, id="abcdf0")
    catalog = lab.synced()
    with pytest.raises(AmbiguousName) as caught:
        catalog.artifact("abcde")
    assert sorted(caught.value.candidates) == ["abcdef0", "abcdef9", "abcdefa", "abcdeff"]
    assert catalog.artifact("abcdf").name == "other"
    assert catalog.artifact("abcdef9").name == "9"


@pytest.mark.parametrize(
    "key",
    [
        "bset",
        "a1/select/bset",
        "",
        "/",
        "a1/select/best/9",
        "a1/train/candidate/" + "9" * 30,
        "%",
        "blake3:00",
        "file:///x",
    ],
)
def test_what_is_not_there_is_said_with_what_is_near(lab: Lab, key: str) -> None:
    lab.training("a1")
    with pytest.raises(ArtifactNotFound) as caught:
        lab.synced().artifact(key)
    assert repr(key) in str(caught.value)
    assert ("'best'" in str(caught.value)) == ("bset" in key)


def test_of_an_id_in_two_places_the_newest_is_meant(lab: Lab) -> None:
    lab.commit("first/place", 1, id="abcd")
    newest = lab.commit("second/place", 2, id="abcd")
    child = lab.commit("third", 3)
    catalog = lab.synced()
    assert catalog.artifact("abcd").uri == newest.uri
    assert len(catalog.artifacts()) == 3
    assert [node.uri for node in catalog.lineage("abcd").nodes] == [newest.uri]
    assert catalog.artifact(child.id).name == "third"


def test_artifacts_are_chosen_by_run_name_type_and_step_newest_first(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2")
    lab.commit("frame", 1, type="pandas.DataFrame")
    catalog = lab.synced()
    assert len(catalog.artifacts(run_id="a1")) == 8
    assert [row.run_id for row in catalog.artifacts(name="best")] == ["a2", "a1"]
    assert [row.map_index for row in catalog.artifacts(run_id="a2", step="train")] == [2, 1, 0]
    assert {row.name for row in catalog.artifacts(type="Model")} == {"candidate", "best"}
    assert [row.name for row in catalog.artifacts(type="DataFrame")] == ["frame"]
    assert [row.name for row in catalog.artifacts(type="pandas.DataFrame")] == ["frame"]
    assert [row.name for row in catalog.artifacts(limit=2)] == ["frame", "page"]


def test_runs_are_chosen_by_project_pipeline_and_state_newest_first(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2", project="lab")
    lab.training("a3", pipeline="scoring")
    lab.run("a4")
    catalog = lab.synced()
    assert [run.run_id for run in catalog.runs()] == ["a4", "a3", "a2", "a1"]
    assert [run.run_id for run in catalog.runs(project="lab")] == ["a2"]
    assert [run.run_id for run in catalog.runs(pipeline="scoring")] == ["a3"]
    assert [run.run_id for run in catalog.runs(state="running")] == ["a4"]
    assert [run.run_id for run in catalog.runs(limit=1)] == ["a4"]


def test_a_run_that_is_not_there_is_said_with_what_is_near(lab: Lab) -> None:
    lab.training("nightly-1")
    with pytest.raises(RunNotFound, match="'nightly-1'"):
        lab.synced().run("nightly-2")


def test_a_run_id_of_two_projects_needs_the_project(lab: Lab) -> None:
    lab.training("a1", project="shop")
    lab.training("a1", project="lab", lr=0.5)
    catalog = lab.synced()
    with pytest.raises(AmbiguousName) as caught:
        catalog.run("a1")
    assert caught.value.candidates == ("lab", "shop")
    assert catalog.run("a1", project="lab").params["lr"] == 0.5


# --- versions ---------------------------------------------------------------------------------------------------------


def test_versions_count_up_per_name_and_project(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2")
    lab.training("b1", project="lab")
    catalog = lab.synced()
    assert [(row.run_id, row.version) for row in catalog.artifacts(name="best")] == [
        ("b1", "v1"),
        ("a2", "v2"),
        ("a1", "v1"),
    ]


def test_the_items_of_a_mapped_step_are_one_version_each_in_its_place(lab: Lab) -> None:
    lab.training("a1")
    lab.training("a2")
    versions = {(row.run_id, row.map_index): row.version for row in lab.synced().artifacts(name="candidate")}
    assert versions == {(run, index): version for run, version in (("a1", "v1"), ("a2", "v2")) for index in range(3)}


def test_a_version_that_was_given_stays_and_counts(lab: Lab) -> None:
    for run_id, version in [("a1", None), ("a2", "2026.3"), ("a3", None)]:
        run = lab.run(run_id)
        run.task("train", {"model": run_id}, version=version)
        run.end()
    assert [row.version for row in lab.synced().artifacts(name="model")] == ["v3", "2026.3", "v1"]


def test_versions_follow_the_time_of_making_whatever_is_indexed_first(lab: Lab) -> None:
    now, catalog = lab.now, lab.synced()
    lab.now = now.replace(year=2027)
    lab.commit("later/model", 2, name="model")
    catalog.sync()
    assert [row.version for row in catalog.artifacts(name="model")] == ["v1"]
    lab.now = now
    lab.commit("earlier/model", 1, name="model")
    catalog.sync()
    assert [(row.created[:4], row.version) for row in catalog.artifacts(name="model")] == [
        ("2027", "v2"),
        ("2026", "v1"),
    ]
    lab.store.delete("earlier/model")
    catalog.sync()
    assert [row.version for row in catalog.artifacts(name="model")] == ["v1"]


# --- who took what, what changed --------------------------------------------------------------------------------------


def test_a_task_that_took_an_artifact_is_its_consumer_even_if_it_failed(lab: Lab) -> None:
    refs = lab.training("a1")
    run = lab.run("b1", pipeline="scoring")
    run.task("score", {}, {"model": refs["best"]}, state="failed")
    run.end("failed")
    catalog = lab.synced()
    taken = [(row.run_id, row.pipeline, row.step, row.input) for row in catalog.consumers(refs["best"].id)]
    assert taken == [("a1", "training", "report", "model"), ("b1", "scoring", "score", "model")]
    assert [row.map_index for row in catalog.consumers("a1/split/train_set")] == [0, 1, 2]
    assert [row.name for row in catalog.children("a1/select/best")] == ["page"]


def test_what_changed_between_two_runs(lab: Lab) -> None:
    lab.training("a1")
    run = lab.run("a2", params={"lr": 0.2, "path": "wine.csv", "deep": True}, steps=("load", "train"))
    data = run.task("load", {"data": "wine"}, code="0ther")["data"]
    run.task("train", {"candidate": "0.2/0"}, {"rows": data}, map_index=0)
    run.task("publish", {"link": "x"})
    run.end()
    found = lab.synced().compare("a1", "a2")
    assert found.params == {"deep": (None, True), "lr": (0.1, 0.2)}
    changes = {(row.step, row.output, row.map_index): (row.change, row.code_changed) for row in found.artifacts}
    assert changes[("load", "data", None)] == ("same", True)
    assert changes[("train", "candidate", 0)] == ("changed", False)
    assert changes[("train", "candidate", 1)] == ("only in a", False)
    assert changes[("publish", "link", None)] == ("only in b", False)
    assert list(changes) == sorted(changes, key=lambda place: (place[0], place[1], place[2] or 0))


def test_a_parameter_that_is_none_differs_from_one_that_is_absent(lab: Lab) -> None:
    lab.run("a1", params={"seed": None}).end()
    lab.run("a2").end()
    assert lab.synced().compare("a1", "a2").params == {"seed": (None, None)}


def test_the_numbers_add_up(lab: Lab) -> None:
    lab.training("a1")
    lab.run("a2").end("failed")
    stats = lab.synced().stats()
    assert (stats.runs, stats.runs_by_state) == (2, {"completed": 1, "failed": 1})
    assert (stats.artifacts, stats.by_type) == (8, {"Dataset": 3, "Model": 4, "Report": 1})
    assert stats.by_store == {"default": stats.bytes}
    assert stats.bytes == sum(row.size_bytes for row in lab.synced().artifacts())


def test_an_empty_store_gives_empty_answers(lab: Lab) -> None:
    catalog = lab.synced()
    assert (catalog.runs(), catalog.artifacts()) == ([], [])
    assert catalog.stats().to_dict() == {
        "runs": 0,
        "runs_by_state": {},
        "artifacts": 0,
        "bytes": 0,
        "by_type": {},
        "by_store": {},
    }
